//! The tensors of a model: one row each, from which loading, the plan, GGUF's names, the mixes of quantized models and the tests
//! take names, shapes and purposes.

use crate::ModelSpec;
use phi3_tensor::Role;

/// A tensor's place in the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// The embedding.
    Embedding,
    /// A part of a layer.
    Layer(usize, Part),
    /// The norm of the output.
    Norm,
    /// The output projection, where it is not the embedding.
    Head,
}

/// A part of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The norm in front of attention.
    InputNorm,
    /// Queries, keys and values.
    Qkv,
    /// The projection of what the heads give.
    AttentionOut,
    /// The norm in front of the feed-forward.
    MlpNorm,
    /// Gate and up projection.
    GateUp,
    /// Down projection.
    Down,
}

/// Parts of a layer in the order of llama.cpp's files, with the published name and GGUF's.
const PARTS: [(Part, &str, &str); 6] = [
    (Part::InputNorm, "input_layernorm", "attn_norm"),
    (Part::Qkv, "self_attn.qkv_proj", "attn_qkv"),
    (Part::AttentionOut, "self_attn.o_proj", "attn_output"),
    (Part::MlpNorm, "post_attention_layernorm", "ffn_norm"),
    (Part::GateUp, "mlp.gate_up_proj", "ffn_up"),
    (Part::Down, "mlp.down_proj", "ffn_down"),
];

/// The other tensors.
const TOP: [(Slot, &str, &str); 3] = [
    (Slot::Embedding, "model.embed_tokens", "token_embd"),
    (Slot::Norm, "model.norm", "output_norm"),
    (Slot::Head, "lm_head", "output"),
];

/// A tensor of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    /// Its place in the decoder.
    pub slot: Slot,
    /// Its published name.
    pub name: String,
    /// Its shape, outermost dimension first; one dimension for a vector.
    pub shape: Vec<usize>,
    /// What it is for, of a matrix.
    pub role: Role,
}

impl Slot {
    /// The published name of the tensor.
    pub fn name(self) -> String {
        let top = |slot| TOP.iter().find(|(known, ..)| *known == slot).map_or("", |(_, name, _)| name);
        match self {
            Self::Layer(layer, part) => format!("model.layers.{layer}.{}.weight", part.name()),
            slot => format!("{}.weight", top(slot)),
        }
    }

    /// The tensor, as `spec` has it.
    pub fn tensor(self, spec: &ModelSpec) -> TensorSpec {
        let (hidden, heads) = (spec.hidden_size, spec.heads);
        let inner = |layer: usize| spec.layers.get(layer).map_or(0, |layer| layer.mlp.inner());
        let shape = match self {
            Self::Embedding | Self::Head => vec![spec.vocab_size, hidden],
            Self::Norm | Self::Layer(_, Part::InputNorm | Part::MlpNorm) => vec![hidden],
            Self::Layer(_, Part::Qkv) => vec![heads.qkv_dim(), hidden],
            Self::Layer(_, Part::AttentionOut) => vec![hidden, heads.q_dim()],
            Self::Layer(layer, Part::GateUp) => vec![2 * inner(layer), hidden],
            Self::Layer(layer, Part::Down) => vec![hidden, inner(layer)],
        };
        let role = match self {
            Self::Embedding if !spec.tie_word_embeddings => Role::Embedding,
            Self::Layer(_, Part::Qkv) => Role::Qkv(heads),
            Self::Layer(_, Part::GateUp) => Role::GateUp,
            _ => Role::Plain,
        };
        TensorSpec { slot: self, name: self.name(), shape, role }
    }
}

impl Part {
    /// The published name, without layer and `.weight`.
    pub fn name(self) -> &'static str {
        PARTS.iter().find(|(part, ..)| *part == self).map_or("", |(_, name, _)| name)
    }

    /// The part of a published name or GGUF's, without layer and `.weight`.
    pub fn from_name(name: &str) -> Option<Self> {
        PARTS.iter().find(|(_, published, gguf)| *published == name || *gguf == name).map(|(part, ..)| *part)
    }
}

/// Every tensor, in the order of llama.cpp's files.
pub fn tensors(spec: &ModelSpec) -> Vec<TensorSpec> {
    let layers = (0..spec.layers.len()).flat_map(|layer| PARTS.map(|(part, ..)| Slot::Layer(layer, part)));
    let head = (!spec.tie_word_embeddings).then_some(Slot::Head);
    let slots = [Slot::Embedding].into_iter().chain(layers).chain([Slot::Norm]).chain(head);
    slots.map(|slot| slot.tensor(spec)).collect()
}

/// The name in a GGUF file; a name that stands in no table stays as it is.
pub(crate) fn gguf_name(published: &str) -> String {
    let translated = || {
        let (stem, kind) = published.rsplit_once('.')?;
        if let Some((.., name)) = TOP.iter().find(|(_, published, _)| *published == stem) {
            return Some(format!("{name}.{kind}"));
        }
        let (layer, part) = stem.strip_prefix("model.layers.")?.split_once('.')?;
        let (.., name) = PARTS.iter().find(|(_, published, _)| *published == part)?;
        Some(format!("blk.{layer}.{name}.{kind}"))
    };
    translated().unwrap_or_else(|| published.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_translated() {
        for (published, name) in [
            ("model.embed_tokens.weight", "token_embd.weight"),
            ("model.layers.31.mlp.gate_up_proj.weight", "blk.31.ffn_up.weight"),
            ("model.layers.0.post_attention_layernorm.weight", "blk.0.ffn_norm.weight"),
            ("lm_head.weight", "output.weight"),
            ("rope_factors_long.weight", "rope_factors_long.weight"),
        ] {
            assert_eq!(gguf_name(published), name);
        }
        assert_eq!(Part::from_name("ffn_down"), Some(Part::Down));
        assert_eq!(Part::from_name("mlp.down_proj"), Some(Part::Down));
    }

    #[test]
    fn the_table_has_the_published_shapes() {
        let spec = crate::variant("phi-4-mini").unwrap();
        let tensors = tensors(&spec);
        assert_eq!(tensors.len(), 2 + 6 * 32);
        let shape = |name: &str| tensors.iter().find(|tensor| tensor.name == name).map(|tensor| tensor.shape.clone());
        assert_eq!(shape("model.embed_tokens.weight"), Some(vec![200_064, 3072]));
        assert_eq!(shape("model.layers.31.self_attn.qkv_proj.weight"), Some(vec![5120, 3072]));
        assert_eq!(shape("model.layers.0.mlp.gate_up_proj.weight"), Some(vec![16_384, 3072]));
        assert_eq!(shape("model.layers.7.mlp.down_proj.weight"), Some(vec![3072, 8192]));
        assert_eq!(shape("lm_head.weight"), None);
    }
}
