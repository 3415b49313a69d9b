//! Quantisers of the types that have a scale and a minimum. Q4_1 and Q5_1 give the bytes of ggml's `quantize_row_*_ref`.

use super::fit::{inverse, level, scale_min};
use super::symmetric::{fifth_bits, nibbles};
use half::f16;

/// Scale, minimum and levels `0 ..= most` between the least and the largest value.
fn between(x: &[f32], most: i32) -> (f32, f32, Vec<u8>) {
    let low = x.iter().copied().fold(f32::MAX, f32::min);
    let high = x.iter().copied().fold(f32::MIN, f32::max);
    let d = (high - low) / most as f32;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    let level = |v: &f32| (((v - low) * inverse + 0.5) as i32).clamp(0, most) as u8;
    (d, low, x.iter().map(level).collect())
}

pub(super) fn q4_1(x: &[f32], out: &mut Vec<u8>) {
    let (d, low, levels) = between(x, 15);
    out.extend(f16::from_f32(d).to_le_bytes());
    out.extend(f16::from_f32(low).to_le_bytes());
    nibbles(&levels, out);
}

pub(super) fn q5_1(x: &[f32], out: &mut Vec<u8>) {
    let (d, low, levels) = between(x, 31);
    out.extend(f16::from_f32(d).to_le_bytes());
    out.extend(f16::from_f32(low).to_le_bytes());
    out.extend(fifth_bits(&levels));
    nibbles(&levels, out);
}

/// A block in groups of `len`: the two halves, codes `0 ..= range` of scales and minima, levels `0 ..= most`.
struct Groups {
    d: f16,
    min: f16,
    scales: Vec<u8>,
    mins: Vec<u8>,
    levels: Vec<u8>,
}

fn groups(x: &[f32], len: usize, most: i32, range: i32) -> Groups {
    let fits: Vec<(f32, f32)> = x.chunks_exact(len).map(|x| scale_min(x, most)).collect();
    let codes = |pick: fn(&(f32, f32)) -> f32| {
        let d = f16::from_f32(fits.iter().map(pick).fold(0.0f32, f32::max) / range as f32);
        let inverse = inverse(d.to_f32());
        (d, fits.iter().map(|fit| level(pick(fit) * inverse, 0, range) as u8).collect::<Vec<u8>>())
    };
    let ((d, scales), (min, mins)) = (codes(|fit| fit.0), codes(|fit| fit.1));
    let mut levels = Vec::with_capacity(x.len());
    for ((x, &scale), &offset) in x.chunks_exact(len).zip(&scales).zip(&mins) {
        let inverse = inverse(d.to_f32() * f32::from(scale));
        let offset = min.to_f32() * f32::from(offset);
        levels.extend(x.iter().map(|v| level((v + offset) * inverse, 0, most) as u8));
    }
    Groups { d, min, scales, mins, levels }
}

pub(super) fn q2_k(x: &[f32], out: &mut Vec<u8>) {
    let Groups { d, min, scales, mins, levels } = groups(x, 16, 3, 15);
    out.extend(scales.iter().zip(&mins).map(|(scale, min)| scale | min << 4));
    let mut low = [0u8; 64];
    for (i, level) in levels.iter().enumerate() {
        low[i / 128 * 32 + i % 32] |= level << (i % 128 / 32 * 2);
    }
    out.extend(low);
    out.extend(d.to_le_bytes());
    out.extend(min.to_le_bytes());
}

/// The twelve bytes of eight scales and eight minima of six bits.
fn packed(scales: &[u8], mins: &[u8]) -> [u8; 12] {
    let mut out = [0u8; 12];
    for j in 0..4 {
        out[j] = scales[j] | scales[j + 4] >> 4 << 6;
        out[j + 4] = mins[j] | mins[j + 4] >> 4 << 6;
        out[j + 8] = scales[j + 4] & 15 | mins[j + 4] << 4;
    }
    out
}

pub(super) fn q4_k(x: &[f32], out: &mut Vec<u8>) {
    let Groups { d, min, scales, mins, levels } = groups(x, 32, 15, 63);
    out.extend(d.to_le_bytes());
    out.extend(min.to_le_bytes());
    out.extend(packed(&scales, &mins));
    levels.chunks_exact(64).for_each(|levels| nibbles(levels, out));
}

pub(super) fn q5_k(x: &[f32], out: &mut Vec<u8>) {
    let Groups { d, min, scales, mins, levels } = groups(x, 32, 31, 63);
    out.extend(d.to_le_bytes());
    out.extend(min.to_le_bytes());
    out.extend(packed(&scales, &mins));
    let mut fifth = [0u8; 32];
    for (i, level) in levels.iter().enumerate() {
        fifth[i % 32] |= (level >> 4) << (i / 32);
    }
    out.extend(fifth);
    levels.chunks_exact(64).for_each(|levels| nibbles(levels, out));
}
