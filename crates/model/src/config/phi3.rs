//! `Phi3ForCausalLM`: Phi-3-mini and -medium, Phi-3.5-mini, phi-4, Phi-4-mini.

use super::{Common, epsilon, refuse, rope};
use crate::Result;
use crate::json::Object;
use crate::spec::{Block, LayerSpec, Mlp, ModelSpec, NormSpec, limits};
use phi3_tensor::{Activation, Mask};

pub(super) fn read(json: &Object, notes: &mut Vec<String>) -> Result<ModelSpec> {
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
    let common = Common::read(json, 4096)?;
    let rope = rope::read(json, &rope::PHI3, common.heads.head_dim, common.max_position_embeddings, notes)?;
    let norm = NormSpec::Rms { eps: epsilon(json, "rms_norm_eps")? };
    let layer = LayerSpec {
        block: Block::Sequential,
        mask: Mask::windowed(json.integer("sliding_window", 1..=limits::POSITIONS)?),
        attention_bias: false,
        mlp: Mlp::Dense { inner: common.inner, activation: Activation::SwiGlu, bias: false },
    };
    Ok(common.spec(norm, rope, layer))
}
