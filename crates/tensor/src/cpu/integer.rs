//! Projections in integers: quantized weights in panels times activations in eight bits.
//!
//! The products of each sub-block of 32 elements are summed exactly, then scaled and added in f32, sub-blocks in order. A result
//! depends on its own operands only, not on the number of rows of a pass.

use super::activations::{BlockQ8, Q8_LEN, Q8Options};
use super::field::PANEL;
use super::int_simd::{self, IntSimd};
use super::quants::QuantBlock;
use super::simd::Isa;
use crate::DType;
use crate::quant::with_quant_type;

/// Distance of the prefetch of weights, in bytes.
const AHEAD: usize = 4096;

/// A panel and the activation rows that it is multiplied with.
struct Task<'a> {
    panel: &'a [u8],
    /// Activations `[count, rows]`.
    blocks: &'a [BlockQ8],
    /// Blocks of a row.
    count: usize,
    /// Whether the panel comes from memory: further rows find it in a cache.
    cold: bool,
    /// The products of each activation row with the rows of the panel.
    sums: &'a mut [[f32; PANEL]],
}

/// The products of a panel's rows with `sums.len()` rows of activations `[count, rows]`. A `cold` panel is prefetched.
pub(super) fn product(
    isa: Isa,
    dtype: DType,
    panel: &[u8],
    blocks: &[BlockQ8],
    count: usize,
    cold: bool,
    sums: &mut [[f32; PANEL]],
) {
    assert!(blocks.len() >= sums.len() * count);
    let task = Task { panel, blocks, count, cold, sums };
    with_quant_type!(dtype, Q => run::<Q>(isa, task), else {
        _ => unreachable!("plain types have kernels of their own"),
    });
}

/// [`rows`] for the instruction set of `isa`.
fn run<C: QuantBlock>(isa: Isa, task: Task<'_>) {
    assert!(
        task.panel.len() == task.count / C::SUB_BLOCKS * C::PANEL_BYTES && task.count.is_multiple_of(C::SUB_BLOCKS)
    );
    // SAFETY: an ISA in use is available. The panel has whole blocks of as many sub-blocks as an activation row has blocks
    // (asserted above), and `product` has asserted the length of the activations.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni | Isa::Amx => rows::<int_simd::Vnni, C>(task),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => rows::<int_simd::Avx512, C>(task),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => rows::<int_simd::Avx2, C>(task),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDot => rows::<int_simd::NeonDot, C>(task),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => rows::<int_simd::Neon, C>(task),
            _ => rows::<int_simd::Portable, C>(task),
        }
    }
}

/// [`block`], compiled for an instruction set. The compiler takes minutes for all shapes in one function.
trait Products: IntSimd {
    /// # Safety
    ///
    /// As for [`block`].
    unsafe fn products<C: QuantBlock, const M: usize, const B: usize>(task: &mut Task<'_>, first: usize, taken: usize);
}

macro_rules! products {
    ($level:ident $(, #[$features:meta])?) => {
        impl Products for int_simd::$level {
            $(#[$features])?
            unsafe fn products<C: QuantBlock, const M: usize, const B: usize>(
                task: &mut Task<'_>,
                first: usize,
                taken: usize,
            ) {
                // SAFETY: the contract of this function.
                unsafe { block::<Self, C, M, B>(task, first, taken) }
            }
        }
    };
}

products!(Portable);
#[cfg(target_arch = "x86_64")]
products!(Avx2, #[target_feature(enable = "avx2,fma,f16c")]);
#[cfg(target_arch = "x86_64")]
products!(Avx512, #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl")]);
#[cfg(target_arch = "x86_64")]
products!(Vnni, #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]);
#[cfg(target_arch = "aarch64")]
products!(Neon);
#[cfg(target_arch = "aarch64")]
products!(NeonDot, #[target_feature(enable = "neon,dotprod")]);

/// The products of all rows, sixteen at a time; two where groups are of one row. For a rest of fewer rows the panel is unpacked
/// once: the last two groups may overlap, and the sums of rows in both are written twice.
///
/// # Safety
///
/// The instruction set of L is available. The panel has `count / SUB_BLOCKS` blocks of `PANEL_BYTES`, and there are `count`
/// activation blocks for each of `sums`.
unsafe fn rows<L: Products, C: QuantBlock>(mut task: Task<'_>) {
    let mut first = 0;
    while first < task.sums.len() {
        let left = (task.sums.len() - first).min(if L::GROUP == 1 { 2 } else { 16 });
        let task = &mut task;
        // SAFETY: an arm has groups for `left` rows, and none has more rows than that.
        unsafe {
            // constants, so that only the products of one arm are compiled
            if const { L::GROUP == 1 } {
                match left {
                    1 => L::products::<C, 1, 1>(task, first, left),
                    _ => L::products::<C, 2, 1>(task, first, left),
                }
            } else if const { L::GROUP == 4 } {
                match left {
                    1 => L::products::<C, 1, 1>(task, first, left),
                    2 => L::products::<C, 2, 1>(task, first, left),
                    3 => L::products::<C, 3, 1>(task, first, left),
                    4 => L::products::<C, 4, 1>(task, first, left),
                    5..=6 => L::products::<C, 3, 2>(task, first, left),
                    7..=8 => L::products::<C, 4, 2>(task, first, left),
                    9..=12 => L::products::<C, 4, 3>(task, first, left),
                    _ => L::products::<C, 4, 4>(task, first, left),
                }
            } else {
                match left {
                    1 => L::products::<C, 1, 1>(task, first, left),
                    2 => L::products::<C, 2, 1>(task, first, left),
                    3 => L::products::<C, 2, 2>(task, first, left),
                    4 => L::products::<C, 4, 1>(task, first, left),
                    5..=6 => L::products::<C, 3, 2>(task, first, left),
                    7 => L::products::<C, 4, 2>(task, first, left),
                    8 => L::products::<C, 8, 1>(task, first, left),
                    9..=12 => L::products::<C, 6, 2>(task, first, left),
                    _ => L::products::<C, 8, 2>(task, first, left),
                }
            }
        }
        first += left;
    }
}

/// A panel times `taken` activation rows from `first` on, in B groups of M. The last group ends with the last row. A sub-block is
/// unpacked once; the sums of M rows fill the registers.
///
/// # Safety
///
/// As for [`rows`]; `M <= taken <= B * M`, and the task has rows `first .. first + taken`.
#[inline(always)]
unsafe fn block<L: IntSimd, C: QuantBlock, const M: usize, const B: usize>(
    task: &mut Task<'_>,
    first: usize,
    taken: usize,
) {
    let (parts, rows, cold) = (PANEL / L::ROWS, task.sums.len(), task.cold && first == 0);
    let grows = grows::<C, M>();
    let start = |group: usize| first + if group + 1 == B { taken - M } else { group * M };
    // SAFETY: `b`, `part` and `u` stay inside the panel by its length; the blocks of the B groups from `x` are in group
    // `b * SUB_BLOCKS + u < count` of the activations; `sums` has L::ROWS places for each part of PANEL.
    unsafe {
        // a panel is at most four registers
        let mut acc = [[[L::splat_f32(0.0); M]; B]; 4];
        // zero, or NaN where a scale is not finite: an addition to the exponent hides that
        let mut faults = [L::splat_f32(0.0); 4];
        for b in 0..task.count / C::SUB_BLOCKS {
            let block = task.panel.as_ptr().add(b * C::PANEL_BYTES);
            for part in 0..parts {
                let head = C::head::<L>(block, part);
                if grows {
                    faults[part] = L::fma(head[0], L::splat_f32(0.0), faults[part]);
                }
                for u in 0..C::SUB_BLOCKS {
                    if part == 0 && cold {
                        let bytes = C::PANEL_BYTES / C::SUB_BLOCKS;
                        for line in 0..bytes.div_ceil(64) {
                            L::prefetch(block.wrapping_add(AHEAD + u * bytes + 64 * line));
                        }
                    }
                    let quants = C::quants::<L>(block, part, u);
                    let x = task.blocks.as_ptr().add((b * C::SUB_BLOCKS + u) * rows);
                    let scale = |half| C::scale::<L>(head, block, part, u, half);
                    if C::SIXTEENS {
                        let (low, high) = (scale(0), scale(1));
                        for (i, acc) in acc[part].iter_mut().enumerate() {
                            half_block::<L, C, 0, 4, M>(low, &quants, x.add(start(i)), acc);
                            half_block::<L, C, 4, 4, M>(high, &quants, x.add(start(i)), acc);
                        }
                    } else {
                        let scale = scale(0);
                        for (i, acc) in acc[part].iter_mut().enumerate() {
                            half_block::<L, C, 0, 8, M>(scale, &quants, x.add(start(i)), acc);
                        }
                    }
                }
            }
        }
        for group in 0..B {
            for m in 0..M {
                let row = start(group) + m;
                let base = L::splat_f32(task.blocks[row].base);
                for (part, acc) in acc.iter().enumerate().take(parts) {
                    let sum = acc[group][m];
                    let sum = if grows { L::fma(sum, base, faults[part]) } else { L::mul(sum, base) };
                    L::store(task.sums[row].as_mut_ptr().add(part * L::ROWS), sum);
                }
            }
        }
    }
}

/// Adds the products of N words of quants from FIRST on with the blocks of M rows at `x`.
///
/// # Safety
///
/// The instruction set of L is available; M blocks at `x`.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "two-dimensional accumulators, unrolled by constant bounds")]
unsafe fn half_block<L: IntSimd, C: QuantBlock, const FIRST: usize, const N: usize, const M: usize>(
    [scale, min]: [L::F; 2],
    quants: &[L::I; 8],
    x: *const BlockQ8,
    acc: &mut [L::F; M],
) {
    let half = FIRST / 4;
    // SAFETY: `m < M`; the caller guarantees the instruction set.
    unsafe {
        let mut sums = [L::splat(0); M];
        if C::SIGNED || C::ZERO_POINT != 0 {
            for m in 0..M {
                sums[m] = L::splat((*x.add(m)).start[half]);
            }
        }
        let sums = if C::SIGNED {
            L::dots::<FIRST, N, M>(sums, quants, x)
        } else {
            L::dots_unsigned::<FIRST, N, M>(sums, quants, x, C::LARGEST)
        };
        for m in 0..M {
            let x = &*x.add(m);
            let scale = if grows::<C, M>() { L::scaled(scale, x) } else { L::mul(scale, L::splat_f32(x.scale)) };
            acc[m] = L::fma(L::to_f32(sums[m]), scale, acc[m]);
            if C::MINIMA {
                acc[m] = L::fma(min, L::splat_f32(x.sum[half]), acc[m]);
            }
        }
    }
}

/// Blocks of a row of `dim` elements.
pub(super) fn q8_blocks(dim: usize) -> usize {
    dim.div_ceil(Q8_LEN)
}

/// Quantizes a row of activations for weights of `dtype` into blocks `step` apart.
pub(super) fn quantize(isa: Isa, dtype: DType, x: &[f32], blocks: &mut [BlockQ8], step: usize) {
    let options = with_quant_type!(dtype, Q => options::<Q>(isa), else { _ => return });
    // SAFETY: an ISA in use is available; the kernel is plain loops over slices.
    unsafe { super::kernels::quantize_q8(isa, x, options, blocks, step) }
}

fn options<C: QuantBlock>(isa: Isa) -> Q8Options {
    let zero_point = if C::SIGNED { bias(isa) } else { C::ZERO_POINT };
    Q8Options { zero_point, sixteens: C::SIXTEENS, powers: powers::<C>() }
}

/// Whether scales of activations are powers of two. K types have a scale per sub-block: its products with the scales of the
/// activations would take an eighth of the time.
const fn powers<C: QuantBlock>() -> bool {
    C::SUB_BLOCKS > 1
}

/// Whether scales are multiplied by adding to exponents. A single row multiplies them: it is bound by memory.
const fn grows<C: QuantBlock, const M: usize>() -> bool {
    powers::<C>() && M > 1
}

/// Bias of signed quants in the kernel of the ISA.
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

    /// Some kernels add scales of activations to exponents, which changes infinities and NaN to other numbers.
    #[test]
    fn a_scale_that_is_no_number_spoils_its_row_alone() {
        for dtype in DType::ALL.into_iter().filter(|dtype| dtype.is_quantized()) {
            let (elements, size) = dtype.block();
            let row = vec![1.0; elements];
            let good = crate::quant::quantize(dtype, &row).unwrap();
            let mut rows = good.repeat(3);
            let scale = dtype.halves()[0];
            rows[size..2 * size][scale..scale + 2].copy_from_slice(&half::f16::INFINITY.to_le_bytes());
            let mut panel = vec![0; PANEL * size];
            repack::pack(dtype, |i| &rows[i * size..][..size], 0..3, &mut panel);
            for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
                for count in 1..=17 {
                    let per_row = q8_blocks(elements);
                    let mut blocks = vec![bytemuck::Zeroable::zeroed(); count * per_row];
                    for i in 0..count {
                        quantize(isa, dtype, &row, &mut blocks[i..], count);
                    }
                    let mut sums = vec![[0.0; PANEL]; count];
                    product(isa, dtype, &panel, &blocks, per_row, true, &mut sums);
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

    /// Products are added in few bits where the largest quants allow it.
    #[test]
    fn sums_of_the_largest_quants_and_activations_do_not_overflow() {
        // a scale of 1 / 128 in both roundings, and quants of 127
        const X: f32 = 127.0 / 128.0;
        for dtype in DType::ALL.into_iter().filter(|dtype| dtype.is_quantized()) {
            let (elements, size) = dtype.block();
            let mut row = vec![0xff; size];
            for half in dtype.halves() {
                row[*half..half + 2].copy_from_slice(&half::f16::ONE.to_le_bytes());
            }
            let mut weights = vec![0.0; elements];
            dtype.widen(&row, &mut weights);
            let expected: f64 = weights.iter().map(|w| f64::from(w * X)).sum();
            let bound = 1e-6 * weights.iter().map(|w| f64::from(w.abs())).sum::<f64>();
            let mut panel = vec![0; PANEL * size];
            repack::pack(dtype, |_| &row, 0..PANEL, &mut panel);
            for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
                for count in 1..=17 {
                    let per_row = q8_blocks(elements);
                    let mut blocks = vec![bytemuck::Zeroable::zeroed(); count * per_row];
                    for i in 0..count {
                        quantize(isa, dtype, &vec![X; elements], &mut blocks[i..], count);
                    }
                    let mut sums = vec![[0.0; PANEL]; count];
                    product(isa, dtype, &panel, &blocks, per_row, true, &mut sums);
                    for found in sums.into_iter().flatten() {
                        let off = (f64::from(found) - expected).abs();
                        assert!(off <= bound, "{dtype:?} at {isa}, {count} rows: {found} for {expected}");
                    }
                }
            }
        }
    }
}
