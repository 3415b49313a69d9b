//! Q3_K: blocks of 256 quants of 3 bits, with 16 scales of 6 bits.
//!
//! 32 bytes of third bits, 64 bytes of lower two bits as in Q2_K, 12 bytes of scales, scale.
//! Value: `scale * (scales[group] - 32) * (quant - 4)`.

use super::block::{Block, half, part, part_mut};
use super::k;
use crate::cpu::quants::{self, Field, IntSimd, PANEL, QuantBlock, byte, field};
#[cfg(feature = "gpu")]
use crate::gpu::planes::{Planar, gather, one_bit, put, put_half, put_word, two_bits};
#[cfg(feature = "gpu")]
use phi3_shaders::Format;

pub(crate) struct Q3K;

impl Block for Q3K {
    const NAME: &'static str = "q3_k";
    const GGML_ID: u32 = 11;
    const FILE_TYPE: u32 = 11;
    const LEN: usize = 256;
    const BYTES: usize = 110;
    const HALVES: &'static [usize] = &[108];

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
                let set = i32::from(third[i]) >> (4 * upper + pair) & 1;
                out[i] = scale * ((i32::from(quants[i]) >> (2 * pair) & 3) + 4 * set - 4) as f32;
            }
        }
    }

    fn encode(x: &[f32], out: &mut Vec<u8>) {
        let (d, scales, quants) = k::symmetric(x, 4, 32);
        let mut third = [0u8; 32];
        let mut low = [0u8; 64];
        for (i, quant) in quants.iter().enumerate() {
            third[i % 32] |= (quant >> 2) << (i / 32);
            low[i / 128 * 32 + i % 32] |= (quant & 3) << (i % 128 / 32 * 2);
        }
        let mut packed = [0u8; 12];
        for (group, scale) in scales.iter().enumerate() {
            let code = (scale + 32) as u8;
            packed[group % 8] |= (code & 15) << (group / 8 * 4);
            packed[8 + group % 4] |= (code >> 4) << (group / 4 * 2);
        }
        out.extend(third.iter().chain(&low).chain(&packed).chain(&d.to_le_bytes()));
    }
}

// SAFETY: the fields cover a block; reads are of these fields, at the widths of their items.
unsafe impl QuantBlock for Q3K {
    const FIELDS: &'static [Field] =
        &[Field::Half(108), Field::Bytes(96, 12), Field::Words(0, 8), Field::Words(32, 16)];
    const LARGEST: i32 = 7;
    const ZERO_POINT: i32 = 4;
    const SIXTEENS: bool = true;

    #[inline(always)]
    unsafe fn quants<L: IntSimd>(block: *const u8, part: usize, sub: usize) -> [L::I; 8] {
        // SAFETY: the caller guarantees the contract of the trait; a sub-block's words are inside their fields.
        unsafe {
            let words = field::<L>(block, Self::FIELDS, 3, part, 4).add(4 * PANEL * 8 * (sub / 4));
            let third = quants::bits::<L>(field::<L>(block, Self::FIELDS, 2, part, 4), sub, 1);
            quants::above::<L>(quants::bits::<L>(words, 2 * (sub % 4), 3), third, 2)
        }
    }

    #[inline(always)]
    unsafe fn scale<L: IntSimd>(head: [L::F; 2], block: *const u8, part: usize, sub: usize, half: usize) -> [L::F; 2] {
        // SAFETY: the caller guarantees the contract of the trait; a sub-block's bytes are inside their field.
        unsafe {
            let (packed, group) = (field::<L>(block, Self::FIELDS, 1, part, 1), 2 * sub + half);
            let low = L::and(L::shr(byte::<L>(packed, group % 8), 4 * (group / 8)), 15);
            let high = L::and(L::shr(byte::<L>(packed, 8 + group % 4), 2 * (group / 4)), 3);
            let scale = L::add(L::or(low, L::shl(high, 4)), L::splat(-32));
            [L::mul(head[0], L::to_f32(scale)), head[1]]
        }
    }
}

#[cfg(feature = "gpu")]
impl Planar for Q3K {
    const FORMAT: Format = Format::Q3K;
    const SCALES: usize = 14;

    fn pack(block: &[u8], at: usize, quants: &mut [u8], scales: &mut [u8]) {
        for group in 0..32 {
            let start = 96 * at + group / 16 * 48;
            put_half(quants, start / 2 + group % 16, two_bits(block, 32, group));
            put(quants, start + 32 + group % 16, &[one_bit(block, 0, group)]);
        }
        let (pair, codes) = (28 * (at / 2), &block[96..108]);
        let high = [0, 2, 4, 6].map(|shift| (0..4).fold(0, |byte, i| byte | (codes[8 + i] >> shift & 3) << (2 * i)));
        let word = pair / 4 + at % 2 * 3;
        put_word(scales, word, gather::<4>(codes, 0, 0));
        put_word(scales, word + 1, gather::<4>(codes, 0, 4));
        put(scales, 4 * (word + 2), &high);
        put(scales, pair + 24 + at % 2 * 2, &block[108..110]);
    }
}
