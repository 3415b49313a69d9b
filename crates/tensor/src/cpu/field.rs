//! Fields of a block, and their layout in a panel of sixteen rows.

/// Rows of a panel.
pub(crate) const PANEL: usize = 16;

/// A part of a block of the file. The first number is its offset in bytes.
#[derive(Clone, Copy)]
pub(crate) enum Field {
    /// A half: scale or minimum.
    Half(usize),
    /// Bytes, and their number: packed scales. A panel has byte j of all rows side by side.
    Bytes(usize, usize),
    /// Words of 4 bytes, and their number: packed quants. A panel has word j of all rows side by side.
    Words(usize, usize),
    /// 32 bits, one for each quant. In a panel the bit of quant 4q + i is bit q of byte i, as the quant is byte i of word q.
    Bits(usize),
}

impl Field {
    /// Bytes of the field in one row's block.
    pub(super) const fn len(self) -> usize {
        match self {
            Field::Half(_) => 2,
            Field::Bytes(_, n) => n,
            Field::Words(_, n) => 4 * n,
            Field::Bits(_) => 4,
        }
    }
}

/// Offset of field i of `fields` in a panel's block.
pub(super) const fn place(fields: &[Field], i: usize) -> usize {
    let (mut at, mut j) = (0, 0);
    while j < i {
        at += PANEL * fields[j].len();
        j += 1;
    }
    at
}
