//! The description of a decoder from `config.json`.

mod rope;

use crate::Result;
use crate::json::Object;
use crate::spec::{LayerSpec, Mlp, ModelSpec, NormSpec, limits};
use phi3_tensor::Heads;
use std::path::Path;

impl ModelSpec {
    /// Reads `config.json` of a checkpoint folder. What it says and is not followed is told by
    /// [`Checkpoint::notes`](crate::Checkpoint::notes).
    pub fn read(path: &Path) -> Result<Self> {
        let hint = "a checkpoint folder holds config.json beside its weights";
        Self::of_json(&Object::read(path, hint)?, &mut Vec::new())
    }

    /// Parses the text of a `config.json`; `path` is for messages.
    pub fn parse(path: &Path, json: &[u8]) -> Result<Self> {
        Self::of_json(&Object::parse(path, json)?, &mut Vec::new())
    }

    /// Adds to `notes` what is not followed, or is read otherwise than it stands there.
    pub(crate) fn of_json(json: &Object, notes: &mut Vec<String>) -> Result<Self> {
        architecture(json)?;
        refuse_unknown(json)?;
        let hidden_size = json.required("hidden_size", 1..=limits::WIDTH)?;
        let heads = heads(json, hidden_size)?;
        let max_position_embeddings = json.integer("max_position_embeddings", 1..=limits::POSITIONS)?.unwrap_or(4096);
        let (rope, rotary_dim) = rope::read(json, heads.head_dim, max_position_embeddings, notes)?;
        let vocab_size = json.required("vocab_size", 1..=limits::VOCABULARY)?;
        let eps = json.positive("rms_norm_eps")?.unwrap_or(1e-5) as f32;
        if !eps.is_normal() {
            return Err(json.bad("rms_norm_eps", "a number that f32 can hold", "published models have 1e-05"));
        }
        let inner = json.required("intermediate_size", 1..=limits::WIDTH)?;
        let window = json.integer("sliding_window", 1..=limits::POSITIONS)?;
        let layer = LayerSpec { window, mlp: Mlp::Dense { inner } };
        Ok(Self {
            hidden_size,
            layers: vec![layer; json.required("num_hidden_layers", 1..=limits::LAYERS)?],
            heads: Heads { rotary_dim, ..heads },
            vocab_size,
            max_position_embeddings,
            norm: NormSpec::Rms { eps },
            rope,
            tie_word_embeddings: json.boolean("tie_word_embeddings")?.unwrap_or(false),
            bos_token_id: json.integer("bos_token_id", 0..=u32::MAX as usize)?.map(|id| id as u32),
            eos_token_id: token_ids(json, "eos_token_id")?,
        })
    }
}

fn architecture(json: &Object) -> Result<()> {
    let hint = "this engine runs Phi3ForCausalLM checkpoints (model_type \"phi3\")";
    match json.string("model_type")? {
        Some("phi3") => {}
        _ => return Err(json.bad("model_type", "\"phi3\"", hint)),
    }
    match json.get("architectures").and_then(|list| list.as_array()) {
        Some(list) if !list.is_empty() && !list.iter().any(|name| name == "Phi3ForCausalLM") => {
            Err(json.bad("architectures", "\"Phi3ForCausalLM\"", hint))
        }
        _ => Ok(()),
    }
}

/// Fields that change the result in ways that are not implemented are refused by name; others may be anything.
fn refuse_unknown(json: &Object) -> Result<()> {
    if !matches!(json.string("hidden_act")?, None | Some("silu" | "swish")) {
        return Err(json.bad("hidden_act", "\"silu\"", "no published Phi-3 checkpoint has another activation"));
    }
    for field in ["attention_bias", "mlp_bias", "lm_head_bias"] {
        if json.boolean(field)? == Some(true) {
            return Err(json.bad(field, "false", "no published Phi-3 checkpoint has this bias"));
        }
    }
    // fields of related families that would change the result
    for (field, neutral) in [
        ("embedding_multiplier", 1.0),
        ("residual_multiplier", 1.0),
        ("attention_multiplier", 1.0),
        ("logits_scaling", 1.0),
        ("mup_width_multiplier", 1.0),
        ("mup_embedding_multiplier", 1.0),
        ("query_pre_attn_scalar", f64::NAN),
        ("attn_logit_softcapping", f64::NAN),
        ("final_logit_softcapping", f64::NAN),
        ("num_local_experts", f64::NAN),
        ("clip_qkv", f64::NAN),
    ] {
        if json.get(field).is_some_and(|value| value.as_f64() != Some(neutral)) {
            return Err(json.bad(
                field,
                "nothing: this field is not understood",
                "no published Phi-3 checkpoint has it",
            ));
        }
    }
    for (field, neutral) in [("use_sliding_window", true), ("qk_layernorm", false), ("use_qk_norm", false)] {
        if json.boolean(field)?.is_some_and(|value| value != neutral) {
            return Err(json.bad(field, neutral.to_string(), "no published Phi-3 checkpoint has it otherwise"));
        }
    }
    if json.get("quantization_config").is_some() {
        let hint = "load the checkpoint's unquantised weights";
        return Err(json.bad("quantization_config", "nothing: only f32, f16 and bf16 weights are understood", hint));
    }
    Ok(())
}

fn heads(json: &Object, hidden_size: usize) -> Result<Heads> {
    let heads = json.required("num_attention_heads", 1..=limits::HEADS)?;
    let kv_heads = json.integer("num_key_value_heads", 1..=limits::HEADS)?.unwrap_or(heads);
    if kv_heads > heads || !heads.is_multiple_of(kv_heads) {
        let expected = format!("a divisor of num_attention_heads ({heads})");
        return Err(json.bad("num_key_value_heads", expected, "query heads share key heads in equal groups"));
    }
    let head_dim = match json.integer("head_dim", 1..=limits::WIDTH)? {
        Some(head_dim) => head_dim,
        None if !hidden_size.is_multiple_of(heads) => {
            let expected = format!("a divisor of hidden_size ({hidden_size})");
            return Err(json.bad("num_attention_heads", expected, "heads share the width in equal parts"));
        }
        None => hidden_size / heads,
    };
    if !head_dim.is_multiple_of(2) {
        let expected = format!("an even head size, not {head_dim}");
        return Err(json.bad("num_attention_heads", expected, "dimensions of a head are rotated in pairs"));
    }
    Ok(Heads { heads, kv_heads, head_dim, rotary_dim: head_dim })
}

/// One token id or a list of them.
pub(crate) fn token_ids(json: &Object, field: &str) -> Result<Vec<u32>> {
    let id = |value: &serde_json::Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let ids = match json.get(field) {
        None => Some(Vec::new()),
        Some(serde_json::Value::Array(list)) => list.iter().map(id).collect(),
        Some(value) => id(value).map(|id| vec![id]),
    };
    ids.ok_or_else(|| json.bad(field, "a token id or a list of them", "compare the file with the published one"))
}
