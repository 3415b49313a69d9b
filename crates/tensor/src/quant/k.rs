//! Groups of the K types (blocks of 256): fits of their scales, and the twelve bytes of scales of Q4_K and Q5_K.

use super::fit::{self, inverse, level, near, scales_of};
use half::f16;

/// Scale j and minimum j, six bits each, of the twelve bytes of Q4_K and Q5_K.
#[inline(always)]
pub(crate) fn scale_min(packed: &[u8; 12], j: usize) -> (u8, u8) {
    if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        (packed[j + 4] & 15 | packed[j - 4] >> 6 << 4, packed[j + 4] >> 4 | packed[j] >> 6 << 4)
    }
}

/// The inverse of [`scale_min`]: eight scales and eight minima in twelve bytes.
pub(super) fn packed(scales: &[u8], mins: &[u8]) -> [u8; 12] {
    let mut out = [0u8; 12];
    for j in 0..4 {
        out[j] = scales[j] | scales[j + 4] >> 4 << 6;
        out[j + 4] = mins[j] | mins[j + 4] >> 4 << 6;
        out[j + 8] = scales[j + 4] & 15 | mins[j + 4] << 4;
    }
    out
}

/// A block with scales and minima: its two halves, the quantized scales and minima of its groups, the quants of its values.
pub(super) struct Affine {
    pub(super) d: f16,
    pub(super) min: f16,
    pub(super) scales: Vec<u8>,
    pub(super) mins: Vec<u8>,
    pub(super) quants: Vec<u8>,
}

/// Groups of `len` values with quants `0 ..= most`, scales and minima `0 ..= range`.
pub(super) fn affine(x: &[f32], len: usize, most: i32, range: i32) -> Affine {
    let fits: Vec<(f32, f32)> = x.chunks_exact(len).map(|x| fit::scale_min(x, most)).collect();
    let codes = |pick: fn(&(f32, f32)) -> f32| {
        let d = f16::from_f32(fits.iter().map(pick).fold(0.0f32, f32::max) / range as f32);
        let inverse = inverse(d.to_f32());
        (d, fits.iter().map(|fit| level(pick(fit) * inverse, 0, range) as u8).collect::<Vec<u8>>())
    };
    let ((d, scales), (min, mins)) = (codes(|fit| fit.0), codes(|fit| fit.1));
    let mut quants = Vec::with_capacity(x.len());
    for ((x, &scale), &offset) in x.chunks_exact(len).zip(&scales).zip(&mins) {
        let inverse = inverse(d.to_f32() * f32::from(scale));
        let offset = min.to_f32() * f32::from(offset);
        quants.extend(x.iter().map(|v| level((v + offset) * inverse, 0, most) as u8));
    }
    Affine { d, min, scales, mins, quants }
}

/// Quants `-n ..= n - 1` of a group by its stored scale, plus n.
fn quants_by(x: &[f32], stored: f32, n: i32) -> impl Iterator<Item = u8> {
    let inverse = inverse(stored);
    x.iter().map(move |v| (level(v * inverse, -n, n - 1) + n) as u8)
}

/// Groups of 16 values with scales `-range ..= range - 1` and no minima: the block's half, the scales, and all quants, `0 .. 2n`.
pub(super) fn symmetric(x: &[f32], n: i32, range: i32) -> (f16, Vec<i32>, Vec<u8>) {
    let round = |v: f32| near(v, -n as f32, (n - 1) as f32);
    let groups: Vec<f32> = x.chunks_exact(16).map(|x| fit::scale(x, -n as f32, round)).collect();
    let (d, scales) = scales_of(&groups, range);
    let quants = x.chunks_exact(16).zip(&scales).flat_map(|(x, &s)| quants_by(x, d.to_f32() * s as f32, n)).collect();
    (d, scales, quants)
}
