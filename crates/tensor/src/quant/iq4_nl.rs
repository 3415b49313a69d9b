//! IQ4_NL: blocks of 32 indices of 4 bits into a table, with one scale.
//!
//! Scale, 16 bytes as in [`nibbles`]. Value: `scale * table[quant]`.

use super::block::{Block, half, part, part_mut};
use super::fit::inverse;
use super::{iq4, nibbles};
use crate::cpu::quants::{self, Field, IntSimd, QuantBlock, field};
#[cfg(feature = "gpu")]
use crate::gpu::planes::{self, Planar};
use half::f16;
#[cfg(feature = "gpu")]
use phi3_shaders::Format;

pub(crate) struct Iq4Nl;

impl Block for Iq4Nl {
    const NAME: &'static str = "iq4_nl";
    const GGML_ID: u32 = 20;
    const FILE_TYPE: u32 = 25;
    const LEN: usize = 32;
    const BYTES: usize = 18;
    const HALVES: &'static [usize] = &[0];

    #[inline(always)]
    fn decode(block: &[u8], out: &mut [f32]) {
        iq4::decode(half(block, 0), part(block, 2), part_mut(out, 0));
    }

    fn encode(x: &[f32], out: &mut Vec<u8>) {
        let d = f16::from_f32(iq4::fitted_scale(x));
        let inverse = inverse(d.to_f32());
        let quants: Vec<u8> = x.iter().map(|v| iq4::nearest(v * inverse)).collect();
        out.extend(d.to_le_bytes());
        nibbles::encode(&quants, out);
    }
}

// SAFETY: the fields cover a block; reads are of these fields, at the widths of their items.
unsafe impl QuantBlock for Iq4Nl {
    const FIELDS: &'static [Field] = &[Field::Half(0), Field::Words(2, 4)];
    const SIGNED: bool = true;

    #[inline(always)]
    unsafe fn quants<L: IntSimd>(block: *const u8, part: usize, _sub: usize) -> [L::I; 8] {
        // SAFETY: the caller guarantees the contract of the trait.
        unsafe { iq4::lookup::<L>(quants::nibbles::<L>(field::<L>(block, Self::FIELDS, 1, part, 4))) }
    }
}

#[cfg(feature = "gpu")]
impl Planar for Iq4Nl {
    const FORMAT: Format = Format::Iq4Nl;
    const SCALES: usize = 2;

    fn pack(block: &[u8], at: usize, quants: &mut [u8], scales: &mut [u8]) {
        planes::nibbles(block, 2, quants, 4 * at);
        planes::put(scales, 2 * at, &block[..2]);
    }
}
