//! One description for every member of the family: sizes, norm, rotation, and what each layer is. `config.json` and the metadata
//! of a GGUF file are two readers of it, and the decoder branches on its values and on nothing else.

use crate::rope::Rope;
use phi3_tensor::Heads;

/// Largest sizes that are taken for real: far above any published model, far below where sizes overflow.
pub(crate) mod limits {
    pub(crate) const WIDTH: usize = 1 << 18;
    pub(crate) const VOCABULARY: usize = 1 << 24;
    pub(crate) const LAYERS: usize = 1 << 12;
    pub(crate) const HEADS: usize = 1 << 14;
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
    /// Norm of every layer and of the output.
    pub norm: NormSpec,
    /// Rotary embedding.
    pub rope: Rope,
    /// The layers, at least one.
    pub layers: Vec<LayerSpec>,
    /// Whether the head is the embedding.
    pub tie_word_embeddings: bool,
    /// First token of a text, where the model has one.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a text.
    pub eos_token_id: Vec<u32>,
}

/// How rows are normalised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NormSpec {
    /// RMSNorm (Zhang and Sennrich 2019, arXiv 1910.07467): `x * w / sqrt(mean(x²) + eps)`.
    Rms {
        /// Added to the mean square.
        eps: f32,
    },
}

/// What a layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerSpec {
    /// Positions that a token sees, itself included, where that is limited.
    pub window: Option<usize>,
    /// The feed-forward.
    pub mlp: Mlp,
}

/// A feed-forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mlp {
    /// `down(silu(gate(x)) * up(x))`, gate and up in one matrix.
    Dense {
        /// Width between the projections.
        inner: usize,
    },
}

impl Mlp {
    /// Width between the projections.
    pub fn inner(self) -> usize {
        let Mlp::Dense { inner } = self;
        inner
    }
}

impl ModelSpec {
    /// Positions that any layer sees, a token's own included; `None` where one of them sees all.
    pub fn window(&self) -> Option<usize> {
        self.layers.iter().try_fold(0, |widest, layer| Some(layer.window?.max(widest)))
    }

    /// Width of the widest feed-forward.
    pub fn widest_mlp(&self) -> usize {
        self.layers.iter().map(|layer| layer.mlp.inner()).max().unwrap_or(0)
    }
}
