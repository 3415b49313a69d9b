//! IQ4_XS: blocks of 256 indices of 4 bits into a table, with 8 scales of 6 bits.
//!
//! Scale, upper two bits of 8 scales, their lower four bits, 8 times 16 bytes as in [`nibbles`].
//! Value: `scale * (scales[group] - 32) * table[quant]`.

use super::block::{Block, half, part, part_mut};
use super::fit::{inverse, scales_of};
use super::{iq4, nibbles};
use crate::cpu::quants::{self, Field, IntSimd, PANEL, QuantBlock, byte, field};
#[cfg(feature = "gpu")]
use crate::gpu::planes::{self, Planar};
#[cfg(feature = "gpu")]
use phi3_shaders::Format;

pub(crate) struct Iq4Xs;

impl Block for Iq4Xs {
    const NAME: &'static str = "iq4_xs";
    const GGML_ID: u32 = 23;
    const FILE_TYPE: u32 = 30;
    const LEN: usize = 256;
    const BYTES: usize = 136;
    const HALVES: &'static [usize] = &[0];

    #[inline(always)]
    fn decode(block: &[u8], out: &mut [f32]) {
        let (d, high, low) = (half(block, 0), u16::from_le_bytes(*part(block, 2)), part::<4>(block, 4));
        for group in 0..8 {
            let scale = low[group / 2] >> (4 * (group % 2)) & 15 | ((high >> (2 * group) & 3) as u8) << 4;
            let d = d * (i32::from(scale) - 32) as f32;
            iq4::decode(d, part(block, 8 + 16 * group), part_mut(out, 32 * group));
        }
    }

    fn encode(x: &[f32], out: &mut Vec<u8>) {
        let groups: Vec<f32> = x.chunks_exact(32).map(iq4::fitted_scale).collect();
        let (d, scales) = scales_of(&groups, 32);
        let (mut high, mut low) = (0u16, [0u8; 4]);
        for (group, scale) in scales.iter().enumerate() {
            let code = (scale + 32) as u8;
            low[group / 2] |= (code & 15) << (group % 2 * 4);
            high |= u16::from(code >> 4) << (2 * group);
        }
        out.extend(d.to_le_bytes());
        out.extend(high.to_le_bytes());
        out.extend(low);
        for (x, &scale) in x.chunks_exact(32).zip(&scales) {
            let inverse = inverse(d.to_f32() * scale as f32);
            let quants: Vec<u8> = x.iter().map(|v| iq4::nearest(v * inverse)).collect();
            nibbles::encode(&quants, out);
        }
    }
}

// SAFETY: the fields cover a block; reads are of these fields, at the widths of their items.
unsafe impl QuantBlock for Iq4Xs {
    const FIELDS: &'static [Field] = &[Field::Half(0), Field::Bytes(2, 6), Field::Words(8, 32)];
    const SIGNED: bool = true;

    #[inline(always)]
    unsafe fn quants<L: IntSimd>(block: *const u8, part: usize, sub: usize) -> [L::I; 8] {
        // SAFETY: the caller guarantees the contract of the trait; a sub-block's words are inside their fields.
        unsafe {
            let words = field::<L>(block, Self::FIELDS, 2, part, 4).add(4 * PANEL * 4 * sub);
            iq4::lookup::<L>(quants::nibbles::<L>(words))
        }
    }

    #[inline(always)]
    unsafe fn scale<L: IntSimd>(head: [L::F; 2], block: *const u8, part: usize, sub: usize, _half: usize) -> [L::F; 2] {
        // SAFETY: the caller guarantees the contract of the trait; a sub-block's bytes are inside their field.
        unsafe {
            let packed = field::<L>(block, Self::FIELDS, 1, part, 1);
            let high = L::and(L::shr(byte::<L>(packed, sub / 4), 2 * (sub % 4)), 3);
            let low = L::and(L::shr(byte::<L>(packed, 2 + sub / 2), 4 * (sub % 2)), 15);
            let scale = L::add(L::or(low, L::shl(high, 4)), L::splat(-32));
            [L::mul(head[0], L::to_f32(scale)), head[1]]
        }
    }
}

#[cfg(feature = "gpu")]
impl Planar for Iq4Xs {
    const FORMAT: Format = Format::Iq4Xs;
    const SCALES: usize = 8;

    fn pack(block: &[u8], at: usize, quants: &mut [u8], scales: &mut [u8]) {
        for eighth in 0..8 {
            planes::nibbles(block, 8 + 16 * eighth, quants, 32 * at + 4 * eighth);
        }
        planes::put(scales, 8 * at, &block[..8]);
    }
}
