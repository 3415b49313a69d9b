//! Q4_0: blocks of 32 quants of 4 bits, with one scale.
//!
//! Scale, 16 bytes as in [`nibbles`]. Value: `scale * (quant - 8)`.

use super::block::{Block, half, part, part_mut};
use super::fit::{inverse, level};
use super::nibbles;
use crate::cpu::quants::{self, Field, IntSimd, QuantBlock, field};
#[cfg(feature = "gpu")]
use crate::gpu::planes::{self, Planar};
use half::f16;
#[cfg(feature = "gpu")]
use phi3_shaders::Format;

pub(crate) struct Q4_0;

impl Block for Q4_0 {
    const NAME: &'static str = "q4_0";
    const GGML_ID: u32 = 2;
    const FILE_TYPE: u32 = 2;
    const LEN: usize = 32;
    const BYTES: usize = 18;
    const HALVES: &'static [usize] = &[0];

    #[inline(always)]
    fn decode(block: &[u8], out: &mut [f32]) {
        let (d, quants) = (half(block, 0), part::<16>(block, 2));
        nibbles::decode::<0>(quants, -8, d, 0.0, part_mut(out, 0));
        nibbles::decode::<4>(quants, -8, d, 0.0, part_mut(out, 16));
    }

    fn encode(x: &[f32], out: &mut Vec<u8>) {
        // as ggml's `quantize_row_q4_0_ref`
        let (d, quants) = nibbles::symmetric(x, 8);
        out.extend(f16::from_f32(d).to_le_bytes());
        nibbles::encode(&quants, out);
    }
}

// SAFETY: the fields cover a block; reads are of these fields, at the widths of their items.
unsafe impl QuantBlock for Q4_0 {
    const FIELDS: &'static [Field] = &[Field::Half(0), Field::Words(2, 4)];
    const LARGEST: i32 = 15;
    const ZERO_POINT: i32 = 8;

    #[inline(always)]
    unsafe fn quants<L: IntSimd>(block: *const u8, part: usize, _sub: usize) -> [L::I; 8] {
        // SAFETY: the caller guarantees the contract of the trait.
        unsafe { quants::nibbles::<L>(field::<L>(block, Self::FIELDS, 1, part, 4)) }
    }
}

#[cfg(feature = "gpu")]
impl Planar for Q4_0 {
    const FORMAT: Format = Format::Q4_0;
    const SCALES: usize = 2;

    fn pack(block: &[u8], at: usize, quants: &mut [u8], scales: &mut [u8]) {
        planes::nibbles(block, 2, quants, 4 * at);
        planes::put(scales, 2 * at, &block[..2]);
    }
}

/// Appends a block by ONNX Runtime's rule: of two extremes of equal magnitude the negative one gives the scale, and the stored
/// scale gives the quants.
pub(super) fn encode_int4_rtn(x: &[f32], out: &mut Vec<u8>) {
    let low = x.iter().copied().fold(0.0f32, f32::min);
    let high = x.iter().copied().fold(0.0f32, f32::max);
    let d = f16::from_f32(if high > -low { high } else { low } / -8.0);
    let inverse = inverse(d.to_f32());
    let quants: Vec<u8> = x.iter().map(|v| level(v * inverse + 8.0, 0, 15) as u8).collect();
    out.extend(d.to_le_bytes());
    nibbles::encode(&quants, out);
}
