//! Products of many rows with weights of half precision, in integers of 14 bits: AVX-512 VNNI multiplies twice as many i16 as f32
//! at once.
//!
//! Activations and weights are quantized to integers up to [`LARGEST`] with a scale for each [`Q14_LEN`] elements. Their products
//! are summed exactly, then scaled and added in f32. The rounding error is at most 1/11584 of the largest element of a block:
//! about that of half precision, and a 45th of that of eight bits.

use super::activations;
use super::field::PANEL;
use super::kernels::{self, Finish, Output, dispatch};
use super::plain::Weights;
use super::repack::Order;
#[cfg(target_arch = "aarch64")]
use super::simd::Neon;
#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2, Avx512};
use super::simd::{Isa, Portable, Simd};
use super::transpose::rows_of_half;
use crate::DType;
use std::arch::x86_64::*;
use std::cell::Cell;
use std::ops::Range;

/// Elements that share a scale.
pub(super) const Q14_LEN: usize = 64;

/// Largest quant: [`Q14_LEN`] products of two of them fit in 32 bits.
const LARGEST: f32 = 5792.0;

/// Rows of activations of a call of the kernel.
pub(super) const TILE: usize = 8;

/// A block of a row of activations.
#[derive(Clone, Copy, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(super) struct BlockQ14 {
    /// Pairs of quants, each of 16 bits.
    pairs: [i32; Q14_LEN / 2],
    scale: f32,
}

/// Whether an ISA takes this path for the rows of a prompt and this type of weight.
pub(super) fn suits(isa: Isa, dtype: DType) -> bool {
    matches!(isa, Isa::Avx512Vnni | Isa::Amx) && matches!(dtype, DType::F16 | DType::Bf16)
}

dispatch!(quantize_row = quantize_generic(x: &[f32], out: &mut [BlockQ14]));

/// Quantizes a row into blocks [`TILE`] apart. The last block is padded with zeros.
///
/// Has no contract; unsafe only because `dispatch!` requires it.
#[inline(always)]
unsafe fn quantize_generic<S: Simd>(x: &[f32], out: &mut [BlockQ14]) {
    // adding this number rounds to an integer, ties to even, in the lowest bits
    const ROUND: f32 = 12_582_912.0;
    for (from, to) in x.chunks(Q14_LEN).zip(out.iter_mut().step_by(TILE)) {
        let mut values = [0.0; Q14_LEN];
        values[..from.len()].copy_from_slice(from);
        // magnitudes have the order of their bits, and a NaN is the largest
        let most = f32::from_bits(values.iter().fold(0, |most, v| most.max(v.to_bits() & 0x7fff_ffff)));
        // the inverse of a smaller number may be infinite
        let inverse = if most > 1e-32 { LARGEST / most } else { 0.0 };
        let quants: &mut [i16; Q14_LEN] = bytemuck::cast_mut(&mut to.pairs);
        for (to, v) in quants.iter_mut().zip(values) {
            *to = ((v * inverse + ROUND).to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32) as i16;
        }
        to.scale = most / LARGEST;
    }
}

/// Quantizes a row of activations; `out` begins at the row's place in its tile.
pub(super) fn quantize(isa: Isa, x: &[f32], out: &mut [BlockQ14]) {
    assert!(out.len() > (x.len().div_ceil(Q14_LEN).max(1) - 1) * TILE);
    // SAFETY: an ISA in use is available; the kernel is plain loops over slices.
    unsafe { quantize_row(isa, x, out) }
}

/// A block of sixteen rows of a weight: pairs of quants, those of the rows side by side.
#[derive(Clone, Copy, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct PanelQ14 {
    pairs: [[i32; PANEL]; Q14_LEN / 2],
    scales: [f32; PANEL],
}

thread_local! {
    /// Panels of a gate and its up.
    static SCRATCH: Cell<[Vec<PanelQ14>; 2]> = const { Cell::new([Vec::new(), Vec::new()]) };
}

/// Activations of a product: tiles of [`TILE`] rows, each `[count, TILE]` blocks.
#[derive(Clone, Copy)]
pub(super) struct RowsQ14<'a> {
    pub(super) blocks: &'a [BlockQ14],
    pub(super) count: usize,
    pub(super) rows: usize,
}

/// Output panels `columns` of all rows.
pub(super) fn project(
    isa: Isa,
    x: RowsQ14<'_>,
    w: Weights<'_>,
    finish: Finish<'_>,
    columns: Range<usize>,
    out: Output<'_>,
    width: usize,
) {
    let order = Order { rows: w.0.rows, gated: finish.is_gated() };
    let sides = if order.gated { 2 } else { 1 };
    assert!(x.blocks.len() >= x.rows.next_multiple_of(TILE) * x.count && x.count == w.0.cols.div_ceil(Q14_LEN));
    assert!(suits(isa, w.0.dtype));
    let mut scratch = SCRATCH.take();
    let mut sums = [[[0.0; PANEL]; TILE]; 2];
    for column in columns {
        for (side, blocks) in scratch.iter_mut().enumerate().take(sides) {
            blocks.resize(x.count, bytemuck::Zeroable::zeroed());
            // SAFETY: `suits` has checked that the ISA has VNNI, and with it the features of `pack`.
            unsafe { pack(w, order.of(column * sides + side), blocks) };
        }
        let cells = column * PANEL..((column + 1) * PANEL).min(width);
        for first in (0..x.rows).step_by(TILE) {
            let taken = TILE.min(x.rows - first);
            let tile = &x.blocks[first * x.count..][..TILE * x.count];
            for (blocks, sums) in scratch.iter().zip(&mut sums).take(sides) {
                // SAFETY: the ISA has VNNI, as above.
                unsafe { multiply(blocks, tile, sums) };
            }
            let [sums, ups] = &sums;
            kernels::finish(isa, finish, &sums[..taken], &ups[..taken], first, cells.clone(), out);
        }
    }
    SCRATCH.set(scratch);
}

/// Quantizes rows `rows` of a weight, sixteen at most. Missing rows are zeros.
///
/// # Safety
///
/// The features of this function are available, `rows` are rows of the weight, and its elements have two bytes.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn pack(w: Weights<'_>, rows: Range<usize>, blocks: &mut [PanelQ14]) {
    for (u, block) in blocks.iter_mut().enumerate() {
        // SAFETY: the caller guarantees the contract of this function; stores are of sixteen i32 or f32 into arrays of sixteen.
        unsafe {
            let part = |i: usize| rows_of_half(w, rows.clone(), u * Q14_LEN + i * activations::Q8_LEN);
            let pairs = [part(0), part(1)];
            let mut most = _mm512_setzero_si512();
            for pair in pairs.as_flattened().iter().copied() {
                // magnitudes have the order of their bits, and a NaN is the largest
                most = _mm512_max_epu16(most, _mm512_and_si512(pair, _mm512_set1_epi32(0x7fff_7fff)));
            }
            let most = _mm512_max_epu32(_mm512_and_si512(most, _mm512_set1_epi32(0xffff)), _mm512_srli_epi32(most, 16));
            let widen = |low| match w.0.dtype {
                DType::Bf16 => _mm512_castsi512_ps(_mm512_slli_epi32(low, 16)),
                _ => _mm512_cvtph_ps(_mm512_cvtepi32_epi16(low)),
            };
            let most = widen(most);
            // the inverse of a smaller number may be infinite; the inverse of a NaN is a NaN
            let some = _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(most, _mm512_set1_ps(1e-32));
            let inverse = _mm512_maskz_div_ps(some, _mm512_set1_ps(LARGEST), most);
            for (to, pair) in block.pairs.iter_mut().zip(pairs.as_flattened().iter().copied()) {
                let high = match w.0.dtype {
                    DType::Bf16 => _mm512_castsi512_ps(_mm512_and_si512(pair, _mm512_set1_epi32(-65536))),
                    _ => widen(_mm512_srli_epi32(pair, 16)),
                };
                let low = _mm512_cvtps_epi32(_mm512_mul_ps(widen(pair), inverse));
                let high = _mm512_slli_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(high, inverse)), 16);
                _mm512_storeu_si512(to.as_mut_ptr().cast(), _mm512_mask_blend_epi16(0xaaaa_aaaa, low, high));
            }
            _mm512_storeu_ps(block.scales.as_mut_ptr(), _mm512_mul_ps(most, _mm512_set1_ps(1.0 / LARGEST)));
        }
    }
}

/// The products of sixteen rows of a weight with a tile of activations.
///
/// # Safety
///
/// The features of this function are available.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn multiply(blocks: &[PanelQ14], tile: &[BlockQ14], sums: &mut [[f32; PANEL]; TILE]) {
    let mut acc = [_mm512_setzero_ps(); TILE];
    for (block, rows) in blocks.iter().zip(tile.as_chunks::<TILE>().0) {
        let mut whole = [_mm512_setzero_si512(); TILE];
        for (p, pair) in block.pairs.iter().enumerate() {
            // SAFETY: a load of sixteen i32 from an array of sixteen.
            let pair = unsafe { _mm512_loadu_si512(pair.as_ptr().cast()) };
            for (whole, row) in whole.iter_mut().zip(rows) {
                *whole = _mm512_dpwssd_epi32(*whole, pair, _mm512_set1_epi32(row.pairs[p]));
            }
        }
        // SAFETY: a load of sixteen f32 from an array of sixteen.
        let scales = unsafe { _mm512_loadu_ps(block.scales.as_ptr()) };
        for ((acc, whole), row) in acc.iter_mut().zip(whole).zip(rows) {
            let scale = _mm512_mul_ps(scales, _mm512_set1_ps(row.scale));
            *acc = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole), scale, *acc);
        }
    }
    for (sums, acc) in sums.iter_mut().zip(acc) {
        // SAFETY: a store of sixteen f32 into an array of sixteen.
        unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), acc) };
    }
}
