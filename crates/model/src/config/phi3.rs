//! `Phi3ForCausalLM`: Phi-3-mini and -medium, Phi-3.5-mini, phi-4, Phi-4-mini. Also the text part of Phi-4-multimodal, and copies
//! under Llama's and Mistral's classes, which have other defaults.

use super::{Common, epsilon, refuse, rope};
use crate::Result;
use crate::json::Object;
use crate::spec::{Block, LayerSpec, Mlp, ModelSpec, NormSpec, limits};
use phi3_tensor::{Activation, Mask};

pub(super) fn read(json: &Object, notes: &mut Vec<String>) -> Result<ModelSpec> {
    let window = json.integer("sliding_window", 1..=limits::POSITIONS)?;
    with_defaults(json, notes, window, 4096, 1e-5)
}

/// `LlamaForCausalLM`, which has no window.
pub(super) fn read_llama(json: &Object, notes: &mut Vec<String>) -> Result<ModelSpec> {
    if json.get("sliding_window").is_some() {
        notes.push(json.note("sliding_window", "is not followed: LlamaForCausalLM has no window"));
    }
    with_defaults(json, notes, None, 2048, 1e-6)
}

/// `MistralForCausalLM`, whose window is 4096 where the field is missing, and none where it is null.
pub(super) fn read_mistral(json: &Object, notes: &mut Vec<String>) -> Result<ModelSpec> {
    let missing = !json.names().any(|name| name == "sliding_window");
    let window = json.integer("sliding_window", 1..=limits::POSITIONS)?.or(missing.then_some(4096));
    with_defaults(json, notes, window, 131_072, 1e-6)
}

/// `Phi4MMForCausalLM`: the text part.
pub(super) fn read_multimodal(json: &Object, notes: &mut Vec<String>) -> Result<ModelSpec> {
    notes.push(json.note("architectures", "the parts for images and speech are not computed: text only"));
    read(json, notes)
}

fn with_defaults(
    json: &Object,
    notes: &mut Vec<String>,
    window: Option<usize>,
    positions: usize,
    eps: f32,
) -> Result<ModelSpec> {
    if !matches!(json.string("hidden_act")?, None | Some("silu" | "swish")) {
        return Err(json.bad("hidden_act", "\"silu\"", "no published Phi-3 checkpoint has another activation"));
    }
    for field in ["attention_bias", "mlp_bias", "lm_head_bias"] {
        if json.boolean(field)? == Some(true) {
            return Err(json.bad(field, "false", "no published Phi-3 checkpoint has this bias"));
        }
    }
    for (field, neutral) in
        [("mup_width_multiplier", 1.0), ("mup_embedding_multiplier", 1.0), ("num_local_experts", f64::NAN)]
    {
        refuse(json, field, neutral)?;
    }
    let common = Common::read(json, positions)?;
    let rope = rope::read(json, &rope::PHI3, common.heads.head_dim, common.max_position_embeddings, notes)?;
    let norm = NormSpec::Rms { eps: epsilon(json, "rms_norm_eps", eps)? };
    let layer = LayerSpec {
        block: Block::Sequential,
        mask: Mask::windowed(window),
        attention_bias: false,
        mlp: Mlp::Dense { inner: common.inner, activation: Activation::SwiGlu, bias: false },
    };
    Ok(common.spec(norm, rope, layer))
}
