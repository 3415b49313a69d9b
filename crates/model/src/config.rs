//! The description of a decoder from `config.json`.

mod phi;
mod phi3;
mod phi3_v;
mod phi3small;
mod phi4_siglip;
mod phimoe;
mod rope;

use crate::Result;
use crate::json::Object;
use crate::rope::Rope;
use crate::spec::{LayerSpec, ModelSpec, NormSpec, limits};
use crate::table::Naming;
use phi3_tensor::Heads;
use std::path::Path;

impl ModelSpec {
    /// Reads `config.json` of a checkpoint folder. Notes about fields that are not followed are dropped here;
    /// [`Checkpoint::notes`](crate::Checkpoint::notes) returns them.
    pub fn read(path: &Path) -> Result<Self> {
        let hint = "a checkpoint folder holds config.json beside its weights";
        Self::of_json(&Object::read(path, hint)?, &mut Vec::new())
    }

    /// Parses the text of a `config.json`; `path` is for messages.
    pub fn parse(path: &Path, json: &[u8]) -> Result<Self> {
        Self::of_json(&Object::parse(path, json)?, &mut Vec::new())
    }

    /// Reads the description. Adds a note for each field that is not followed or is replaced by another value.
    pub(crate) fn of_json(json: &Object, notes: &mut Vec<String>) -> Result<Self> {
        let class = class(json)?;
        refuse_unknown(json)?;
        (class.read)(json, notes)
    }
}

/// A model class: its names in `config.json`, and the function that reads the file.
struct Class {
    model_type: &'static str,
    naming: Naming,
    architectures: &'static [&'static str],
    read: fn(&Object, &mut Vec<String>) -> Result<ModelSpec>,
}

const CLASSES: [Class; 9] = [
    Class { model_type: "phi3", naming: Naming::Phi3, architectures: &["Phi3ForCausalLM"], read: phi3::read },
    Class {
        model_type: "phi4mm",
        naming: Naming::Phi3,
        architectures: &["Phi4MMForCausalLM"],
        read: phi3::read_multimodal,
    },
    Class {
        model_type: "phi3small",
        naming: Naming::Phi3Small,
        architectures: &["Phi3SmallForCausalLM"],
        read: phi3small::read,
    },
    Class { model_type: "phi3_v", naming: Naming::Phi3, architectures: &["Phi3VForCausalLM"], read: phi3_v::read },
    Class {
        model_type: "phi4-siglip",
        naming: Naming::Phi3,
        architectures: &["Phi4ForCausalLMV"],
        read: phi4_siglip::read,
    },
    Class {
        model_type: "phimoe",
        naming: Naming::PhiMoe,
        architectures: &["PhiMoEForCausalLM", "PhimoeForCausalLM"],
        read: phimoe::read,
    },
    Class { model_type: "llama", naming: Naming::Llama, architectures: &["LlamaForCausalLM"], read: phi3::read_llama },
    Class {
        model_type: "mistral",
        naming: Naming::Llama,
        architectures: &["MistralForCausalLM"],
        read: phi3::read_mistral,
    },
    Class { model_type: "phi", naming: Naming::Phi, architectures: &["PhiForCausalLM"], read: phi::read },
];

impl Naming {
    /// The naming of the class with a `model_type` of `config.json`; `None` for an unsupported class.
    pub fn of_model_type(model_type: &str) -> Option<Self> {
        CLASSES.iter().find(|class| class.model_type == model_type).map(|class| class.naming)
    }

    /// The naming of the class of a `config.json`.
    pub(crate) fn of_json(json: &Object) -> Result<Self> {
        Ok(class(json)?.naming)
    }
}

const CLASS_HINT: &str =
    "the classes of the Phi family are supported, and Phi models under the classes of Llama and Mistral";

fn class(json: &Object) -> Result<&'static Class> {
    let found = json.string("model_type")?;
    let Some(class) = CLASSES.iter().find(|class| found == Some(class.model_type)) else {
        let types: Vec<String> = CLASSES.iter().map(|class| format!("\"{}\"", class.model_type)).collect();
        return Err(json.bad("model_type", types.join(" or "), CLASS_HINT));
    };
    match json.get("architectures").and_then(|list| list.as_array()) {
        Some(list)
            if !list.is_empty()
                && !list.iter().any(|name| class.architectures.iter().any(|known| name.as_str() == Some(known))) =>
        {
            let expected = format!("\"{}\", the class of model_type \"{}\"", class.architectures[0], class.model_type);
            Err(json.bad("architectures", expected, CLASS_HINT))
        }
        _ => Ok(class),
    }
}

/// Values that every class has.
struct Common {
    hidden_size: usize,
    /// All dimensions are rotated; [`Common::spec`] replaces `rotary_dim`.
    heads: Heads,
    vocab_size: usize,
    max_position_embeddings: usize,
    layers: usize,
    inner: usize,
    tie_word_embeddings: bool,
    bos_token_id: Option<u32>,
    eos_token_id: Vec<u32>,
}

impl Common {
    fn read(json: &Object, positions: usize) -> Result<Self> {
        let hidden_size = json.required("hidden_size", 1..=limits::WIDTH)?;
        Ok(Self {
            hidden_size,
            heads: heads(json, hidden_size)?,
            vocab_size: json.required("vocab_size", 1..=limits::VOCABULARY)?,
            max_position_embeddings: json
                .integer("max_position_embeddings", 1..=limits::POSITIONS)?
                .unwrap_or(positions),
            layers: json.required("num_hidden_layers", 1..=limits::LAYERS)?,
            inner: json.required("intermediate_size", 1..=limits::WIDTH)?,
            tie_word_embeddings: json.boolean("tie_word_embeddings")?.unwrap_or(false),
            bos_token_id: json.integer("bos_token_id", 0..=u32::MAX as usize)?.map(|id| id as u32),
            eos_token_id: token_ids(json, "eos_token_id")?,
        })
    }

    /// A model with equal layers, no bias of the head, and factors of 1 for embedding and logits.
    fn spec(self, norm: NormSpec, (rope, rotary_dim): (Rope, usize), layer: LayerSpec) -> ModelSpec {
        ModelSpec {
            hidden_size: self.hidden_size,
            heads: Heads { rotary_dim, ..self.heads },
            vocab_size: self.vocab_size,
            max_position_embeddings: self.max_position_embeddings,
            embedding_scale: 1.0,
            norm,
            rope,
            attention_scale: 1.0 / (self.heads.head_dim as f32).sqrt(),
            layers: vec![layer; self.layers],
            tie_word_embeddings: self.tie_word_embeddings,
            head_bias: false,
            logit_scale: 1.0,
            suppressed: Vec::new(),
            bos_token_id: self.bos_token_id,
            eos_token_id: self.eos_token_id,
            vision: None,
        }
    }
}

/// A norm's epsilon, `default` where the field is missing.
fn epsilon(json: &Object, field: &str, default: f32) -> Result<f32> {
    let eps = json.positive(field)?.map_or(default, |eps| eps as f32);
    if eps.is_normal() {
        return Ok(eps);
    }
    Err(json.bad(field, "a number that f32 can hold", "published models have 1e-05"))
}

/// Returns an error if the field is present and its text is not `text`.
fn expect(json: &Object, field: &str, text: &str, hint: &'static str) -> Result<()> {
    match json.string(field)? {
        Some(found) if found != text => Err(json.bad(field, format!("\"{text}\""), hint)),
        _ => Ok(()),
    }
}

/// Returns an error for known fields that change the result and are not implemented. Other fields are ignored.
fn refuse_unknown(json: &Object) -> Result<()> {
    // fields of related model families
    for (field, neutral) in [
        ("embedding_multiplier", 1.0),
        ("residual_multiplier", 1.0),
        ("attention_multiplier", 1.0),
        ("logits_scaling", 1.0),
        ("query_pre_attn_scalar", f64::NAN),
        ("attn_logit_softcapping", f64::NAN),
        ("final_logit_softcapping", f64::NAN),
        ("clip_qkv", f64::NAN),
    ] {
        refuse(json, field, neutral)?;
    }
    for (field, neutral) in [("use_sliding_window", true), ("qk_layernorm", false), ("use_qk_norm", false)] {
        if json.boolean(field)?.is_some_and(|value| value != neutral) {
            return Err(json.bad(field, neutral.to_string(), "no published Phi checkpoint has another value"));
        }
    }
    if json.get("quantization_config").is_some() {
        let hint = "load the checkpoint's unquantized weights";
        return Err(json.bad("quantization_config", "nothing: only f32, f16 and bf16 weights are supported", hint));
    }
    Ok(())
}

/// Returns an error if the field is present and its value is not `neutral`. With NaN, every value is an error.
fn refuse(json: &Object, field: &str, neutral: f64) -> Result<()> {
    if json.get(field).is_some_and(|value| value.as_f64() != Some(neutral)) {
        let expected = "nothing: this field is not supported";
        return Err(json.bad(field, expected, "no published Phi checkpoint of this class has it"));
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
