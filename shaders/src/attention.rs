//! Attention kernels and masks.

use crate::{CoopMatrix, Kernel, Kv, MAX_HEAD_DIM, Part, Tier};

/// Positions that a row attends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mask {
    /// Causal: all positions up to the row's own, or a sliding window of the last of them.
    Window,
    /// Block-sparse: some blocks of the positions up to the row's own.
    Blocks,
    /// Bidirectional: all positions up to the last one of the row's segment.
    Full,
}

impl Mask {
    /// Every mask.
    pub const ALL: [Mask; 3] = [Mask::Window, Mask::Blocks, Mask::Full];

    /// Name and source; the name of [`Mask::Window`] is empty.
    fn part(self) -> Part {
        match self {
            Mask::Window => ("", include_str!("../mask/window.wgsl")),
            Mask::Blocks => ("blocks", include_str!("../mask/blocks.wgsl")),
            Mask::Full => ("full", include_str!("../mask/full.wgsl")),
        }
    }
}

/// Attention kernel: rows per workgroup, and whether matrix units are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Attention {
    /// One row.
    Row,
    /// Tile of rows of one sequence, in single precision (FlashAttention, Dao et al. 2022, arXiv 2205.14135).
    Flash,
    /// Tile of rows of one sequence, on matrix units.
    Coop {
        /// Cooperative matrices.
        matrix: CoopMatrix,
        /// Largest head dimension: one of [`DIMS`](Self::DIMS).
        dim: u32,
    },
}

impl Attention {
    /// Largest head dimensions of the matrix-unit kernels.
    pub const DIMS: [u32; 3] = [64, 96, 128];

    /// Kernels that a tier adds to the next lower one.
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

    /// Smallest matrix-unit kernel that takes heads of `head_dim`, if any does.
    pub fn coop(matrix: CoopMatrix, head_dim: usize) -> Option<Attention> {
        Self::DIMS.into_iter().find(|dim| head_dim <= *dim as usize).map(|dim| Attention::Coop { matrix, dim })
    }

    /// Rows per workgroup.
    pub const fn rows(self) -> u32 {
        match self {
            Attention::Row => 1,
            Attention::Flash => 16,
            Attention::Coop { .. } => 32,
        }
    }

    /// Largest head dimension.
    pub const fn head_dim(self) -> usize {
        match self {
            Attention::Row => MAX_HEAD_DIM,
            Attention::Flash => 128,
            Attention::Coop { dim, .. } => dim as usize,
        }
    }

    /// Whether the kernel supports this mask.
    pub fn takes(self, mask: Mask) -> bool {
        mask != Mask::Blocks || !matches!(self, Attention::Coop { .. })
    }

    pub(crate) fn kernel(self, kv: Kv, mask: Mask, output: Part, tier: Tier) -> Kernel {
        let rows = self.rows();
        let split = ("", include_str!("../kernels/kv_split.wgsl"));
        match self {
            Attention::Row => {
                let text = ("attention", include_str!("../kernels/attention.wgsl"));
                Kernel::compose(&[text, split, kv.load(), mask.part(), output, tier.all()], &[])
            }
            Attention::Flash => {
                let text = ("attention_flash", include_str!("../kernels/attention_flash.wgsl"));
                // four groups of threads share the rows
                Kernel::compose(
                    &[text, split, kv.load(), mask.part(), output],
                    &[("TILE_ROWS", rows), ("ROWS_EACH", rows / 4)],
                )
            }
            Attention::Coop { matrix: CoopMatrix { side, subgroup_size }, dim } => {
                let text = ("attention_coop", include_str!("../kernels/attention_coop.wgsl"));
                // matrices per subgroup: half of the rows by half of a head
                let matrices = [("HIGH", rows / 2 / side), ("WIDE", dim / 2 / side)];
                let constants = [("ROWS", rows), ("DIM", dim), ("SIDE", side), ("THREADS", 4 * subgroup_size)];
                Kernel::compose(&[text, split, kv.load(), mask.part(), output], &[&constants[..], &matrices].concat())
                    .named(&format!("{side}x{side}.{subgroup_size}.{dim}"))
            }
        }
    }
}
