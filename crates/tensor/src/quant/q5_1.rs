//! Q5_1: blocks of 32 quants of 5 bits, with a scale and a minimum.
//!
//! Scale, minimum, 32 fifth bits, 16 bytes as in [`nibbles`]. Value: `scale * quant + minimum`.

use super::block::{Block, half, part, part_mut};
use super::nibbles;
use crate::cpu::quants::{self, Field, IntSimd, QuantBlock, field};
#[cfg(feature = "gpu")]
use crate::gpu::planes::{self, Planar};
use half::f16;
#[cfg(feature = "gpu")]
use phi3_shaders::Format;

pub(crate) struct Q5_1;

impl Block for Q5_1 {
    const NAME: &'static str = "q5_1";
    const GGML_ID: u32 = 7;
    const FILE_TYPE: u32 = 9;
    const LEN: usize = 32;
    const BYTES: usize = 24;
    const HALVES: &'static [usize] = &[0, 2];

    #[inline(always)]
    fn decode(block: &[u8], out: &mut [f32]) {
        let (d, m) = (half(block, 0), half(block, 2));
        let (high, quants) = (u32::from_le_bytes(*part(block, 4)), part::<16>(block, 8));
        let out = part_mut::<32>(out, 0);
        for i in 0..16 {
            let (low_bit, high_bit) = nibbles::fifth(high, i);
            out[i] = d * (u32::from(quants[i] & 15) | low_bit) as f32 + m;
            out[i + 16] = d * (u32::from(quants[i] >> 4) | high_bit) as f32 + m;
        }
    }

    fn encode(x: &[f32], out: &mut Vec<u8>) {
        // as ggml's `quantize_row_q5_1_ref`
        let (d, low, quants) = nibbles::affine(x, 31);
        out.extend(f16::from_f32(d).to_le_bytes());
        out.extend(f16::from_f32(low).to_le_bytes());
        out.extend(nibbles::fifth_bits(&quants));
        nibbles::encode(&quants, out);
    }
}

// SAFETY: the fields cover a block; reads are of these fields, at the widths of their items.
unsafe impl QuantBlock for Q5_1 {
    const FIELDS: &'static [Field] = &[Field::Half(0), Field::Half(2), Field::Bits(4), Field::Words(8, 4)];
    const LARGEST: i32 = 31;
    const MINIMA: bool = true;

    #[inline(always)]
    unsafe fn quants<L: IntSimd>(block: *const u8, part: usize, _sub: usize) -> [L::I; 8] {
        // SAFETY: the caller guarantees the contract of the trait.
        unsafe {
            let low = quants::nibbles::<L>(field::<L>(block, Self::FIELDS, 3, part, 4));
            quants::fifths::<L>(low, field::<L>(block, Self::FIELDS, 2, part, 4))
        }
    }
}

#[cfg(feature = "gpu")]
impl Planar for Q5_1 {
    const FORMAT: Format = Format::Q5_1;
    const SCALES: usize = 4;

    fn pack(block: &[u8], at: usize, quants: &mut [u8], scales: &mut [u8]) {
        planes::five_bits(block, 4, at, quants);
        planes::put(scales, 4 * at, &block[..4]);
    }
}
