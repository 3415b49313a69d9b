//! Projections in whole numbers: quantised weights in panels times activations in eight bits.
//!
//! For each unit of 32 elements the products are summed exactly, then scaled and added in f32, units in order: a result
//! depends on its own operands only, not on how many rows a pass has.

use super::activations::{BlockQ8, Q8_LEN, Q8Options};
use super::int_simd::{self, IntSimd};
use super::quants::QuantBlock;
use super::repack::PANEL;
use super::simd::Isa;
use crate::DType;
use crate::dtype::with_quant_type;

/// How far ahead weights are asked for, in bytes.
const AHEAD: usize = 4096;

/// A panel and the activation rows that it is multiplied with.
struct Task<'a> {
    panel: &'a [u8],
    /// `[count, rows]`: unit by unit, the rows side by side.
    units: &'a [BlockQ8],
    /// Units of a row.
    count: usize,
    /// A row's product with each row of the panel.
    sums: &'a mut [[f32; PANEL]],
}

/// The products of a panel's rows with `sums.len()` rows of activations, each of `count` units, which lie unit by unit.
pub(super) fn product(
    isa: Isa,
    dtype: DType,
    panel: &[u8],
    units: &[BlockQ8],
    count: usize,
    sums: &mut [[f32; PANEL]],
) {
    assert!(units.len() >= sums.len() * count);
    let task = Task { panel, units, count, sums };
    with_quant_type!(dtype, Q => run::<Q>(isa, task), else {
        _ => unreachable!("plain types have kernels of their own"),
    });
}

/// [`rows`] compiled for the instruction set of `isa`.
fn run<C: QuantBlock>(isa: Isa, task: Task<'_>) {
    assert!(
        task.panel.len() == task.count / C::SUB_BLOCKS * C::PANEL_BYTES && task.count.is_multiple_of(C::SUB_BLOCKS)
    );
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni | Isa::Amx => {
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
            unsafe fn go<C: QuantBlock>(task: Task<'_>) {
                // SAFETY: the outer function's promise.
                unsafe { rows::<int_simd::Vnni, C>(task) }
            }
            // SAFETY: an ISA is only used where it is available; the panel is whole blocks, of as many units as a row.
            unsafe { go::<C>(task) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => {
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl")]
            unsafe fn go<C: QuantBlock>(task: Task<'_>) {
                // SAFETY: the outer function's promise.
                unsafe { rows::<int_simd::Avx512, C>(task) }
            }
            // SAFETY: as above.
            unsafe { go::<C>(task) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => {
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn go<C: QuantBlock>(task: Task<'_>) {
                // SAFETY: the outer function's promise.
                unsafe { rows::<int_simd::Avx2, C>(task) }
            }
            // SAFETY: as above.
            unsafe { go::<C>(task) }
        }
        #[cfg(target_arch = "aarch64")]
        Isa::NeonDot => {
            #[target_feature(enable = "neon,dotprod")]
            unsafe fn go<C: QuantBlock>(task: Task<'_>) {
                // SAFETY: the outer function's promise.
                unsafe { rows::<int_simd::NeonDot, C>(task) }
            }
            // SAFETY: as above.
            unsafe { go::<C>(task) }
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Isa::Neon => unsafe { rows::<int_simd::Neon, C>(task) },
        // SAFETY: as above.
        _ => unsafe { rows::<int_simd::Portable, C>(task) },
    }
}

#[inline(always)]
unsafe fn rows<L: IntSimd, C: QuantBlock>(task: Task<'_>) {
    let (rows, mut first) = (task.sums.len(), 0);
    while first < rows {
        // SAFETY: the caller's; `units` has `count` units of each row.
        unsafe {
            let units = task.units.as_ptr().add(first);
            let sums = &mut task.sums[first..];
            first += match rows - first {
                16.. => block::<L, C, 8, 2>(task.panel, units, task.count, rows, sums),
                8.. => block::<L, C, 8, 1>(task.panel, units, task.count, rows, sums),
                4.. => block::<L, C, 4, 1>(task.panel, units, task.count, rows, sums),
                _ => block::<L, C, 1, 1>(task.panel, units, task.count, rows, sums),
            };
        }
    }
}

/// A panel times B times M of `rows` activation rows: a unit is unpacked once, M rows' sums fill the registers. Returns B * M.
#[inline(always)]
unsafe fn block<L: IntSimd, C: QuantBlock, const M: usize, const B: usize>(
    panel: &[u8],
    units: *const BlockQ8,
    count: usize,
    rows: usize,
    sums: &mut [[f32; PANEL]],
) -> usize {
    let parts = PANEL / L::ROWS;
    let grows = grows::<C, M>();
    // SAFETY: blocks lie in the panel, units in the rows that the caller vouches for.
    unsafe {
        // a panel is at most four registers
        let mut acc = [[[L::splat_f32(0.0); M]; B]; 4];
        // zeros, or no numbers where scales are not finite, which additions to exponents would hide
        let mut faults = [L::splat_f32(0.0); 4];
        for b in 0..count / C::SUB_BLOCKS {
            let block = panel.as_ptr().add(b * C::PANEL_BYTES);
            for part in 0..parts {
                let head = C::head::<L>(block, part);
                if grows {
                    faults[part] = L::fma(head[0], L::splat_f32(0.0), faults[part]);
                }
                for u in 0..C::SUB_BLOCKS {
                    if part == 0 && M == 1 {
                        let bytes = C::PANEL_BYTES / C::SUB_BLOCKS;
                        for line in 0..bytes.div_ceil(64) {
                            L::prefetch(block.wrapping_add(AHEAD + u * bytes + 64 * line));
                        }
                    }
                    let codes = C::quants::<L>(block, part, u);
                    let x = units.add((b * C::SUB_BLOCKS + u) * rows);
                    let scale = |half| C::scale::<L>(head, block, part, u, half);
                    if C::SIXTEENS {
                        let (low, high) = (scale(0), scale(1));
                        for (i, acc) in acc[part].iter_mut().enumerate() {
                            half_unit::<L, C, 0, 4, M>(low, &codes, x.add(i * M), acc);
                            half_unit::<L, C, 4, 4, M>(high, &codes, x.add(i * M), acc);
                        }
                    } else {
                        let scale = scale(0);
                        for (i, acc) in acc[part].iter_mut().enumerate() {
                            half_unit::<L, C, 0, 8, M>(scale, &codes, x.add(i * M), acc);
                        }
                    }
                }
            }
        }
        for (m, sums) in sums.iter_mut().take(B * M).enumerate() {
            for (part, acc) in acc.iter().enumerate().take(parts) {
                let (sum, base) = (acc[m / M][m % M], L::splat_f32((*units.add(m)).base));
                let sum = if grows { L::fma(sum, base, faults[part]) } else { L::mul(sum, base) };
                L::store(sums.as_mut_ptr().add(part * L::ROWS), sum);
            }
        }
    }
    B * M
}

/// Adds the products of N quads from FIRST on with M rows' units at `x`.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "two-dimensional accumulators, unrolled by constant bounds")]
unsafe fn half_unit<L: IntSimd, C: QuantBlock, const FIRST: usize, const N: usize, const M: usize>(
    [scale, min]: [L::F; 2],
    codes: &[L::I; 8],
    x: *const BlockQ8,
    acc: &mut [L::F; M],
) {
    let half = FIRST / 4;
    // SAFETY: the caller's.
    unsafe {
        // two chains where no other row is there to wait with
        let mut sums = [[L::splat(0); M]; 2];
        if C::SIGNED || C::ZERO_POINT != 0 {
            for m in 0..M {
                sums[0][m] = L::splat((*x.add(m)).start[half]);
            }
        }
        for i in FIRST..FIRST + N {
            let chain = if M == 1 { i % 2 } else { 0 };
            for m in 0..M {
                let (sum, quad) = (sums[chain][m], (*x.add(m)).quad(i));
                sums[chain][m] =
                    if C::SIGNED { L::dot_biased(sum, codes[i], quad) } else { L::dot(sum, codes[i], quad) };
            }
        }
        for m in 0..M {
            let sum = if M == 1 { L::add(sums[0][m], sums[1][m]) } else { sums[0][m] };
            let x = &*x.add(m);
            let scale = if grows::<C, M>() { L::scaled(scale, x) } else { L::mul(scale, L::splat_f32(x.scale)) };
            acc[m] = L::fma(L::to_f32(sum), scale, acc[m]);
            if C::MINIMA {
                acc[m] = L::fma(min, L::splat_f32(x.sum[half]), acc[m]);
            }
        }
    }
}

/// Units of a row of `dim` elements.
pub(super) fn q8_blocks(dim: usize) -> usize {
    dim.div_ceil(Q8_LEN)
}

/// A row of activations for weights of `dtype`; its units lie `step` apart.
pub(super) fn quantise(isa: Isa, dtype: DType, x: &[f32], units: &mut [BlockQ8], step: usize) {
    let options = with_quant_type!(dtype, Q => options::<Q>(isa), else { _ => return });
    // SAFETY: the ISA is available; plain loops over checked slices.
    unsafe { super::kernels::quantise_q8(isa, x, options, units, step) }
}

fn options<C: QuantBlock>(isa: Isa) -> Q8Options {
    let offset = if C::SIGNED { bias(isa) } else { C::ZERO_POINT };
    Q8Options { offset, sixteens: C::SIXTEENS, powers: powers::<C>() }
}

/// Whether scales of activations are powers of two: K types have so many scales of their own that multiplying them costs an
/// eighth of the time.
const fn powers<C: QuantBlock>() -> bool {
    C::SUB_BLOCKS > 1
}

/// Whether such scales are multiplied by adding to exponents: a single row waits for memory and not for products.
const fn grows<C: QuantBlock, const M: usize>() -> bool {
    powers::<C>() && M > 1
}

/// What the ISA's kernel adds to signed codes.
fn bias(isa: Isa) -> i32 {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni | Isa::Amx => int_simd::Vnni::BIAS,
        _ => int_simd::Portable::BIAS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::repack;

    /// Scales of activations are added to exponents at some levels, which numbers that are not finite do not survive.
    #[test]
    fn a_scale_that_is_no_number_spoils_its_row_alone() {
        for dtype in DType::ALL.into_iter().filter(|dtype| dtype.is_quantised()) {
            let (elements, size) = dtype.block();
            let row = vec![1.0; elements];
            let good = crate::quant::quantise(dtype, &row).unwrap();
            let mut rows = good.repeat(3);
            let scale = dtype.halves()[0];
            rows[size..2 * size][scale..scale + 2].copy_from_slice(&half::f16::INFINITY.to_le_bytes());
            let mut panel = vec![0; PANEL * size];
            repack::pack(dtype, |i| &rows[i * size..][..size], 0..3, &mut panel);
            for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
                for count in [1, 4, 8, 16] {
                    let per_row = q8_blocks(elements);
                    let mut units = vec![bytemuck::Zeroable::zeroed(); count * per_row];
                    for i in 0..count {
                        quantise(isa, dtype, &row, &mut units[i..], count);
                    }
                    let mut sums = vec![[0.0; PANEL]; count];
                    product(isa, dtype, &panel, &units, per_row, &mut sums);
                    for sums in sums {
                        assert!(!sums[1].is_finite(), "{dtype:?} at {isa}, {count} rows: {}", sums[1]);
                        for i in [0, 2] {
                            let off = (sums[i] / elements as f32 - 1.0).abs();
                            assert!(off < 0.02, "{dtype:?} at {isa}, {count} rows: {}", sums[i]);
                        }
                        assert!(sums[3].abs() < 1e-20, "{dtype:?} at {isa}: {}", sums[3]);
                    }
                }
            }
        }
    }
}
