//! Masks of attention.

/// Positions of its sequence that a row sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mask {
    /// All positions up to the row's own.
    #[default]
    Causal,
    /// A number of positions, the row's own included: at position i, positions j with `i - window < j <= i`.
    Window(usize),
    /// Some blocks of the positions up to the row's own, by head.
    Blocks(BlockSparse),
    /// All positions up to the last one of the row's segment, also those after the row's own.
    Full,
}

/// A pattern of blocks (Phi-3-small): of blocks b of positions, query head h at block q sees those with `q - b < local`, and
/// those with `(b + h * head_step + 1) % stride == 0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockSparse {
    /// Positions of a block.
    pub block: usize,
    /// Number of the last blocks, which every head sees, the row's own included.
    pub local: usize,
    /// Distance of the other blocks that a head sees.
    pub stride: usize,
    /// Offset of a head's pattern from that of the head before.
    pub head_step: usize,
}

impl BlockSparse {
    /// Whether a head sees block `key` from block `query`, which is no earlier.
    pub fn sees(self, head: usize, query: usize, key: usize) -> bool {
        query < key + self.local || (key + head * self.head_step + 1).is_multiple_of(self.stride)
    }
}

impl Mask {
    /// [`Mask::Window`] for a window, [`Mask::Causal`] for `None`.
    pub fn windowed(window: Option<usize>) -> Self {
        window.map_or(Mask::Causal, Mask::Window)
    }

    /// The largest number of positions that a row sees, its own included, where that is limited.
    pub fn window(self) -> Option<usize> {
        match self {
            Mask::Causal | Mask::Blocks(_) | Mask::Full => None,
            Mask::Window(window) => Some(window),
        }
    }

    /// Whether query head `head` of the row at position `query` sees position `key`, of its segment or before it.
    pub fn sees(self, head: usize, query: usize, key: usize) -> bool {
        match self {
            Mask::Full => true,
            _ if key > query => false,
            Mask::Causal => true,
            Mask::Window(window) => query - key < window,
            Mask::Blocks(blocks) => blocks.sees(head, query / blocks.block, key / blocks.block),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_see_what_their_mask_says() {
        let seen = |mask: Mask, query| (0..9).filter(|&key| mask.sees(0, query, key)).collect::<Vec<_>>();
        assert_eq!(seen(Mask::Causal, 3), [0, 1, 2, 3]);
        assert_eq!(seen(Mask::Window(1), 3), [3]);
        assert_eq!(seen(Mask::Window(3), 7), [5, 6, 7]);
        assert_eq!(seen(Mask::Window(30), 2), [0, 1, 2]);
        let blocks = BlockSparse { block: 2, local: 1, stride: 3, head_step: 1 };
        // head 0 sees blocks 2, 5, ...; head 1 blocks 1, 4, ...
        assert_eq!(seen(Mask::Blocks(blocks), 6), [4, 5, 6]);
        assert_eq!((0..9).filter(|&key| Mask::Blocks(blocks).sees(1, 6, key)).collect::<Vec<_>>(), [2, 3, 6]);
        assert_eq!(seen(Mask::Full, 2), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    }
}
