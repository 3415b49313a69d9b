//! Quantisers of the types that have a scale only. Q8_0, Q4_0 and Q5_0 give the bytes of ggml's `quantize_row_*_ref`.

use super::IQ4_VALUES;
use super::fit::{extreme, inverse, level, near, scale};
use half::f16;

/// Writes pairs of half bytes: element i in the low half of byte i, element `i + len / 2` in its high half.
pub(super) fn nibbles(levels: &[u8], out: &mut Vec<u8>) {
    let (low, high) = levels.split_at(levels.len() / 2);
    out.extend(low.iter().zip(high).map(|(low, high)| low & 15 | high << 4));
}

/// The fifth bits, element i's in bit i.
pub(super) fn fifth_bits(levels: &[u8]) -> [u8; 4] {
    levels.iter().enumerate().fold(0u32, |bits, (i, level)| bits | u32::from(level >> 4 & 1) << i).to_le_bytes()
}

pub(super) fn q8_0(x: &[f32], out: &mut Vec<u8>) {
    let d = extreme(x).abs() / 127.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    out.extend(f16::from_f32(d).to_le_bytes());
    out.extend(x.iter().map(|v| (v * inverse).round() as i8 as u8));
}

/// Levels `0 ..= 2 * middle - 1` by a scale that reaches the extreme value with level 0.
fn about_middle(x: &[f32], middle: i32) -> (f32, Vec<u8>) {
    let d = extreme(x) / -middle as f32;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    let level = |v: &f32| ((v * inverse + (middle as f32 + 0.5)) as i32).clamp(0, 2 * middle - 1) as u8;
    (d, x.iter().map(level).collect())
}

pub(super) fn q4_0(x: &[f32], out: &mut Vec<u8>) {
    let (d, levels) = about_middle(x, 8);
    out.extend(f16::from_f32(d).to_le_bytes());
    nibbles(&levels, out);
}

pub(super) fn q5_0(x: &[f32], out: &mut Vec<u8>) {
    let (d, levels) = about_middle(x, 16);
    out.extend(f16::from_f32(d).to_le_bytes());
    out.extend(fifth_bits(&levels));
    nibbles(&levels, out);
}

/// As ONNX Runtime: of two extremes of one size the negative one counts, and levels follow the stored scale.
pub(super) fn int4_rtn(x: &[f32], out: &mut Vec<u8>) {
    let low = x.iter().copied().fold(0.0f32, f32::min);
    let high = x.iter().copied().fold(0.0f32, f32::max);
    let d = f16::from_f32(if high > -low { high } else { low } / -8.0);
    let inverse = inverse(d.to_f32());
    let levels: Vec<u8> = x.iter().map(|v| level(v * inverse + 8.0, 0, 15) as u8).collect();
    out.extend(d.to_le_bytes());
    nibbles(&levels, out);
}

/// Signed scales of the groups of a block as whole numbers of `-n ..= n - 1` times a half, and the half's value.
fn scales_of(groups: &[f32], n: i32) -> (f16, Vec<i32>) {
    let d = f16::from_f32(extreme(groups) / -n as f32);
    let inverse = inverse(d.to_f32());
    (d, groups.iter().map(|s| level(s * inverse, -n, n - 1)).collect())
}

/// Levels of a group by the scale as it is stored, counted from 0.
fn levels_by(x: &[f32], stored: f32, n: i32) -> impl Iterator<Item = u8> {
    let inverse = inverse(stored);
    x.iter().map(move |v| (level(v * inverse, -n, n - 1) + n) as u8)
}

/// Groups of 16: their scales, and the levels of all values.
fn groups_of_16(x: &[f32], n: i32, scale_range: i32) -> (f16, Vec<i32>, Vec<u8>) {
    let round = |v: f32| near(v, -n as f32, (n - 1) as f32);
    let groups: Vec<f32> = x.chunks_exact(16).map(|x| scale(x, -n as f32, round)).collect();
    let (d, scales) = scales_of(&groups, scale_range);
    let levels = x.chunks_exact(16).zip(&scales).flat_map(|(x, &s)| levels_by(x, d.to_f32() * s as f32, n)).collect();
    (d, scales, levels)
}

pub(super) fn q3_k(x: &[f32], out: &mut Vec<u8>) {
    let (d, scales, levels) = groups_of_16(x, 4, 32);
    let mut third = [0u8; 32];
    let mut low = [0u8; 64];
    for (i, level) in levels.iter().enumerate() {
        third[i % 32] |= (level >> 2) << (i / 32);
        low[i / 128 * 32 + i % 32] |= (level & 3) << (i % 128 / 32 * 2);
    }
    let mut packed = [0u8; 12];
    for (group, scale) in scales.iter().enumerate() {
        let code = (scale + 32) as u8;
        packed[group % 8] |= (code & 15) << (group / 8 * 4);
        packed[8 + group % 4] |= (code >> 4) << (group / 4 * 2);
    }
    out.extend(third.iter().chain(&low).chain(&packed).chain(&d.to_le_bytes()));
}

pub(super) fn q6_k(x: &[f32], out: &mut Vec<u8>) {
    let (d, scales, levels) = groups_of_16(x, 32, 128);
    let mut low = [0u8; 128];
    let mut high = [0u8; 64];
    for (i, level) in levels.iter().enumerate() {
        let (upper, rest) = (i / 128, i % 128);
        low[64 * upper + rest % 64] |= (level & 15) << (rest / 64 * 4);
        high[32 * upper + rest % 32] |= (level >> 4) << (rest / 32 * 2);
    }
    out.extend(low.iter().chain(&high));
    out.extend(scales.iter().map(|&s| s as i8 as u8));
    out.extend(d.to_le_bytes());
}

/// Index of the table's value nearest to x.
fn nearest(x: f32) -> u8 {
    let above = IQ4_VALUES.partition_point(|&v| f32::from(v) < x);
    match above {
        0 => 0,
        16 => 15,
        _ => {
            let (low, high) = (f32::from(IQ4_VALUES[above - 1]), f32::from(IQ4_VALUES[above]));
            (if x - low < high - x { above - 1 } else { above }) as u8
        }
    }
}

/// The scale of least error for values of the table.
fn table_scale(x: &[f32]) -> f32 {
    let choose = |v: f32| f32::from(IQ4_VALUES[usize::from(nearest(v))]);
    // the table is not symmetric: the extreme value may stand at either end, or a level before it
    let by = |end: f32| {
        let d = scale(x, end, choose);
        let error: f32 = x.iter().map(|&v| (v - d * choose(v * inverse(d))).powi(2)).sum();
        (d, error)
    };
    let ends = [-127.0, -113.0, 113.0, 100.0];
    let best = ends.map(by).into_iter().reduce(|best, next| if next.1 < best.1 { next } else { best });
    best.map_or(0.0, |best| best.0)
}

pub(super) fn iq4_nl(x: &[f32], out: &mut Vec<u8>) {
    let d = f16::from_f32(table_scale(x));
    let inverse = inverse(d.to_f32());
    let levels: Vec<u8> = x.iter().map(|v| nearest(v * inverse)).collect();
    out.extend(d.to_le_bytes());
    nibbles(&levels, out);
}

pub(super) fn iq4_xs(x: &[f32], out: &mut Vec<u8>) {
    let groups: Vec<f32> = x.chunks_exact(32).map(table_scale).collect();
    let (d, scales) = scales_of(&groups, 32);
    let (mut high, mut low) = (0u16, [0u8; 4]);
    for (group, scale) in scales.iter().enumerate() {
        let code = (scale + 32) as u8;
        low[group / 2] |= (code & 15) << (group % 2 * 4);
        high |= u16::from(code >> 4) << (2 * group);
    }
    out.extend(d.to_le_bytes());
    out.extend(high.to_le_bytes());
    out.extend(low);
    for (x, &scale) in x.chunks_exact(32).zip(&scales) {
        let inverse = inverse(d.to_f32() * scale as f32);
        let levels: Vec<u8> = x.iter().map(|v| nearest(v * inverse)).collect();
        nibbles(&levels, out);
    }
}
