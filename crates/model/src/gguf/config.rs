//! [`ModelSpec`] from a GGUF file's metadata. Keys are those of llama.cpp's converter.

use super::{Metadata, Vocabulary};
use crate::rope::{LongRope, Rope};
use crate::spec::{Block, LayerSpec, Mlp, ModelSpec, NormSpec, limits};
use crate::tensors::Tensors;
use crate::{Error, Result};
use phi3_tensor::{Activation, Heads, Mask, Router, TOP_EXPERTS};

/// Tensors of LongRoPE's factors, `[rotary_dim / 2]`.
pub(crate) const LONG: &str = "rope_factors_long.weight";
pub(crate) const SHORT: &str = "rope_factors_short.weight";

/// A supported architecture.
struct Architecture {
    name: &'static str,
    read: fn(&Reader<'_>, &mut Vec<String>) -> Result<ModelSpec>,
    /// Whether the two dimensions of a rotated pair are adjacent rows in separate queries and keys.
    rotated_pairs: bool,
}

const PHIMOE: &str = "phimoe";

const ARCHITECTURES: [Architecture; 4] = [
    Architecture { name: "phi3", read: phi3, rotated_pairs: false },
    Architecture { name: "phi2", read: phi2, rotated_pairs: false },
    Architecture { name: PHIMOE, read: phimoe, rotated_pairs: false },
    Architecture { name: "llama", read: llama, rotated_pairs: true },
];

/// Sources of a description.
struct Reader<'a> {
    architecture: &'static str,
    metadata: &'a Metadata,
    vocabulary: &'a Vocabulary,
    tensors: &'a Tensors,
}

/// The decoder's description.
pub(crate) fn config(
    metadata: &Metadata,
    vocabulary: &Vocabulary,
    tensors: &mut Tensors,
    notes: &mut Vec<String>,
) -> Result<ModelSpec> {
    let architecture = architecture(metadata)?;
    tensors.rotated_pairs = architecture.rotated_pairs;
    let reader = Reader { architecture: architecture.name, metadata, vocabulary, tensors };
    (architecture.read)(&reader, notes)
}

fn phi3(reader: &Reader<'_>, notes: &mut Vec<String>) -> Result<ModelSpec> {
    let common = reader.common("attention.layer_norm_rms_epsilon")?;
    let window = window(reader.metadata, common.layers, common.positions, notes)?;
    Ok(common.gated(reader, Mask::windowed(window)))
}

/// A Phi model under the architecture `llama`.
fn llama(reader: &Reader<'_>, _: &mut Vec<String>) -> Result<ModelSpec> {
    const FREQUENCIES: &str = "rope_freqs.weight";
    if reader.tensors.has(FREQUENCIES) {
        let message = "is present, but no Phi model has the rotary embedding of Llama 3".into();
        return Err(reader.tensors.wrong(FREQUENCIES, message));
    }
    if reader.metadata.integer("llama.expert_count", 0..=usize::MAX)?.is_some_and(|count| count > 0) {
        let hint = "no Phi model of the architecture llama has experts";
        return Err(reader.metadata.bad("llama.expert_count", "0", hint));
    }
    let common = reader.common("attention.layer_norm_rms_epsilon")?;
    Ok(common.gated(reader, Mask::Causal))
}

/// Phi-1, Phi-1.5, Phi-2.
fn phi2(reader: &Reader<'_>, _: &mut Vec<String>) -> Result<ModelSpec> {
    let common = reader.common("attention.layer_norm_epsilon")?;
    let layer = LayerSpec {
        block: Block::Parallel,
        mask: Mask::Causal,
        attention_bias: true,
        mlp: Mlp::Dense { inner: common.inner, activation: Activation::GeluTanh, bias: true },
    };
    let norm = NormSpec::Layer { eps: common.eps };
    Ok(ModelSpec { norm, head_bias: true, ..common.spec(reader, layer) })
}

/// Phi-3.5-MoE, Phi-mini-MoE, Phi-tiny-MoE, as the published models compute; llama.cpp's norms and routes differ.
fn phimoe(reader: &Reader<'_>, _: &mut Vec<String>) -> Result<ModelSpec> {
    let common = reader.common("attention.layer_norm_rms_epsilon")?;
    let (metadata, has) = (reader.metadata, |name: &str| reader.tensors.has(name));
    let used = reader.key("expert_used_count");
    if metadata.integer(&used, 0..=usize::MAX)?.is_some_and(|used| used != TOP_EXPERTS) {
        return Err(metadata.bad(&used, "2", "sparsemixer routes each row to two experts"));
    }
    let window = metadata.integer(&reader.key("attention.sliding_window"), 0..=u32::MAX as usize)?;
    let layer = LayerSpec {
        block: Block::Sequential,
        mask: Mask::windowed(window.filter(|&window| window > 0)),
        attention_bias: has("blk.0.attn_q.bias") || has("blk.0.attn_qkv.bias"),
        mlp: Mlp::Experts {
            inner: common.inner,
            count: metadata.required(&reader.key("expert_count"), 1..=limits::EXPERTS)?,
            // GGUF has no key for the jitter; the value is that of published models
            router: Router::SparseMixer { jitter: 0.01 },
            activation: Activation::SwiGlu,
        },
    };
    let eps = common.eps;
    let norm = if has("output_norm.bias") { NormSpec::Layer { eps } } else { NormSpec::Rms { eps } };
    let head_bias = has("output.bias");
    Ok(ModelSpec { norm, head_bias, ..common.spec(reader, layer) })
}

/// Sizes common to all architectures.
struct Common {
    hidden_size: usize,
    heads: Heads,
    positions: usize,
    layers: usize,
    inner: usize,
    eps: f32,
    rope: Rope,
}

impl Common {
    /// Layers with a gated feed-forward and no biases.
    fn gated(self, reader: &Reader<'_>, mask: Mask) -> ModelSpec {
        let mlp = Mlp::Dense { inner: self.inner, activation: Activation::SwiGlu, bias: false };
        let layer = LayerSpec { block: Block::Sequential, mask, attention_bias: false, mlp };
        self.spec(reader, layer)
    }

    fn spec(self, reader: &Reader<'_>, layer: LayerSpec) -> ModelSpec {
        ModelSpec {
            vision: None,
            hidden_size: self.hidden_size,
            layers: vec![layer; self.layers],
            heads: self.heads,
            vocab_size: reader.vocabulary.tokens.len(),
            max_position_embeddings: self.positions,
            embedding_scale: 1.0,
            norm: NormSpec::Rms { eps: self.eps },
            attention_scale: 1.0 / (self.heads.head_dim as f32).sqrt(),
            head_bias: false,
            logit_scale: 1.0,
            suppressed: Vec::new(),
            rope: self.rope,
            tie_word_embeddings: !reader.tensors.has("output.weight"),
            bos_token_id: reader.vocabulary.bos,
            eos_token_id: reader.vocabulary.stops.clone(),
        }
    }
}

impl Reader<'_> {
    /// A key of the architecture.
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    fn common(&self, epsilon: &str) -> Result<Common> {
        let metadata = self.metadata;
        let hidden_size = metadata.required(&self.key("embedding_length"), 1..=limits::WIDTH)?;
        let heads = self.heads(hidden_size)?;
        let positions = metadata.required(&self.key("context_length"), 1..=limits::POSITIONS)?;
        let epsilon = self.key(epsilon);
        let eps = metadata.positive(&epsilon)?;
        let hint = "published models have 1e-05";
        Ok(Common {
            hidden_size,
            heads,
            positions,
            layers: metadata.required(&self.key("block_count"), 1..=limits::LAYERS)?,
            inner: metadata.required_of_layers(&self.key("feed_forward_length"), 1..=limits::WIDTH)?,
            eps: eps.ok_or_else(|| metadata.bad(&epsilon, "a number greater than 0", hint))?,
            rope: self.rope(heads, positions)?,
        })
    }
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
            notes.push(format!("{path}: {key} is missing: a window of 2047 is used, as in Phi-3-mini-4k"));
            Ok(Some(2047))
        }
        None => Ok(None),
    }
}

/// Checks that the file holds a model of a supported architecture.
pub(super) fn check_architecture(metadata: &Metadata) -> Result<()> {
    architecture(metadata).map(drop)
}

fn architecture(metadata: &Metadata) -> Result<&'static Architecture> {
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
    let found = metadata.string(key)?;
    let known = || ARCHITECTURES.map(|known| format!("\"{}\"", known.name)).join(" or ");
    let architecture = ARCHITECTURES.iter().find(|known| found.as_deref() == Some(known.name));
    architecture.ok_or_else(|| metadata.bad(key, known() + " (type string)", "other architectures are not supported"))
}

impl Reader<'_> {
    fn heads(&self, hidden_size: usize) -> Result<Heads> {
        let metadata = self.metadata;
        let (count, kv_count) = (&self.key("attention.head_count"), &self.key("attention.head_count_kv"));
        let heads = metadata.required_of_layers(count, 1..=limits::HEADS)?;
        let kv_heads = metadata.of_layers(kv_count, 1..=limits::HEADS)?.unwrap_or(heads);
        if kv_heads > heads || !heads.is_multiple_of(kv_heads) {
            let expected = format!("a divisor of head_count ({heads})");
            return Err(metadata.bad(kv_count, expected, "query heads share key heads in equal groups"));
        }
        let head_dim = self.head_dim(heads, hidden_size)?;
        let key = &self.key("rope.dimension_count");
        let mut rotary_dim = metadata.integer(key, 0..=usize::MAX)?.unwrap_or(head_dim);
        if self.architecture == PHIMOE {
            // llama.cpp's converter writes width / heads, even where the head size differs
            rotary_dim = rotary_dim.min(head_dim);
        }
        if !(2..=head_dim).contains(&rotary_dim) || !rotary_dim.is_multiple_of(2) {
            let expected = format!("an even number from 2 to the head size, {head_dim}");
            return Err(metadata.bad(key, expected, "dimensions of a head are rotated in pairs"));
        }
        Ok(Heads { heads, kv_heads, head_dim, rotary_dim })
    }

    /// The head size: `attention.key_length`, else for phimoe the query rows / heads, else width / heads.
    fn head_dim(&self, heads: usize, hidden_size: usize) -> Result<usize> {
        let metadata = self.metadata;
        let (key, value) = (self.key("attention.key_length"), self.key("attention.value_length"));
        let length = metadata.integer(&key, 1..=limits::WIDTH)?;
        if let (Some(length), Some(other)) = (length, metadata.integer(&value, 1..=limits::WIDTH)?)
            && length != other
        {
            return Err(metadata.bad(&value, format!("{length}, as key_length"), "keys and values have one size"));
        }
        if let Some(length) = length {
            return Ok(length);
        }
        if self.architecture == PHIMOE
            && let Some([rows, _]) = self.tensors.shape("blk.0.attn_q.weight")
            && rows.is_multiple_of(heads)
        {
            return Ok(rows / heads);
        }
        if !hidden_size.is_multiple_of(heads) {
            let expected = format!("a divisor of embedding_length ({hidden_size})");
            let count = self.key("attention.head_count");
            return Err(metadata.bad(&count, expected, "heads share the width in equal parts"));
        }
        Ok(hidden_size / heads)
    }

    fn rope(&self, heads: Heads, max_positions: usize) -> Result<Rope> {
        let (metadata, tensors) = (self.metadata, self.tensors);
        let kind = &self.key("rope.scaling.type");
        if !matches!(metadata.string(kind)?.as_deref(), None | Some("none" | "longrope" | "su")) {
            return Err(metadata.bad(kind, "\"none\" or \"longrope\"", "other kinds are not implemented"));
        }
        let theta = metadata.positive(&self.key("rope.freq_base"))?.unwrap_or(10000.0);
        // GGUF has no key for LongRoPE: the model has it if the file has the factors
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
        let mscale = metadata.positive(&self.key("rope.scaling.attn_factor"))?.unwrap_or(1.0);
        let original = &self.key("rope.scaling.original_context_length");
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
}
