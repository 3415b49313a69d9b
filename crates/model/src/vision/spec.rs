//! Description of a vision tower, and the number of tokens of a picture.

use super::names::TowerNames;
use phi3_tensor::{Activation, Heads};

/// A tower of transformer layers with full attention, and a projection of two layers to the decoder's width.
#[derive(Clone, Debug, PartialEq)]
pub struct VisionSpec {
    /// Width of a patch's features.
    pub hidden_size: usize,
    /// Attention heads, without rotary embedding.
    pub heads: Heads,
    /// Width between the projections of the feed-forward.
    pub inner: usize,
    /// Function between the projections of the feed-forward.
    pub activation: Activation,
    /// Layers that are computed: all but the last, whose output is not used.
    pub layers: usize,
    /// Added to the variance in LayerNorm.
    pub eps: f32,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// The product that embeds a patch.
    pub patch_embedding: PatchEmbedding,
    /// Whether there is a norm between embedding and first layer.
    pub pre_norm: bool,
    /// Whether the weights hold a pooling head, which is not used.
    pub pooling_head: bool,
    /// Division of a picture into sequences and tokens.
    pub picture: PictureSpec,
    /// Placeholder of a picture in a text.
    pub tag: ImageTag,
    /// Names of the tensors.
    pub(crate) names: &'static TowerNames,
}

/// The product that embeds a patch, as its weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchEmbedding {
    /// A convolution `[hidden_size, 3, patch_size, patch_size]` without bias.
    Convolution,
    /// A matrix `[hidden_size, patch_size * patch_size * 3]` with bias.
    Linear,
}

/// Division of a picture into sequences and tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PictureSpec {
    /// A grid of square crops and a global view. Each is a sequence of a class token and the patches, with a position for each. A
    /// token is a square of 2 · 2 patches. Separators follow the rows and precede the global view.
    Crops {
        /// Side of a crop in pixels, an even number of patches.
        size: usize,
    },
    /// The whole picture is one sequence, each patch a token. The square table of positions is resized to the grid of patches.
    Whole {
        /// Approximate number of patches to which a smaller picture is enlarged.
        min_patches: usize,
        /// Largest number of patches of a picture.
        max_patches: usize,
        /// Positions along a side of the table.
        table: usize,
    },
}

/// Placeholder of a picture in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageTag {
    /// `<|image_1|>`, `<|image_2|>` …: the picture of that number.
    Numbered,
    /// `<image>`: the next picture.
    InOrder,
}

impl VisionSpec {
    /// Rows of the table of positions, that of a class token included.
    pub fn positions(&self) -> usize {
        match self.picture {
            PictureSpec::Crops { size } => 1 + (size / self.patch_size).pow(2),
            PictureSpec::Whole { table, .. } => table * table,
        }
    }

    /// Whether a sequence begins with a class token.
    pub(super) fn class_token(&self) -> bool {
        matches!(self.picture, PictureSpec::Crops { .. })
    }

    /// Number of sequences of a picture of `rows` · `cols` crops or patches.
    pub(super) fn sequences(&self, (rows, cols): (usize, usize)) -> usize {
        match self.picture {
            PictureSpec::Crops { .. } => 1 + rows * cols,
            PictureSpec::Whole { .. } => 1,
        }
    }

    /// Positions of each sequence of a picture of `rows` · `cols` crops or patches.
    pub(super) fn length(&self, (rows, cols): (usize, usize)) -> usize {
        match self.picture {
            PictureSpec::Crops { .. } => self.positions(),
            PictureSpec::Whole { .. } => rows * cols,
        }
    }

    /// Positions of the longest sequence.
    pub(super) fn longest(&self) -> usize {
        match self.picture {
            PictureSpec::Crops { .. } => self.positions(),
            PictureSpec::Whole { max_patches, .. } => max_patches,
        }
    }

    /// Number of values of a patch, all three channels.
    pub fn patch_values(&self) -> usize {
        3 * self.patch_size * self.patch_size
    }

    /// Tokens along a side of a crop.
    pub(super) fn side(&self) -> usize {
        match self.picture {
            PictureSpec::Crops { size } => size / self.patch_size / 2,
            PictureSpec::Whole { .. } => 1,
        }
    }

    /// Width of a token's features before the projection.
    pub fn token_width(&self) -> usize {
        match self.picture {
            PictureSpec::Crops { .. } => 4 * self.hidden_size,
            PictureSpec::Whole { .. } => self.hidden_size,
        }
    }

    /// Number of tokens of a picture of `rows` · `cols` crops or patches, separators and global view included.
    pub fn tokens(&self, rows: usize, cols: usize) -> usize {
        match self.picture {
            PictureSpec::Crops { .. } => {
                let side = self.side();
                (rows * cols + 1) * side * side + 1 + (rows + 1) * side
            }
            PictureSpec::Whole { .. } => rows * cols,
        }
    }
}
