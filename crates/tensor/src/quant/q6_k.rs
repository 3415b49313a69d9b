//! Q6_K: blocks of 256 quants of 6 bits, with 16 scales of 8 bits.
//!
//! 128 bytes of lower four bits, 64 bytes of upper two bits, 16 signed scales, scale. Of 128 quants the lower bits of those below
//! 64 are the low halves of 64 bytes, of the others the high halves; upper bits are ordered as in Q2_K.
//! Value: `scale * scales[group] * (quant - 32)`.

use super::block::{Block, half, part, part_mut};
use super::k;
use crate::cpu::quants::{self, Field, IntSimd, PANEL, QuantBlock, field};
#[cfg(feature = "gpu")]
use crate::gpu::planes::{Planar, gather, put, put_half, put_word, two_bits};
#[cfg(feature = "gpu")]
use phi3_shaders::Format;

pub(crate) struct Q6K;

impl Block for Q6K {
    const NAME: &'static str = "q6_k";
    const GGML_ID: u32 = 14;
    const FILE_TYPE: u32 = 18;
    const LEN: usize = 256;
    const BYTES: usize = 210;
    const HALVES: &'static [usize] = &[208];

    #[inline(always)]
    fn decode(block: &[u8], out: &mut [f32]) {
        let (scales, d) = (part::<16>(block, 192), half(block, 208));
        for upper in 0..2 {
            for side in 0..2 {
                let low = part::<16>(block, 64 * upper + 16 * side);
                let next = part::<16>(block, 64 * upper + 32 + 16 * side);
                let high = part::<16>(block, 128 + 32 * upper + 16 * side);
                let scale = |pair: usize| d * f32::from(scales[8 * upper + 2 * pair + side] as i8);
                let at = 128 * upper + 16 * side;
                six_bits::<0, 0>(low, high, scale(0), part_mut(out, at));
                six_bits::<0, 2>(next, high, scale(1), part_mut(out, at + 32));
                six_bits::<4, 4>(low, high, scale(2), part_mut(out, at + 64));
                six_bits::<4, 6>(next, high, scale(3), part_mut(out, at + 96));
            }
        }
    }

    fn encode(x: &[f32], out: &mut Vec<u8>) {
        let (d, scales, quants) = k::symmetric(x, 32, 128);
        let mut low = [0u8; 128];
        let mut high = [0u8; 64];
        for (i, quant) in quants.iter().enumerate() {
            let (upper, rest) = (i / 128, i % 128);
            low[64 * upper + rest % 64] |= (quant & 15) << (rest / 64 * 4);
            high[32 * upper + rest % 32] |= (quant >> 4) << (rest / 32 * 2);
        }
        out.extend(low.iter().chain(&high));
        out.extend(scales.iter().map(|&s| s as i8 as u8));
        out.extend(d.to_le_bytes());
    }
}

// SAFETY: the fields cover a block; reads are of these fields, at the widths of their items.
unsafe impl QuantBlock for Q6K {
    const FIELDS: &'static [Field] =
        &[Field::Half(208), Field::Bytes(192, 16), Field::Words(0, 32), Field::Words(128, 16)];
    const LARGEST: i32 = 63;
    const ZERO_POINT: i32 = 32;
    const SIXTEENS: bool = true;

    #[inline(always)]
    unsafe fn quants<L: IntSimd>(block: *const u8, part: usize, sub: usize) -> [L::I; 8] {
        // SAFETY: the caller guarantees the contract of the trait; a sub-block's words are inside their fields.
        unsafe {
            let (upper, pair) = (sub / 4, sub % 4);
            let low = field::<L>(block, Self::FIELDS, 2, part, 4).add(4 * PANEL * (16 * upper + 8 * (pair % 2)));
            let high = field::<L>(block, Self::FIELDS, 3, part, 4).add(4 * PANEL * 8 * upper);
            let low = quants::bits::<L>(low, 4 * (pair / 2), 15);
            quants::above::<L>(low, quants::bits::<L>(high, 2 * pair, 3), 4)
        }
    }

    #[inline(always)]
    unsafe fn scale<L: IntSimd>(head: [L::F; 2], block: *const u8, part: usize, sub: usize, half: usize) -> [L::F; 2] {
        // SAFETY: the caller guarantees the contract of the trait; a sub-block's bytes are inside their field.
        unsafe {
            let scales = field::<L>(block, Self::FIELDS, 1, part, 1);
            [L::mul(head[0], L::to_f32(L::signed_bytes(scales.add(PANEL * (2 * sub + half))))), head[1]]
        }
    }
}

#[cfg(feature = "gpu")]
impl Planar for Q6K {
    const FORMAT: Format = Format::Q6K;
    const SCALES: usize = 18;

    fn pack(block: &[u8], at: usize, quants: &mut [u8], scales: &mut [u8]) {
        for group in 0..32 {
            let start = 48 * at + group / 8 * 12;
            // of each 64 bytes the low halves are 64 quants
            let low = gather::<4>(block, group / 16 * 64 + group % 8 * 8, group % 16 / 8 * 4);
            put_word(quants, start + group % 8, low);
            put_half(quants, 2 * (start + 8) + group % 8, two_bits(block, 128, group));
        }
        let pair = 36 * (at / 2);
        put(scales, pair + at % 2 * 16, &block[192..208]);
        put(scales, pair + 32 + at % 2 * 2, &block[208..210]);
    }
}

/// Sixteen values, whose lower bits start at LOW and whose upper bits start at HIGH.
#[inline(always)]
fn six_bits<const LOW: u32, const HIGH: u32>(low: &[u8; 16], high: &[u8; 16], scale: f32, out: &mut [f32; 16]) {
    for i in 0..16 {
        let value = i32::from(low[i]) >> LOW & 15 | (i32::from(high[i]) >> HIGH & 3) << 4;
        out[i] = scale * (value - 32) as f32;
    }
}
