//! Blocks of 32, from bytes to values. The loops are plain, so that the compiler vectorises them for the instruction set
//! of whoever inlines them.

use super::IQ4_VALUES;

/// A format: one block from bytes to values.
pub(crate) trait Block: 'static {
    /// Elements of a block.
    const LEN: usize;
    /// Bytes of a block.
    const BYTES: usize;
    /// `block` has [`BYTES`](Self::BYTES) bytes, `out` [`LEN`](Self::LEN) elements.
    fn decode(block: &[u8], out: &mut [f32]);
}

/// Whole blocks.
#[inline(always)]
pub(crate) fn row<B: Block>(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.chunks_exact(B::BYTES).zip(out.chunks_exact_mut(B::LEN)) {
        B::decode(block, out);
    }
}

/// The N bytes from `at` on.
#[inline(always)]
pub(super) fn part<const N: usize>(bytes: &[u8], at: usize) -> &[u8; N] {
    match bytes[at..].first_chunk() {
        Some(part) => part,
        None => unreachable!("a block of {} bytes has none from {at} to {}", bytes.len(), at + N),
    }
}

/// The N values from `at` on.
#[inline(always)]
pub(super) fn part_mut<const N: usize>(values: &mut [f32], at: usize) -> &mut [f32; N] {
    let len = values.len();
    match values[at..].first_chunk_mut() {
        Some(part) => part,
        None => unreachable!("a block of {len} values has none from {at} to {}", at + N),
    }
}

/// The half at `at`, widened without a branch or a call: exact for every bit pattern.
#[inline(always)]
pub(super) fn half(bytes: &[u8], at: usize) -> f32 {
    let bits = u32::from(u16::from_le_bytes(*part(bytes, at)));
    let magnitude = bits & 0x7fff;
    // the exponent's bias changes by 112; the product is exact, for subnormal halves too
    let finite = f32::from_bits(magnitude << 13) * f32::from_bits((127 + 112) << 23);
    let value = if magnitude >= 0x7c00 { magnitude << 13 | 0x7f80_0000 } else { finite.to_bits() };
    f32::from_bits(value | (bits & 0x8000) << 16)
}

pub(crate) struct Q8_0;
pub(crate) struct Q4_0;
pub(crate) struct Q4_1;
pub(crate) struct Q5_0;
pub(crate) struct Q5_1;
pub(crate) struct Iq4Nl;

/// Scale, 32 signed bytes.
impl Block for Q8_0 {
    const LEN: usize = 32;
    const BYTES: usize = 34;

    #[inline(always)]
    fn decode(block: &[u8], out: &mut [f32]) {
        let (d, quants) = (half(block, 0), part::<32>(block, 2));
        let out = part_mut::<32>(out, 0);
        for i in 0..32 {
            out[i] = d * f32::from(quants[i] as i8);
        }
    }
}

/// The four bits from SHIFT on of sixteen bytes, plus an offset, times a scale, plus a minimum.
#[inline(always)]
fn four_bits<const SHIFT: u32>(quants: &[u8; 16], offset: i32, scale: f32, min: f32, out: &mut [f32; 16]) {
    for i in 0..16 {
        out[i] = scale * ((i32::from(quants[i]) >> SHIFT & 15) + offset) as f32 + min;
    }
}

/// Scale, 16 bytes: element i in the low half of byte i, element i + 16 in its high half. Minus 8.
impl Block for Q4_0 {
    const LEN: usize = 32;
    const BYTES: usize = 18;

    #[inline(always)]
    fn decode(block: &[u8], out: &mut [f32]) {
        let (d, quants) = (half(block, 0), part::<16>(block, 2));
        four_bits::<0>(quants, -8, d, 0.0, part_mut(out, 0));
        four_bits::<4>(quants, -8, d, 0.0, part_mut(out, 16));
    }
}

/// Scale, minimum, 16 bytes as in Q4_0. Scale times element plus minimum.
impl Block for Q4_1 {
    const LEN: usize = 32;
    const BYTES: usize = 20;

    #[inline(always)]
    fn decode(block: &[u8], out: &mut [f32]) {
        let (d, m, quants) = (half(block, 0), half(block, 2), part::<16>(block, 4));
        four_bits::<0>(quants, 0, d, m, part_mut(out, 0));
        four_bits::<4>(quants, 0, d, m, part_mut(out, 16));
    }
}

/// The fifth bits of elements i and i + 16, in place.
#[inline(always)]
fn fifth(high: u32, i: usize) -> (u32, u32) {
    (high >> i << 4 & 16, high >> (i + 12) & 16)
}

/// Scale, 32 fifth bits, 16 bytes as in Q4_0. Minus 16.
impl Block for Q5_0 {
    const LEN: usize = 32;
    const BYTES: usize = 22;

    #[inline(always)]
    fn decode(block: &[u8], out: &mut [f32]) {
        let (d, high, quants) = (half(block, 0), u32::from_le_bytes(*part(block, 2)), part::<16>(block, 6));
        let out = part_mut::<32>(out, 0);
        for i in 0..16 {
            let (low_bit, high_bit) = fifth(high, i);
            out[i] = d * ((u32::from(quants[i] & 15) | low_bit) as i32 - 16) as f32;
            out[i + 16] = d * ((u32::from(quants[i] >> 4) | high_bit) as i32 - 16) as f32;
        }
    }
}

/// Scale, minimum, 32 fifth bits, 16 bytes as in Q4_0. Scale times element plus minimum.
impl Block for Q5_1 {
    const LEN: usize = 32;
    const BYTES: usize = 24;

    #[inline(always)]
    fn decode(block: &[u8], out: &mut [f32]) {
        let (d, m) = (half(block, 0), half(block, 2));
        let (high, quants) = (u32::from_le_bytes(*part(block, 4)), part::<16>(block, 8));
        let out = part_mut::<32>(out, 0);
        for i in 0..16 {
            let (low_bit, high_bit) = fifth(high, i);
            out[i] = d * (u32::from(quants[i] & 15) | low_bit) as f32 + m;
            out[i + 16] = d * (u32::from(quants[i] >> 4) | high_bit) as f32 + m;
        }
    }
}

/// Sixteen bytes of indices into [`IQ4_VALUES`], ordered as in Q4_0.
#[inline(always)]
pub(super) fn from_table(d: f32, quants: &[u8; 16], out: &mut [f32; 32]) {
    for i in 0..16 {
        out[i] = d * f32::from(IQ4_VALUES[usize::from(quants[i] & 15)]);
        out[i + 16] = d * f32::from(IQ4_VALUES[usize::from(quants[i] >> 4)]);
    }
}

/// Scale, 16 bytes as in Q4_0 that choose from a table.
impl Block for Iq4Nl {
    const LEN: usize = 32;
    const BYTES: usize = 18;

    #[inline(always)]
    fn decode(block: &[u8], out: &mut [f32]) {
        from_table(half(block, 0), part(block, 2), part_mut(out, 0));
    }
}
