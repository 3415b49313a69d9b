//! Q2_K: blocks of 256 quants of 2 bits, with 16 scales and minima of 4 bits.
//!
//! 16 bytes of scale and minimum, 64 bytes of quants, scale, minimum. Byte b of each 32 holds quants b, b + 32, b + 64 and
//! b + 96 of 128. Value: `scale * scales[group] * quant - minimum * minima[group]`.

use super::block::{Block, half, part, part_mut};
use super::k::{self, Affine};
use crate::cpu::quants::{self, Field, IntSimd, PANEL, QuantBlock, byte, field};
#[cfg(feature = "gpu")]
use crate::gpu::planes::{Planar, put, put_half, two_bits};
#[cfg(feature = "gpu")]
use phi3_shaders::Format;

pub(crate) struct Q2K;

impl Block for Q2K {
    const NAME: &'static str = "q2_k";
    const GGML_ID: u32 = 10;
    const FILE_TYPE: u32 = 10;
    const LEN: usize = 256;
    const BYTES: usize = 84;
    const HALVES: &'static [usize] = &[80, 82];

    #[inline(always)]
    fn decode(block: &[u8], out: &mut [f32]) {
        let (scales, d, min) = (part::<16>(block, 0), half(block, 80), half(block, 82));
        for (group, packed) in scales.iter().enumerate() {
            let (upper, pair, side) = (group / 8, group % 8 / 2, group % 2);
            let quants = part::<16>(block, 16 + 32 * upper + 16 * side);
            let (scale, offset) = (d * f32::from(packed & 15), min * f32::from(packed >> 4));
            let out = part_mut::<16>(out, 16 * group);
            for i in 0..16 {
                out[i] = scale * (i32::from(quants[i]) >> (2 * pair) & 3) as f32 - offset;
            }
        }
    }

    fn encode(x: &[f32], out: &mut Vec<u8>) {
        let Affine { d, min, scales, mins, quants } = k::affine(x, 16, 3, 15);
        out.extend(scales.iter().zip(&mins).map(|(scale, min)| scale | min << 4));
        let mut low = [0u8; 64];
        for (i, quant) in quants.iter().enumerate() {
            low[i / 128 * 32 + i % 32] |= quant << (i % 128 / 32 * 2);
        }
        out.extend(low);
        out.extend(d.to_le_bytes());
        out.extend(min.to_le_bytes());
    }
}

// SAFETY: the fields cover a block; reads are of these fields, at the widths of their items.
unsafe impl QuantBlock for Q2K {
    const FIELDS: &'static [Field] = &[Field::Half(80), Field::Half(82), Field::Bytes(0, 16), Field::Words(16, 16)];
    const LARGEST: i32 = 3;
    const SIXTEENS: bool = true;
    const MINIMA: bool = true;

    #[inline(always)]
    unsafe fn head<L: IntSimd>(block: *const u8, part: usize) -> [L::F; 2] {
        // SAFETY: fields 0 and 1 are the halves.
        unsafe { quants::halves_negative::<L>(block, part) }
    }

    #[inline(always)]
    unsafe fn quants<L: IntSimd>(block: *const u8, part: usize, sub: usize) -> [L::I; 8] {
        // SAFETY: the caller guarantees the contract of the trait; a sub-block's words are inside their fields.
        unsafe {
            let words = field::<L>(block, Self::FIELDS, 3, part, 4).add(4 * PANEL * 8 * (sub / 4));
            quants::bits::<L>(words, 2 * (sub % 4), 3)
        }
    }

    #[inline(always)]
    unsafe fn scale<L: IntSimd>(head: [L::F; 2], block: *const u8, part: usize, sub: usize, half: usize) -> [L::F; 2] {
        // SAFETY: the caller guarantees the contract of the trait; a sub-block's bytes are inside their field.
        unsafe {
            let packed = byte::<L>(field::<L>(block, Self::FIELDS, 2, part, 1), 2 * sub + half);
            let (scale, min) = (L::and(packed, 15), L::and(L::shr(packed, 4), 15));
            [L::mul(head[0], L::to_f32(scale)), L::mul(head[1], L::to_f32(min))]
        }
    }
}

#[cfg(feature = "gpu")]
impl Planar for Q2K {
    const FORMAT: Format = Format::Q2K;
    const SCALES: usize = 20;

    fn pack(block: &[u8], at: usize, quants: &mut [u8], scales: &mut [u8]) {
        for group in 0..32 {
            put_half(quants, 32 * at + group, two_bits(block, 16, group));
        }
        put(scales, 20 * at, &block[80..84]);
        put(scales, 20 * at + 4, &block[..16]);
    }
}
