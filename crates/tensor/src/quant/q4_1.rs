//! Q4_1: blocks of 32 quants of 4 bits, with a scale and a minimum.
//!
//! Scale, minimum, 16 bytes as in [`nibbles`]. Value: `scale * quant + minimum`.

use super::block::{Block, half, part, part_mut};
use super::nibbles;
use crate::cpu::quants::{self, Field, IntSimd, QuantBlock, field};
#[cfg(feature = "gpu")]
use crate::gpu::planes::{self, Planar};
use half::f16;
#[cfg(feature = "gpu")]
use phi3_shaders::Format;

pub(crate) struct Q4_1;

impl Block for Q4_1 {
    const NAME: &'static str = "q4_1";
    const GGML_ID: u32 = 3;
    const FILE_TYPE: u32 = 3;
    const LEN: usize = 32;
    const BYTES: usize = 20;
    const HALVES: &'static [usize] = &[0, 2];

    #[inline(always)]
    fn decode(block: &[u8], out: &mut [f32]) {
        let (d, m, quants) = (half(block, 0), half(block, 2), part::<16>(block, 4));
        nibbles::decode::<0>(quants, 0, d, m, part_mut(out, 0));
        nibbles::decode::<4>(quants, 0, d, m, part_mut(out, 16));
    }

    fn encode(x: &[f32], out: &mut Vec<u8>) {
        // as ggml's `quantize_row_q4_1_ref`
        let (d, low, quants) = nibbles::affine(x, 15);
        out.extend(f16::from_f32(d).to_le_bytes());
        out.extend(f16::from_f32(low).to_le_bytes());
        nibbles::encode(&quants, out);
    }
}

// SAFETY: the fields cover a block; reads are of these fields, at the widths of their items.
unsafe impl QuantBlock for Q4_1 {
    const FIELDS: &'static [Field] = &[Field::Half(0), Field::Half(2), Field::Words(4, 4)];
    const LARGEST: i32 = 15;
    const MINIMA: bool = true;

    #[inline(always)]
    unsafe fn quants<L: IntSimd>(block: *const u8, part: usize, _sub: usize) -> [L::I; 8] {
        // SAFETY: the caller guarantees the contract of the trait.
        unsafe { quants::nibbles::<L>(field::<L>(block, Self::FIELDS, 2, part, 4)) }
    }
}

#[cfg(feature = "gpu")]
impl Planar for Q4_1 {
    const FORMAT: Format = Format::Q4_1;
    const SCALES: usize = 4;

    fn pack(block: &[u8], at: usize, quants: &mut [u8], scales: &mut [u8]) {
        planes::nibbles(block, 4, quants, 4 * at);
        planes::put(scales, 4 * at, &block[..4]);
    }
}
