//! Blocks of 32 quants of four or five bits: Q4_0, Q4_1, Q5_0, Q5_1, and the quants of the IQ4 types.
//!
//! Byte i of sixteen holds the low four bits of quant i in its low half, and of quant i + 16 in its high half. Fifth bits are
//! bit i of a little-endian 32-bit word.

use super::fit::extreme;

/// Sixteen values `scale * (quant + offset) + min`, of the four bits from SHIFT on of sixteen bytes.
#[inline(always)]
pub(super) fn decode<const SHIFT: u32>(quants: &[u8; 16], offset: i32, scale: f32, min: f32, out: &mut [f32; 16]) {
    for i in 0..16 {
        out[i] = scale * ((i32::from(quants[i]) >> SHIFT & 15) + offset) as f32 + min;
    }
}

/// The fifth bits of quants i and i + 16, as bit 4.
#[inline(always)]
pub(super) fn fifth(high: u32, i: usize) -> (u32, u32) {
    (high >> i << 4 & 16, high >> (i + 12) & 16)
}

/// Appends the low four bits of quants: i in the low half of byte i, `i + len / 2` in its high half.
pub(super) fn encode(quants: &[u8], out: &mut Vec<u8>) {
    let (low, high) = quants.split_at(quants.len() / 2);
    out.extend(low.iter().zip(high).map(|(low, high)| low & 15 | high << 4));
}

/// The fifth bits of quants, that of quant i in bit i.
pub(super) fn fifth_bits(quants: &[u8]) -> [u8; 4] {
    quants.iter().enumerate().fold(0u32, |bits, (i, quant)| bits | u32::from(quant >> 4 & 1) << i).to_le_bytes()
}

/// Scale and quants `0 ..= 2 * zero_point - 1`. Quant 0 is that of the value of largest magnitude.
pub(super) fn symmetric(x: &[f32], zero_point: i32) -> (f32, Vec<u8>) {
    let d = extreme(x) / -zero_point as f32;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    let quant = |v: &f32| ((v * inverse + (zero_point as f32 + 0.5)) as i32).clamp(0, 2 * zero_point - 1) as u8;
    (d, x.iter().map(quant).collect())
}

/// Scale, minimum and quants `0 ..= most`. Quant 0 is that of the least value, `most` that of the largest.
pub(super) fn affine(x: &[f32], most: i32) -> (f32, f32, Vec<u8>) {
    let low = x.iter().copied().fold(f32::MAX, f32::min);
    let high = x.iter().copied().fold(f32::MIN, f32::max);
    let d = (high - low) / most as f32;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    let quant = |v: &f32| (((v - low) * inverse + 0.5) as i32).clamp(0, most) as u8;
    (d, low, x.iter().map(quant).collect())
}
