//! Q8_0: blocks of 32 quants of 8 bits, with one scale.
//!
//! Scale, 32 signed bytes. Value: `scale * quant`.

use super::block::{Block, half, part, part_mut};
use super::fit::extreme;
use crate::cpu::quants::{Field, IntSimd, QuantBlock, field, word};
#[cfg(feature = "gpu")]
use crate::gpu::planes::{Planar, put};
use half::f16;
#[cfg(feature = "gpu")]
use phi3_shaders::Format;

pub(crate) struct Q8_0;

impl Block for Q8_0 {
    const NAME: &'static str = "q8_0";
    const GGML_ID: u32 = 8;
    const FILE_TYPE: u32 = 7;
    const LEN: usize = 32;
    const BYTES: usize = 34;
    const HALVES: &'static [usize] = &[0];

    #[inline(always)]
    fn decode(block: &[u8], out: &mut [f32]) {
        let (d, quants) = (half(block, 0), part::<32>(block, 2));
        let out = part_mut::<32>(out, 0);
        for i in 0..32 {
            out[i] = d * f32::from(quants[i] as i8);
        }
    }

    fn encode(x: &[f32], out: &mut Vec<u8>) {
        // as ggml's `quantize_row_q8_0_ref`
        let d = extreme(x).abs() / 127.0;
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        out.extend(f16::from_f32(d).to_le_bytes());
        out.extend(x.iter().map(|v| (v * inverse).round() as i8 as u8));
    }
}

// SAFETY: the fields cover a block; reads are of these fields, at the widths of their items.
unsafe impl QuantBlock for Q8_0 {
    const FIELDS: &'static [Field] = &[Field::Half(0), Field::Words(2, 8)];
    const SIGNED: bool = true;

    #[inline(always)]
    unsafe fn quants<L: IntSimd>(block: *const u8, part: usize, _sub: usize) -> [L::I; 8] {
        // SAFETY: the caller guarantees the contract of the trait.
        unsafe {
            let words = field::<L>(block, Self::FIELDS, 1, part, 4);
            let mut out = [L::splat(0); 8];
            for (j, out) in out.iter_mut().enumerate() {
                *out = L::biased(word::<L>(words, j));
            }
            out
        }
    }
}

#[cfg(feature = "gpu")]
impl Planar for Q8_0 {
    const FORMAT: Format = Format::Q8_0;
    const SCALES: usize = 2;

    fn pack(block: &[u8], at: usize, quants: &mut [u8], scales: &mut [u8]) {
        put(quants, 32 * at, &block[2..34]);
        put(scales, 2 * at, &block[..2]);
    }
}
