//! Q4_K: blocks of 256 quants of 4 bits, with 8 scales and minima of 6 bits.
//!
//! Scale, minimum, 12 bytes of scales and minima ([`k::scale_min`]), 128 bytes of quants. Of each 32 bytes the low halves are 32
//! quants, the high halves the next 32. Value: `scale * scales[group] * quant - minimum * minima[group]`.

use super::block::{Block, half, part, part_mut};
use super::k::{self, Affine};
use super::nibbles;
use crate::cpu::quants::{self, Field, IntSimd, PANEL, QuantBlock, field};
#[cfg(feature = "gpu")]
use crate::gpu::planes::{Planar, four_bits, put_word, scales_and_minima};
#[cfg(feature = "gpu")]
use phi3_shaders::Format;

pub(crate) struct Q4K;

impl Block for Q4K {
    const NAME: &'static str = "q4_k";
    const GGML_ID: u32 = 12;
    const FILE_TYPE: u32 = 14;
    const LEN: usize = 256;
    const BYTES: usize = 144;
    const HALVES: &'static [usize] = &[0, 2];

    #[inline(always)]
    fn decode(block: &[u8], out: &mut [f32]) {
        let (d, min, packed) = (half(block, 0), half(block, 2), part::<12>(block, 4));
        for group in 0..8 {
            let quants = part::<32>(block, 16 + 32 * (group / 2));
            let (scale, offset) = k::scale_min(packed, group);
            let (scale, offset) = (d * f32::from(scale), min * f32::from(offset));
            let out = part_mut::<32>(out, 32 * group);
            for i in 0..32 {
                out[i] = scale * f32::from(quants[i] >> (4 * (group % 2)) & 15) - offset;
            }
        }
    }

    fn encode(x: &[f32], out: &mut Vec<u8>) {
        let Affine { d, min, scales, mins, quants } = k::affine(x, 32, 15, 63);
        out.extend(d.to_le_bytes());
        out.extend(min.to_le_bytes());
        out.extend(k::packed(&scales, &mins));
        quants.chunks_exact(64).for_each(|quants| nibbles::encode(quants, out));
    }
}

// SAFETY: the fields cover a block; reads are of these fields, at the widths of their items.
unsafe impl QuantBlock for Q4K {
    const FIELDS: &'static [Field] = &[Field::Half(0), Field::Half(2), Field::Bytes(4, 12), Field::Words(16, 32)];
    const LARGEST: i32 = 15;
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
            let words = field::<L>(block, Self::FIELDS, 3, part, 4).add(4 * PANEL * 8 * (sub / 2));
            quants::bits::<L>(words, 4 * (sub % 2), 15)
        }
    }

    #[inline(always)]
    unsafe fn scale<L: IntSimd>(head: [L::F; 2], block: *const u8, part: usize, sub: usize, _half: usize) -> [L::F; 2] {
        // SAFETY: the caller guarantees the contract of the trait; a sub-block's bytes are inside their field.
        unsafe { quants::scale_min::<L>(head, field::<L>(block, Self::FIELDS, 2, part, 1), sub) }
    }
}

#[cfg(feature = "gpu")]
impl Planar for Q4K {
    const FORMAT: Format = Format::Q4K;
    const SCALES: usize = 16;

    fn pack(block: &[u8], at: usize, quants: &mut [u8], scales: &mut [u8]) {
        for group in 0..32 {
            put_word(quants, 32 * at + group, four_bits(block, 16, group));
        }
        scales_and_minima(block, at, scales);
    }
}
