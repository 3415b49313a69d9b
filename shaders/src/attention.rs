//! The ways to compute attention.

use crate::{CoopMatrix, Kernel, Kv, MAX_HEAD_DIM, Part, Tier};

/// Which positions rows see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mask {
    /// All up to their own, or the last of them.
    Window,
    /// Some blocks of them.
    Blocks,
    /// All of their segment.
    Full,
}

impl Mask {
    /// Every mask, for tests that walk them.
    pub const ALL: [Mask; 3] = [Mask::Window, Mask::Blocks, Mask::Full];

    /// Name and text; that of [`Mask::Window`] has no name.
    fn part(self) -> Part {
        match self {
            Mask::Window => ("", include_str!("../mask/window.wgsl")),
            Mask::Blocks => ("blocks", include_str!("../mask/blocks.wgsl")),
            Mask::Full => ("full", include_str!("../mask/full.wgsl")),
        }
    }
}

/// How many rows of attention are computed at once, and by what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Attention {
    /// One row.
    Row,
    /// A tile of rows of a sequence, in single precision (FlashAttention, Dao et al. 2022, arXiv 2205.14135).
    Flash,
    /// A tile of rows of a sequence, by matrix units.
    Coop {
        /// The matrices.
        matrix: CoopMatrix,
        /// The widest head: one of [`DIMS`](Self::DIMS).
        dim: u32,
    },
}

impl Attention {
    /// The widest heads that there are kernels for with matrix units.
    pub const DIMS: [u32; 3] = [64, 96, 128];

    /// Every kind of a tier above the one before, for tests that walk them.
    pub fn all(tier: Tier) -> Vec<Attention> {
        match tier {
            Tier::Base => vec![Attention::Row, Attention::Flash],
            Tier::F16 => Vec::new(),
            Tier::Subgroup => vec![Attention::Row],
            Tier::Coop => {
                let of = |matrix| Attention::DIMS.map(|dim| Attention::Coop { matrix, dim });
                CoopMatrix::ALL.into_iter().flat_map(of).collect()
            }
        }
    }

    /// The kernel with cooperative matrices for heads of `head_dim`, if any is wide enough.
    pub fn coop(matrix: CoopMatrix, head_dim: usize) -> Option<Attention> {
        Self::DIMS.into_iter().find(|dim| head_dim <= *dim as usize).map(|dim| Attention::Coop { matrix, dim })
    }

    /// Rows of one workgroup.
    pub const fn rows(self) -> u32 {
        match self {
            Attention::Row => 1,
            Attention::Flash => 16,
            Attention::Coop { .. } => 32,
        }
    }

    /// The widest head.
    pub const fn head_dim(self) -> usize {
        match self {
            Attention::Row => MAX_HEAD_DIM,
            Attention::Flash => 128,
            Attention::Coop { dim, .. } => dim as usize,
        }
    }

    /// Whether there is a kernel with this mask.
    pub fn takes(self, mask: Mask) -> bool {
        mask != Mask::Blocks || !matches!(self, Attention::Coop { .. })
    }

    pub(crate) fn kernel(self, kv: Kv, mask: Mask, output: Part, tier: Tier) -> Kernel {
        let rows = self.rows();
        match self {
            Attention::Row => {
                let text = ("attention", include_str!("../kernels/attention.wgsl"));
                Kernel::compose(&[text, kv.load(), mask.part(), output, tier.all()], &[])
            }
            Attention::Flash => {
                let text = ("attention_flash", include_str!("../kernels/attention_flash.wgsl"));
                // four groups of threads share the rows
                Kernel::compose(
                    &[text, kv.load(), mask.part(), output],
                    &[("TILE_ROWS", rows), ("ROWS_EACH", rows / 4)],
                )
            }
            Attention::Coop { matrix: CoopMatrix { side, subgroup_size }, dim } => {
                let text = ("attention_coop", include_str!("../kernels/attention_coop.wgsl"));
                // matrices of a subgroup: half of the rows, and half of a head
                let matrices = [("HIGH", rows / 2 / side), ("WIDE", dim / 2 / side)];
                let constants = [("ROWS", rows), ("DIM", dim), ("SIDE", side), ("THREADS", 4 * subgroup_size)];
                Kernel::compose(&[text, kv.load(), mask.part(), output], &[&constants[..], &matrices].concat())
                    .named(&format!("{side}x{side}.{subgroup_size}.{dim}"))
            }
        }
    }
}
