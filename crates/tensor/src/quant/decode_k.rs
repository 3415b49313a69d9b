//! Blocks of 256, from bytes to values.

use super::decode::{Block, from_table, half, part, part_mut};

pub(crate) struct Q2K;
pub(crate) struct Q3K;
pub(crate) struct Q4K;
pub(crate) struct Q5K;
pub(crate) struct Q6K;
pub(crate) struct Iq4Xs;

/// 16 bytes of scale and minimum, 64 bytes of 2 bits, scale, minimum.
///
/// Byte b of each 32 holds elements b, b + 32, b + 64 and b + 96 of 128.
impl Block for Q2K {
    const LEN: usize = 256;
    const BYTES: usize = 84;

    #[inline(always)]
    fn decode(block: &[u8], out: &mut [f32]) {
        let (scales, d, min) = (part::<16>(block, 0), half(block, 80), half(block, 82));
        for (group, packed) in scales.iter().enumerate() {
            let (upper, pair, side) = (group / 8, group % 8 / 2, group % 2);
            let quants = part::<16>(block, 16 + 32 * upper + 16 * side);
            let (scale, offset) = (d * f32::from(packed & 15), min * f32::from(packed >> 4));
            let out = part_mut::<16>(out, 16 * group);
            for i in 0..16 {
                out[i] = scale * f32::from(quants[i] >> (2 * pair) & 3) - offset;
            }
        }
    }
}

/// 32 bytes of third bits, 64 bytes of 2 bits as in Q2_K, 12 bytes of scales, scale.
impl Block for Q3K {
    const LEN: usize = 256;
    const BYTES: usize = 110;

    #[inline(always)]
    fn decode(block: &[u8], out: &mut [f32]) {
        let (packed, d) = (part::<12>(block, 96), half(block, 108));
        for group in 0..16 {
            let (upper, pair, side) = (group / 8, group % 8 / 2, group % 2);
            let quants = part::<16>(block, 32 + 32 * upper + 16 * side);
            let third = part::<16>(block, 16 * side);
            let low = if group < 8 { packed[group] & 15 } else { packed[group - 8] >> 4 };
            let high = packed[8 + group % 4] >> (2 * (group / 4)) & 3;
            let scale = d * (i32::from(low | high << 4) - 32) as f32;
            let out = part_mut::<16>(out, 16 * group);
            for i in 0..16 {
                let set = i32::from(third[i] >> (4 * upper + pair) & 1);
                out[i] = scale * (i32::from(quants[i] >> (2 * pair) & 3) + 4 * set - 4) as f32;
            }
        }
    }
}

/// Scale j and minimum j of the twelve bytes of Q4_K and Q5_K, six bits each.
#[inline(always)]
fn scale_min(packed: &[u8; 12], j: usize) -> (u8, u8) {
    if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        (packed[j + 4] & 15 | packed[j - 4] >> 6 << 4, packed[j + 4] >> 4 | packed[j] >> 6 << 4)
    }
}

/// Scale, minimum, 12 bytes of scales and minima, 128 bytes: of each 32, the low halves are 32 elements, the high halves
/// the next 32.
impl Block for Q4K {
    const LEN: usize = 256;
    const BYTES: usize = 144;

    #[inline(always)]
    fn decode(block: &[u8], out: &mut [f32]) {
        let (d, min, packed) = (half(block, 0), half(block, 2), part::<12>(block, 4));
        for group in 0..8 {
            let quants = part::<32>(block, 16 + 32 * (group / 2));
            let (scale, offset) = scale_min(packed, group);
            let (scale, offset) = (d * f32::from(scale), min * f32::from(offset));
            let out = part_mut::<32>(out, 32 * group);
            for i in 0..32 {
                out[i] = scale * f32::from(quants[i] >> (4 * (group % 2)) & 15) - offset;
            }
        }
    }
}

/// As Q4_K, with 32 bytes of fifth bits before the 128: bit g of byte i is element i's of group g.
impl Block for Q5K {
    const LEN: usize = 256;
    const BYTES: usize = 176;

    #[inline(always)]
    fn decode(block: &[u8], out: &mut [f32]) {
        let (d, min, packed) = (half(block, 0), half(block, 2), part::<12>(block, 4));
        let fifth = part::<32>(block, 16);
        for group in 0..8 {
            let quants = part::<32>(block, 48 + 32 * (group / 2));
            let (scale, offset) = scale_min(packed, group);
            let (scale, offset) = (d * f32::from(scale), min * f32::from(offset));
            let out = part_mut::<32>(out, 32 * group);
            for i in 0..32 {
                let value = quants[i] >> (4 * (group % 2)) & 15 | (fifth[i] >> group & 1) << 4;
                out[i] = scale * f32::from(value) - offset;
            }
        }
    }
}

/// 128 bytes of low halves, 64 bytes of upper two bits, 16 signed scales, scale. Minus 32.
///
/// Of 128 elements: those below 64 are the low halves of 64 bytes, the others the high halves; upper bits as in Q2_K.
impl Block for Q6K {
    const LEN: usize = 256;
    const BYTES: usize = 210;

    #[inline(always)]
    fn decode(block: &[u8], out: &mut [f32]) {
        let (scales, d) = (part::<16>(block, 192), half(block, 208));
        for (group, &scale) in scales.iter().enumerate() {
            let (upper, pair, side) = (group / 8, group % 8 / 2, group % 2);
            let low = part::<16>(block, 64 * upper + 32 * (pair % 2) + 16 * side);
            let high = part::<16>(block, 128 + 32 * upper + 16 * side);
            let scale = d * f32::from(scale as i8);
            let out = part_mut::<16>(out, 16 * group);
            for i in 0..16 {
                let value = low[i] >> (4 * (pair / 2)) & 15 | (high[i] >> (2 * pair) & 3) << 4;
                out[i] = scale * (i32::from(value) - 32) as f32;
            }
        }
    }
}

/// Scale, upper two bits of 8 scales, their lower halves, 128 bytes as 8 of IQ4_NL's. Scales minus 32.
impl Block for Iq4Xs {
    const LEN: usize = 256;
    const BYTES: usize = 136;

    #[inline(always)]
    fn decode(block: &[u8], out: &mut [f32]) {
        let (d, high, low) = (half(block, 0), u16::from_le_bytes(*part(block, 2)), part::<4>(block, 4));
        for group in 0..8 {
            let scale = low[group / 2] >> (4 * (group % 2)) & 15 | ((high >> (2 * group) & 3) as u8) << 4;
            let d = d * (i32::from(scale) - 32) as f32;
            from_table(d, part(block, 8 + 16 * group), part_mut(out, 32 * group));
        }
    }
}
