//! The description of a decoder from a GGUF file's metadata. Keys are those of llama.cpp's converter.

use super::{Metadata, Vocabulary};
use crate::rope::{LongRope, Rope};
use crate::spec::{Block, LayerSpec, Mlp, ModelSpec, NormSpec, limits};
use crate::tensors::Tensors;
use crate::{Error, Result};
use phi3_tensor::{Activation, Heads, Mask};

/// Tensors of LongRoPE's factors, `[rotary_dim / 2]`.
pub(crate) const LONG: &str = "rope_factors_long.weight";
pub(crate) const SHORT: &str = "rope_factors_short.weight";

/// The decoder's description.
pub(crate) fn config(
    metadata: &Metadata,
    vocabulary: &Vocabulary,
    tensors: &Tensors,
    notes: &mut Vec<String>,
) -> Result<ModelSpec> {
    let key = |name: &str| format!("phi3.{name}");
    let hidden_size = metadata.required(&key("embedding_length"), 1..=limits::WIDTH)?;
    let heads = heads(metadata, hidden_size)?;
    let max_position_embeddings = metadata.required(&key("context_length"), 1..=limits::POSITIONS)?;
    let epsilon = key("attention.layer_norm_rms_epsilon");
    let eps = metadata.positive(&epsilon)?;
    let eps = eps.ok_or_else(|| metadata.bad(&epsilon, "a number greater than 0", "published models have 1e-05"))?;
    let layers = metadata.required(&key("block_count"), 1..=limits::LAYERS)?;
    let inner = metadata.required(&key("feed_forward_length"), 1..=limits::WIDTH)?;
    let window = window(metadata, layers, max_position_embeddings, notes)?;
    let layer = LayerSpec {
        block: Block::Sequential,
        mask: Mask::windowed(window),
        attention_bias: false,
        mlp: Mlp::Dense { inner, activation: Activation::SwiGlu, bias: false },
    };
    Ok(ModelSpec {
        hidden_size,
        layers: vec![layer; layers],
        heads,
        vocab_size: vocabulary.tokens.len(),
        max_position_embeddings,
        embedding_scale: 1.0,
        norm: NormSpec::Rms { eps },
        attention_scale: 1.0 / (heads.head_dim as f32).sqrt(),
        head_bias: false,
        logit_scale: 1.0,
        rope: rope(metadata, heads, max_position_embeddings, tensors)?,
        tie_word_embeddings: !tensors.has("output.weight"),
        bos_token_id: vocabulary.bos,
        eos_token_id: vocabulary.stops.clone(),
    })
}

/// The sliding window; 0 in the file means none.
///
/// Early converters wrote no such key. Then 32 or 40 layers with a context of 4096 are Phi-3-mini and Phi-3-medium 4k, whose
/// window is 2047 (the rule that llama.cpp had while it followed windows).
fn window(metadata: &Metadata, layers: usize, context: usize, notes: &mut Vec<String>) -> Result<Option<usize>> {
    let key = "phi3.attention.sliding_window";
    match metadata.integer(key, 0..=u32::MAX as usize)? {
        Some(window) => Ok(Some(window).filter(|&window| window > 0)),
        None if matches!(layers, 32 | 40) && context == 4096 => {
            let path = metadata.path().display();
            notes.push(format!("{path}: {key} is missing: a window of 2047 is taken, as Phi-3-mini-4k has it"));
            Ok(Some(2047))
        }
        None => Ok(None),
    }
}

/// An error unless the file holds a model of the Phi-3 architecture.
pub(super) fn architecture(metadata: &Metadata) -> Result<()> {
    let key = "general.type";
    let found = match metadata.string(key).unwrap_or_default().as_deref() {
        Some("adapter") => Some(("a LoRA adapter", "merge the adapter into its base model and convert that")),
        Some("imatrix") => Some(("an importance matrix for a quantizer", "give the model's own file")),
        Some("mmproj") => Some(("the image projector of a vision model", "give the model's own file")),
        Some("vocab") => Some(("a vocabulary without weights", "give the model's own file")),
        _ => None,
    };
    if let Some((found, hint)) = found {
        let (path, expected) = (metadata.path().to_owned(), "a model");
        return Err(Error::Foreign { path, expected, found: format!("{found} (general.type)"), hint });
    }
    let key = "general.architecture";
    match metadata.string(key)?.as_deref() {
        Some("phi3") => Ok(()),
        Some("phi2" | "phimoe") => {
            let hint =
                "the architecture is known, but its decoder is not supported yet; take the safetensors checkpoint";
            Err(metadata.bad(key, "\"phi3\"", hint))
        }
        _ => Err(metadata.bad(key, "\"phi3\" (type string)", "other architectures are not supported")),
    }
}

fn heads(metadata: &Metadata, hidden_size: usize) -> Result<Heads> {
    let (count, kv_count) = ("phi3.attention.head_count", "phi3.attention.head_count_kv");
    let heads = metadata.required(count, 1..=limits::HEADS)?;
    let kv_heads = metadata.integer(kv_count, 1..=limits::HEADS)?.unwrap_or(heads);
    if kv_heads > heads || !heads.is_multiple_of(kv_heads) {
        let expected = format!("a divisor of head_count ({heads})");
        return Err(metadata.bad(kv_count, expected, "query heads share key heads in equal groups"));
    }
    if !hidden_size.is_multiple_of(heads) {
        let expected = format!("a divisor of embedding_length ({hidden_size})");
        return Err(metadata.bad(count, expected, "heads share the width in equal parts"));
    }
    let head_dim = hidden_size / heads;
    for key in ["phi3.attention.key_length", "phi3.attention.value_length"] {
        if metadata.integer(key, 0..=usize::MAX)?.is_some_and(|length| length != head_dim) {
            return Err(metadata.bad(
                key,
                format!("{head_dim}: embedding_length / head_count"),
                "no Phi-3 has other heads",
            ));
        }
    }
    let key = "phi3.rope.dimension_count";
    let rotary_dim = metadata.integer(key, 0..=usize::MAX)?.unwrap_or(head_dim);
    if !(2..=head_dim).contains(&rotary_dim) || !rotary_dim.is_multiple_of(2) {
        let expected = format!("an even number from 2 to the head size, {head_dim}");
        return Err(metadata.bad(key, expected, "dimensions of a head are rotated in pairs"));
    }
    Ok(Heads { heads, kv_heads, head_dim, rotary_dim })
}

fn rope(metadata: &Metadata, heads: Heads, max_positions: usize, tensors: &Tensors) -> Result<Rope> {
    let kind = "phi3.rope.scaling.type";
    if !matches!(metadata.string(kind)?.as_deref(), None | Some("none" | "longrope" | "su")) {
        return Err(metadata.bad(kind, "\"none\" or \"longrope\"", "other kinds are not implemented"));
    }
    let theta = metadata.positive("phi3.rope.freq_base")?.unwrap_or(10000.0);
    // nothing in the metadata says so: LongRoPE is there when its factors are
    if !tensors.has(LONG) && !tensors.has(SHORT) {
        return Ok(Rope::new(heads.rotary_dim, theta, None));
    }
    let factors = |name: &str| {
        let values = tensors.vector(name, heads.rotary_dim / 2)?;
        match values.iter().find(|v| !v.is_finite() || **v <= 0.0) {
            Some(v) => Err(tensors.wrong(name, format!("expected numbers greater than 0, found {v}"))),
            None => Ok(values),
        }
    };
    let mscale = metadata.positive("phi3.rope.scaling.attn_factor")?.unwrap_or(1.0);
    let original = "phi3.rope.scaling.original_context_length";
    Ok(Rope::new(
        heads.rotary_dim,
        theta,
        Some(LongRope {
            short_factor: factors(SHORT)?,
            long_factor: factors(LONG)?,
            original_max_position_embeddings: metadata
                .integer(original, 1..=limits::POSITIONS)?
                .unwrap_or(max_positions),
            short_mscale: mscale,
            long_mscale: mscale,
        }),
    ))
}
