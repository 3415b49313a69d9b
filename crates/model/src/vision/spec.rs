//! What a vision tower is, and how its features become tokens.

use super::names::TowerNames;
use phi3_tensor::{Activation, Heads};

/// A tower of transformer layers with full attention, and a projection of two layers to the decoder's width.
#[derive(Clone, Debug, PartialEq)]
pub struct VisionSpec {
    /// Width of a patch's features.
    pub hidden_size: usize,
    /// Attention heads, of which nothing is rotated.
    pub heads: Heads,
    /// Width between the projections of the feed-forward.
    pub inner: usize,
    /// Function between them.
    pub activation: Activation,
    /// Layers that are computed: all but the last, whose output is not used.
    pub layers: usize,
    /// Added to the variance in LayerNorm.
    pub eps: f32,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// The product that embeds a patch.
    pub patch_embedding: PatchEmbedding,
    /// Whether a norm stands between embedding and first layer.
    pub pre_norm: bool,
    /// Whether the weights hold a pooling head, which is not used.
    pub pooling_head: bool,
    /// How a picture becomes sequences, and these tokens.
    pub picture: PictureSpec,
    /// What stands for a picture in a text.
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

/// How a picture becomes sequences, and these tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PictureSpec {
    /// A grid of square crops and a global view. Each is a sequence with a class token in front and a position for each patch. 2
    /// · 2 patches side by side are a token; separators stand behind rows and in front of the global view.
    Crops {
        /// Side of a crop in pixels, an even number of patches.
        size: usize,
    },
    /// The whole picture is a sequence, each patch a token. Positions are a square table, resized to the grid of patches.
    Whole {
        /// Patches to which a smaller picture is enlarged, about.
        min_patches: usize,
        /// Most patches of a picture.
        max_patches: usize,
        /// Positions along a side of the table.
        table: usize,
    },
}

/// What stands for a picture in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageTag {
    /// `<|image_1|>`, `<|image_2|>` …: the picture of that number.
    Numbered,
    /// `<image>`: the next picture.
    InOrder,
}

impl VisionSpec {
    /// Rows of the table of positions: those of a class token and of the patches.
    pub fn positions(&self) -> usize {
        match self.picture {
            PictureSpec::Crops { size } => 1 + (size / self.patch_size).pow(2),
            PictureSpec::Whole { table, .. } => table * table,
        }
    }

    /// Whether a class token stands in front of the patches of a sequence.
    pub(super) fn class_token(&self) -> bool {
        matches!(self.picture, PictureSpec::Crops { .. })
    }

    /// Sequences of a picture of `rows` · `cols` crops or patches.
    pub(super) fn sequences(&self, (rows, cols): (usize, usize)) -> usize {
        match self.picture {
            PictureSpec::Crops { .. } => 1 + rows * cols,
            PictureSpec::Whole { .. } => 1,
        }
    }

    /// Positions of each of its sequences.
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

    /// Values of a patch, all three channels.
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

    /// Width of a token's features in front of the projection.
    pub fn token_width(&self) -> usize {
        match self.picture {
            PictureSpec::Crops { .. } => 4 * self.hidden_size,
            PictureSpec::Whole { .. } => self.hidden_size,
        }
    }

    /// Tokens of a picture of `rows` · `cols` crops or patches, separators and global view included.
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
