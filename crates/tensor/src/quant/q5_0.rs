//! Q5_0: blocks of 32 quants of 5 bits, with one scale.
//!
//! Scale, 32 fifth bits, 16 bytes as in [`nibbles`]. Value: `scale * (quant - 16)`.

use super::block::{Block, half, part, part_mut};
use super::nibbles;
use crate::cpu::quants::{self, Field, IntSimd, QuantBlock, field};
#[cfg(feature = "gpu")]
use crate::gpu::planes::{self, Planar};
use half::f16;
#[cfg(feature = "gpu")]
use phi3_shaders::Format;

pub(crate) struct Q5_0;

impl Block for Q5_0 {
    const NAME: &'static str = "q5_0";
    const GGML_ID: u32 = 6;
    const FILE_TYPE: u32 = 8;
    const LEN: usize = 32;
    const BYTES: usize = 22;
    const HALVES: &'static [usize] = &[0];

    #[inline(always)]
    fn decode(block: &[u8], out: &mut [f32]) {
        let (d, high, quants) = (half(block, 0), u32::from_le_bytes(*part(block, 2)), part::<16>(block, 6));
        let out = part_mut::<32>(out, 0);
        for i in 0..16 {
            let (low_bit, high_bit) = nibbles::fifth(high, i);
            out[i] = d * ((u32::from(quants[i] & 15) | low_bit) as i32 - 16) as f32;
            out[i + 16] = d * ((u32::from(quants[i] >> 4) | high_bit) as i32 - 16) as f32;
        }
    }

    fn encode(x: &[f32], out: &mut Vec<u8>) {
        // as ggml's `quantize_row_q5_0_ref`
        let (d, quants) = nibbles::symmetric(x, 16);
        out.extend(f16::from_f32(d).to_le_bytes());
        out.extend(nibbles::fifth_bits(&quants));
        nibbles::encode(&quants, out);
    }
}

// SAFETY: the fields cover a block; reads are of these fields, at the widths of their items.
unsafe impl QuantBlock for Q5_0 {
    const FIELDS: &'static [Field] = &[Field::Half(0), Field::Bits(2), Field::Words(6, 4)];
    const LARGEST: i32 = 31;
    const ZERO_POINT: i32 = 16;

    #[inline(always)]
    unsafe fn quants<L: IntSimd>(block: *const u8, part: usize, _sub: usize) -> [L::I; 8] {
        // SAFETY: the caller guarantees the contract of the trait.
        unsafe {
            let low = quants::nibbles::<L>(field::<L>(block, Self::FIELDS, 2, part, 4));
            quants::fifths::<L>(low, field::<L>(block, Self::FIELDS, 1, part, 4))
        }
    }
}

#[cfg(feature = "gpu")]
impl Planar for Q5_0 {
    const FORMAT: Format = Format::Q5_0;
    const SCALES: usize = 2;

    fn pack(block: &[u8], at: usize, quants: &mut [u8], scales: &mut [u8]) {
        planes::five_bits(block, 2, at, quants);
        planes::put(scales, 2 * at, &block[..2]);
    }
}
