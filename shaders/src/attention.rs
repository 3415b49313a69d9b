//! The ways to compute attention.

use crate::{Kernel, Kv, MAX_HEAD_DIM, Part, Tier, Units};

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
    /// A tile of rows of a sequence, in single precision.
    Tile,
    /// A tile of rows of a sequence, by matrix units.
    Units {
        /// The units.
        units: Units,
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
            Tier::Base => vec![Attention::Row, Attention::Tile],
            Tier::F16 => Vec::new(),
            Tier::Subgroup => vec![Attention::Row],
            Tier::Coop => {
                let of = |units| Attention::DIMS.map(|dim| Attention::Units { units, dim });
                Units::ALL.into_iter().flat_map(of).collect()
            }
        }
    }

    /// The kernel by matrix units for heads of `head_dim`, if any is wide enough.
    pub fn by_units(units: Units, head_dim: usize) -> Option<Attention> {
        Self::DIMS.into_iter().find(|dim| head_dim <= *dim as usize).map(|dim| Attention::Units { units, dim })
    }

    /// Rows of one workgroup.
    pub const fn rows(self) -> u32 {
        match self {
            Attention::Row => 1,
            Attention::Tile => 16,
            Attention::Units { .. } => 32,
        }
    }

    /// The widest head.
    pub const fn head_dim(self) -> usize {
        match self {
            Attention::Row => MAX_HEAD_DIM,
            Attention::Tile => 128,
            Attention::Units { dim, .. } => dim as usize,
        }
    }

    /// Whether there is a kernel with this mask.
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
                // matrices of a subgroup: half of the rows, and half of a head
                let matrices = [("HIGH", rows / 2 / side), ("WIDE", dim / 2 / side)];
                let constants = [("ROWS", rows), ("DIM", dim), ("SIDE", side), ("THREADS", 4 * lanes)];
                Kernel::compose(&[text, kv.load(), mask.part(), ending], &[&constants[..], &matrices].concat())
                    .named(&format!("{side}x{side}.{lanes}.{dim}"))
            }
        }
    }
}
