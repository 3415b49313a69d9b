//! Quantized types for the integer kernels: quants as bytes and scales as f32, of the rows of a panel.
//!
//! A type implements [`QuantBlock`] in its own file, with the helpers of this file.

pub(crate) use super::field::{Field, PANEL};
pub(crate) use super::int_simd::IntSimd;

use super::field::place;
use crate::quant::Block;

/// A quantized type in panels.
///
/// Element `= scale * (quant - ZERO_POINT) + min`. A sub-block of 32 elements has one scale (and one minimum), or one for each
/// half.
///
/// # Safety
///
/// [`FIELDS`](Self::FIELDS) covers every byte of a block once, so that a panel's block has [`PANEL_BYTES`](Self::PANEL_BYTES)
/// bytes, and the functions read no other bytes.
///
/// The caller of a function guarantees the instruction set of `L` at run time, `block` at a panel's block of the type,
/// `part < PANEL / L::ROWS`, `sub < SUB_BLOCKS` and `half < 2`.
pub(crate) unsafe trait QuantBlock: Block {
    /// Parts of a block, in the order of a panel.
    const FIELDS: &'static [Field];
    /// Whether quants are signed. They are then [`IntSimd::biased`].
    const SIGNED: bool = false;
    /// The largest quant, if quants are unsigned; below 64.
    const LARGEST: i32 = 63;
    /// Zero point subtracted from each quant.
    const ZERO_POINT: i32 = 0;
    /// Whether each half of a sub-block has a scale of its own.
    const SIXTEENS: bool = false;
    /// Whether there are minima.
    const MINIMA: bool = false;
    /// Sub-blocks of 32 elements in a block.
    const SUB_BLOCKS: usize = Self::LEN / 32;
    /// Bytes of a panel's block.
    const PANEL_BYTES: usize = PANEL * Self::BYTES;

    /// Scale and minimum of a whole block. The default reads them from the first fields.
    #[inline(always)]
    unsafe fn head<L: IntSimd>(block: *const u8, part: usize) -> [L::F; 2] {
        // SAFETY: the caller guarantees the contract of this function.
        unsafe { halves::<L>(block, part, Self::MINIMA) }
    }

    /// The 32 quants of a sub-block as eight words, of the rows of `part`.
    unsafe fn quants<L: IntSimd>(block: *const u8, part: usize, sub: usize) -> [L::I; 8];

    /// Scale and minimum of half `half` of a sub-block; of all of it where its halves share them. The default is the head.
    #[inline(always)]
    unsafe fn scale<L: IntSimd>(head: [L::F; 2], _: *const u8, _part: usize, _sub: usize, _half: usize) -> [L::F; 2] {
        head
    }
}

/// Start of `part` of field `i`, which has `width` bytes per row and item.
///
/// # Safety
///
/// `block` is a panel's block of the type of `fields`, `i < fields.len()`, `part < PANEL / L::ROWS`.
#[inline(always)]
pub(crate) unsafe fn field<L: IntSimd>(
    block: *const u8,
    fields: &[Field],
    i: usize,
    part: usize,
    width: usize,
) -> *const u8 {
    // SAFETY: the first item of a field has `width` bytes for each of PANEL rows, all of them inside the block.
    unsafe { block.add(place(fields, i) + part * L::ROWS * width) }
}

/// Word j of a field of words, of every row of a part.
///
/// # Safety
///
/// `words` comes from [`field`] with a width of 4, and the field has more than `j` words.
#[inline(always)]
pub(crate) unsafe fn word<L: IntSimd>(words: *const u8, j: usize) -> L::I {
    // SAFETY: word j of the part's rows is `4 * L::ROWS` bytes of the field.
    unsafe { L::load(words.add(4 * PANEL * j)) }
}

/// Byte j of a field of bytes, of every row of a part.
///
/// # Safety
///
/// `bytes` comes from [`field`] with a width of 1, and the field has more than `j` bytes.
#[inline(always)]
pub(crate) unsafe fn byte<L: IntSimd>(bytes: *const u8, j: usize) -> L::I {
    // SAFETY: byte j of the part's rows is `L::ROWS` bytes of the field.
    unsafe { L::bytes(bytes.add(PANEL * j)) }
}

/// Quants of four words: sixteen in the low halves of their bytes, then sixteen in the high halves.
///
/// # Safety
///
/// Four words of a field at `words`, as for [`word`].
#[inline(always)]
pub(crate) unsafe fn nibbles<L: IntSimd>(words: *const u8) -> [L::I; 8] {
    // SAFETY: words 0 to 3 of the field; the caller guarantees the instruction set.
    unsafe {
        let w = [word::<L>(words, 0), word::<L>(words, 1), word::<L>(words, 2), word::<L>(words, 3)];
        let (low, high) = (|v| L::and(v, 15), |v| L::and(L::shr(v, 4), 15));
        [low(w[0]), low(w[1]), low(w[2]), low(w[3]), high(w[0]), high(w[1]), high(w[2]), high(w[3])]
    }
}

/// Bits `shift ..` of the bytes of eight words, masked.
///
/// # Safety
///
/// Eight words of a field at `words`, as for [`word`].
#[inline(always)]
pub(crate) unsafe fn bits<L: IntSimd>(words: *const u8, shift: usize, mask: u8) -> [L::I; 8] {
    // SAFETY: words 0 to 7 of the field; the caller guarantees the instruction set.
    unsafe {
        let mut out = [L::splat(0); 8];
        for (j, out) in out.iter_mut().enumerate() {
            *out = L::and(L::shr(word::<L>(words, j), shift), mask);
        }
        out
    }
}

/// `low | high << shift`, byte by byte.
///
/// # Safety
///
/// The instruction set of `L` is available.
#[inline(always)]
pub(crate) unsafe fn above<L: IntSimd>(low: [L::I; 8], high: [L::I; 8], shift: usize) -> [L::I; 8] {
    // SAFETY: registers only; the caller guarantees the instruction set.
    unsafe {
        let mut out = low;
        for (out, high) in out.iter_mut().zip(high) {
            *out = L::or(*out, L::shl(high, shift));
        }
        out
    }
}

/// `low` with fifth bits from a [`Field::Bits`]: bit q of byte i is the fifth bit of byte i of word q.
///
/// # Safety
///
/// One word of a field at `field`, as for [`word`].
#[inline(always)]
pub(crate) unsafe fn fifths<L: IntSimd>(low: [L::I; 8], field: *const u8) -> [L::I; 8] {
    // SAFETY: `4 * L::ROWS` bytes of the field; the caller guarantees the instruction set.
    unsafe {
        let high = L::load(field);
        let mut bits = [high; 8];
        for (q, bits) in bits.iter_mut().enumerate() {
            *bits = L::and(L::shr(high, q), 1);
        }
        above::<L>(low, bits, 4)
    }
}

/// Scale of a block from field 0, and its minimum from field 1 where `min`.
///
/// # Safety
///
/// `block` is a panel's block that begins with one [`Field::Half`], two where `min`; `part < PANEL / L::ROWS`.
#[inline(always)]
pub(crate) unsafe fn halves<L: IntSimd>(block: *const u8, part: usize, min: bool) -> [L::F; 2] {
    // SAFETY: `L::ROWS` halves of each field, inside the block.
    unsafe {
        let d = L::halves(block.add(part * L::ROWS * 2));
        [d, if min { L::halves(block.add(2 * PANEL + part * L::ROWS * 2)) } else { L::splat_f32(0.0) }]
    }
}

/// Scale and negated minimum of a block. K types subtract the minimum.
///
/// # Safety
///
/// As for [`halves`], with a minimum.
#[inline(always)]
pub(crate) unsafe fn halves_negative<L: IntSimd>(block: *const u8, part: usize) -> [L::F; 2] {
    // SAFETY: the caller guarantees the contract of this function.
    unsafe {
        let [d, min] = halves::<L>(block, part, true);
        [d, L::mul(min, L::splat_f32(-1.0))]
    }
}

/// Scale `j` and minimum `j` of twelve packed bytes; the layout is that of [`k::scale_min`](crate::quant::k::scale_min).
///
/// # Safety
///
/// Twelve bytes of a field at `packed`, as for [`byte`]; `j < 8`.
#[inline(always)]
pub(crate) unsafe fn scale_min<L: IntSimd>(head: [L::F; 2], packed: *const u8, j: usize) -> [L::F; 2] {
    // SAFETY: bytes 0 to 11 of the field; the caller guarantees the instruction set.
    unsafe {
        let (scale, min) = if j < 4 {
            (L::and(byte::<L>(packed, j), 63), L::and(byte::<L>(packed, j + 4), 63))
        } else {
            let (low, scale, min) = (byte::<L>(packed, j + 4), byte::<L>(packed, j - 4), byte::<L>(packed, j));
            let top = |v| L::shl(L::and(L::shr(v, 6), 3), 4);
            (L::or(L::and(low, 15), top(scale)), L::or(L::and(L::shr(low, 4), 15), top(min)))
        };
        [L::mul(head[0], L::to_f32(scale)), L::mul(head[1], L::to_f32(min))]
    }
}
