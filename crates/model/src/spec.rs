//! One description for every member of the family: sizes, norm, rotation, and what each layer is. `config.json` and the metadata
//! of a GGUF file are two readers of it, and the decoder branches on its values and on nothing else.

use crate::rope::Rope;
use crate::{Part, VisionSpec};
use phi3_tensor::{Activation, Heads, Mask, Router};

/// Largest sizes that are taken for real: far above any published model, far below where sizes overflow.
pub(crate) mod limits {
    pub(crate) const WIDTH: usize = 1 << 18;
    pub(crate) const VOCABULARY: usize = 1 << 24;
    pub(crate) const LAYERS: usize = 1 << 12;
    pub(crate) const HEADS: usize = 1 << 14;
    pub(crate) const EXPERTS: usize = 1 << 10;
    pub(crate) const POSITIONS: usize = 1 << 30;
}

/// What a decoder computes.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSpec {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Heads of every layer: all layers share one cache.
    pub heads: Heads,
    /// Tokens, and rows of the embedding.
    pub vocab_size: usize,
    /// Positions that the model was made for.
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
    /// Whether the head is the embedding.
    pub tie_word_embeddings: bool,
    /// Whether the head has a bias.
    pub head_bias: bool,
    /// Factor of the logits.
    pub logit_scale: f32,
    /// Tokens that no text has: their logits are the lowest number.
    pub suppressed: Vec<u32>,
    /// First token of a text, where the model has one.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a text.
    pub eos_token_id: Vec<u32>,
    /// The tower for pictures, where the model has one.
    pub vision: Option<VisionSpec>,
}

/// How rows are normalised.
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

/// What a layer is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerSpec {
    /// How attention and feed-forward follow each other.
    pub block: Block,
    /// Which positions attention sees.
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
    /// `down(activation(up(x)))`; of a gated activation, gate and up are one matrix.
    Dense {
        /// Width between the projections.
        inner: usize,
        /// Function between the projections.
        activation: Activation,
        /// Whether the projections have biases.
        bias: bool,
    },
    /// The same by experts, of which each row goes to the two that `router` chooses by `router(x)`.
    Experts {
        /// Width between the projections of one.
        inner: usize,
        /// How many there are.
        count: usize,
        /// How they are chosen.
        router: Router,
        /// Function between the projections.
        activation: Activation,
    },
}

impl LayerSpec {
    /// Whether it has a part.
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

    /// Experts; none of a dense one.
    pub fn experts(self) -> usize {
        match self {
            Mlp::Dense { .. } => 0,
            Mlp::Experts { count, .. } => count,
        }
    }
}

impl ModelSpec {
    /// Positions that any layer sees, a token's own included; `None` where one of them sees all.
    pub fn window(&self) -> Option<usize> {
        self.layers.iter().try_fold(0, |widest, layer| Some(layer.mask.window()?.max(widest)))
    }

    /// The largest number of experts of a layer; 0 where none has any.
    pub fn most_experts(&self) -> usize {
        self.layers.iter().map(|layer| layer.mlp.experts()).max().unwrap_or(0)
    }

    /// Width of the widest feed-forward, of one expert.
    pub fn widest_mlp(&self) -> usize {
        self.layers.iter().map(|layer| layer.mlp.inner()).max().unwrap_or(0)
    }
}
