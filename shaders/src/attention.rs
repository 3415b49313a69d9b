//! Attention kernels and masks.

use crate::{Kernel, Kv, MAX_HEAD_DIM, Part, Tier, Units};

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
    /// Tile of rows of one sequence, in single precision.
    Tile,
    /// Tile of rows of one sequence, on matrix units.
    Units {
        /// Matrix units.
        units: Units,
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
            Tier::Base => vec![Attention::Row, Attention::Tile],
            Tier::F16 => Vec::new(),
            Tier::Subgroup => vec![Attention::Row],
            Tier::Coop => {
                let of = |units| Attention::DIMS.map(|dim| Attention::Units { units, dim });
                Units::ALL.into_iter().flat_map(of).collect()
            }
        }
    }

    /// Smallest matrix-unit kernel that takes heads of `head_dim`, if any does.
    pub fn by_units(units: Units, head_dim: usize) -> Option<Attention> {
        Self::DIMS.into_iter().find(|dim| head_dim <= *dim as usize).map(|dim| Attention::Units { units, dim })
    }

    /// Rows per workgroup.
    pub const fn rows(self) -> u32 {
        match self {
            Attention::Row => 1,
            Attention::Tile => 16,
            Attention::Units { .. } => 32,
        }
    }

    /// Largest head dimension.
    pub const fn head_dim(self) -> usize {
        match self {
            Attention::Row => MAX_HEAD_DIM,
            Attention::Tile => 128,
            Attention::Units { dim, .. } => dim as usize,
        }
    }

    /// Whether the kernel supports this mask.
    pub fn takes(self, mask: Mask) -> bool {
        mask != Mask::Blocks || !matches!(self, Attention::Units { .. })
    }

    pub(crate) fn kernel(self, kv: Kv, mask: Mask, ending: Part, tier: Tier) -> Kernel {
        let rows = self.rows();
        match self {
            Attention::Row => {
                let text = ("attention", include_str!("../kernels/attention.wgsl"));
                Kernel::compose(&[text, kv.load(), mask.part(), ending, tier.all()], &[])
            }
            Attention::Tile => {
                let text = ("attention_tile", include_str!("../kernels/attention_tile.wgsl"));
                // four groups of threads share the rows
                Kernel::compose(
                    &[text, kv.load(), mask.part(), ending],
                    &[("TILE_ROWS", rows), ("ROWS_EACH", rows / 4)],
                )
            }
            Attention::Units { units: Units { side, lanes }, dim } => {
                let text = ("attention_units", include_str!("../kernels/attention_units.wgsl"));
                // matrices per subgroup: half of the rows by half of a head
                let matrices = [("HIGH", rows / 2 / side), ("WIDE", dim / 2 / side)];
                let constants = [("ROWS", rows), ("DIM", dim), ("SIDE", side), ("THREADS", 4 * lanes)];
                Kernel::compose(&[text, kv.load(), mask.part(), ending], &[&constants[..], &matrices].concat())
                    .named(&format!("{side}x{side}.{lanes}.{dim}"))
            }
        }
    }
}
