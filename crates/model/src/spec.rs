//! Model description, the same for every member of the family: sizes, norm, rotary embedding and layers. It is read from
//! `config.json` or from the metadata of a GGUF file. The decoder branches on its values only.

use crate::rope::Rope;
use crate::{Part, VisionSpec};
use phi3_tensor::{Activation, Heads, Mask, Router};

/// Largest accepted sizes: far above any published model, far below an overflow.
pub(crate) mod limits {
    pub(crate) const WIDTH: usize = 1 << 18;
    pub(crate) const VOCABULARY: usize = 1 << 24;
    pub(crate) const LAYERS: usize = 1 << 12;
    pub(crate) const HEADS: usize = 1 << 14;
    pub(crate) const EXPERTS: usize = 1 << 10;
    pub(crate) const POSITIONS: usize = 1 << 30;
}

/// Description of a decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSpec {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Heads of every layer: all layers share one cache.
    pub heads: Heads,
    /// Number of tokens, and of rows of the embedding.
    pub vocab_size: usize,
    /// Context length, in positions.
    pub max_position_embeddings: usize,
    /// Factor of the embedding's rows.
    pub embedding_scale: f32,
    /// Norm of every layer and of the output.
    pub norm: NormSpec,
    /// Rotary embedding.
    pub rope: Rope,
    /// Factor of attention's scores before softmax.
    pub attention_scale: f32,
    /// The layers, at least one.
    pub layers: Vec<LayerSpec>,
    /// Whether the head uses the embedding's weights.
    pub tie_word_embeddings: bool,
    /// Whether the head has a bias.
    pub head_bias: bool,
    /// Factor of the logits.
    pub logit_scale: f32,
    /// Placeholder tokens, which no text has: their logits become `f32::MIN`.
    pub suppressed: Vec<u32>,
    /// First token of a text, if the model has one.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a text.
    pub eos_token_id: Vec<u32>,
    /// The vision tower, if the model has one.
    pub vision: Option<VisionSpec>,
}

/// How rows are normalized.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NormSpec {
    /// RMSNorm (Zhang and Sennrich 2019, arXiv 1910.07467): `x * w / sqrt(mean(x²) + eps)`.
    Rms {
        /// Added to the mean square.
        eps: f32,
    },
    /// LayerNorm (Ba et al. 2016, arXiv 1607.06450): `(x - mean(x)) * w / sqrt(var(x) + eps) + b`.
    Layer {
        /// Added to the variance.
        eps: f32,
    },
}

impl NormSpec {
    /// Whether a norm has a bias.
    pub fn has_bias(self) -> bool {
        matches!(self, NormSpec::Layer { .. })
    }
}

/// Description of a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerSpec {
    /// How attention and feed-forward follow each other.
    pub block: Block,
    /// Mask of attention.
    pub mask: Mask,
    /// Whether attention's projections have biases.
    pub attention_bias: bool,
    /// The feed-forward.
    pub mlp: Mlp,
}

/// How attention and feed-forward follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// `x += attention(norm(x))`, then `x += mlp(norm(x))`.
    Sequential,
    /// `x += attention(n) + mlp(n)` with one `n = norm(x)`.
    Parallel,
}

/// A feed-forward.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mlp {
    /// `down(activation(up(x)))`; for a gated activation, gate and up are one matrix.
    Dense {
        /// Width between the projections.
        inner: usize,
        /// Function between the projections.
        activation: Activation,
        /// Whether the projections have biases.
        bias: bool,
    },
    /// Experts of the same form. Each row is routed to two experts, chosen from the scores `router(x)`.
    Experts {
        /// Width between the projections of one expert.
        inner: usize,
        /// Number of experts.
        count: usize,
        /// How a row's experts are chosen.
        router: Router,
        /// Function between the projections.
        activation: Activation,
    },
}

impl LayerSpec {
    /// Whether the layer has `part`.
    pub fn has(&self, part: Part) -> bool {
        match part {
            Part::MlpNorm => self.block == Block::Sequential,
            Part::InputNorm | Part::Qkv | Part::AttentionOut => true,
            Part::Up | Part::Down => self.mlp.experts() == 0,
            Part::Router | Part::ExpertsUp | Part::ExpertsDown => self.mlp.experts() > 0,
        }
    }
}

impl Mlp {
    /// Width between the projections.
    pub fn inner(self) -> usize {
        let (Mlp::Dense { inner, .. } | Mlp::Experts { inner, .. }) = self;
        inner
    }

    /// Number of experts; 0 for a dense feed-forward.
    pub fn experts(self) -> usize {
        match self {
            Mlp::Dense { .. } => 0,
            Mlp::Experts { count, .. } => count,
        }
    }
}

impl ModelSpec {
    /// Widest attention window of all layers, in positions, a token's own included; `None` if a layer has no window.
    pub fn window(&self) -> Option<usize> {
        self.layers.iter().try_fold(0, |widest, layer| Some(layer.mask.window()?.max(widest)))
    }

    /// The largest number of experts of a layer; 0 without experts.
    pub fn most_experts(&self) -> usize {
        self.layers.iter().map(|layer| layer.mlp.experts()).max().unwrap_or(0)
    }

    /// Width of the widest feed-forward, or of its widest expert.
    pub fn widest_mlp(&self) -> usize {
        self.layers.iter().map(|layer| layer.mlp.inner()).max().unwrap_or(0)
    }
}
