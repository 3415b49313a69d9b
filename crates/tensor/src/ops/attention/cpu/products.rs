//! Products of attention: scores of a group of pages, their softmax, and the sums of values.
//!
//! Callers of the functions guarantee the instruction set of S, and panels that have the sizes of the cache: keys `[d][PAGE]`, values
//! `[PAGE][d]`.

use super::panels::Numbers;
use super::sums::Running;
use crate::PAGE;
use crate::cpu::math::{exp, fma};
use crate::cpu::simd::Simd;
use std::ops::Range;

/// Pages whose scores are computed before their values are read: sums are rescaled once for all of them.
pub(super) const GROUP: usize = 4;

/// No panels to prefetch.
pub(super) const NOTHING: [*const u8; 2 * GROUP] = [std::ptr::null(); 2 * GROUP];

/// Prefetches `bytes` at `offset` from a panel; null is nothing.
#[inline(always)]
fn prefetch<S: Simd>(panel: *const u8, offset: usize, bytes: usize) {
    if !panel.is_null() {
        for line in (0..bytes).step_by(64) {
            // SAFETY: a prefetch never faults.
            unsafe { S::prefetch(panel.wrapping_add(offset + line)) };
        }
    }
}

/// Scores of the positions of a page, each summed in four chains.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "two-dimensional accumulators, unrolled by constant bounds")]
pub(super) unsafe fn scores<S: Simd, N: Numbers, const M: usize>(
    q: [&[f32]; M],
    panel: N,
    ahead: *const u8,
    scale: f32,
    page: usize,
    scores: &mut [[[f32; PAGE]; GROUP]; M],
) {
    let d = q[0].len();
    for at in (0..PAGE).step_by(S::LANES) {
        // SAFETY: keys are `[d][PAGE]`, i is below d, LANES divides PAGE.
        unsafe {
            let mut acc = [[S::zero(); 4]; M];
            let key = |i: usize| panel.keys::<S>(i, at);
            let whole = d / 4 * 4;
            for i in (0..whole).step_by(4) {
                if at == 0 {
                    prefetch::<S>(ahead, i * PAGE * N::BYTES, 4 * PAGE * N::BYTES);
                }
                for chain in 0..4 {
                    let key = key(i + chain);
                    for m in 0..M {
                        acc[m][chain] = S::fma(key, S::splat(*q[m].get_unchecked(i + chain)), acc[m][chain]);
                    }
                }
            }
            for i in whole..d {
                for m in 0..M {
                    acc[m][0] = S::fma(key(i), S::splat(q[m][i]), acc[m][0]);
                }
            }
            for m in 0..M {
                let sum = S::add(S::add(acc[m][0], acc[m][1]), S::add(acc[m][2], acc[m][3]));
                S::store(scores[m][page].as_mut_ptr().add(at), S::mul(sum, S::splat(scale)));
            }
        }
    }
}

/// Scores of the first `ahead.len()` pages of a group for many queries, in tiles of queries and positions.
#[inline(always)]
pub(super) unsafe fn tiles<S: Simd, N: Numbers, const M: usize>(
    q: [&[f32]; M],
    panels: &[N; GROUP],
    ahead: &[*const u8],
    scale: f32,
    scores: &mut [[[f32; PAGE]; GROUP]; M],
) {
    // SAFETY: the contract of `tile`.
    unsafe {
        if S::LANES == PAGE && ahead.len() == GROUP {
            return tile::<S, N, M, GROUP>(q, panels, 0, ahead, scale, scores);
        }
        for page in 0..ahead.len() {
            match PAGE / S::LANES {
                1 => tile::<S, N, M, 1>(q, panels, page, &ahead[page..=page], scale, scores),
                _ => tile::<S, N, M, 2>(q, panels, page, &ahead[page..=page], scale, scores),
            }
        }
    }
}

/// Scores of M queries and P registers of positions from page `first` on: the chains of [`scores`] one after another, which leaves
/// registers for more sums.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "two-dimensional accumulators, unrolled by constant bounds")]
unsafe fn tile<S: Simd, N: Numbers, const M: usize, const P: usize>(
    q: [&[f32]; M],
    panels: &[N; GROUP],
    first: usize,
    ahead: &[*const u8],
    scale: f32,
    scores: &mut [[[f32; PAGE]; GROUP]; M],
) {
    let d = q[0].len();
    // SAFETY: keys are `[d][PAGE]`, i is below d, LANES divides PAGE; the registers are those of pages of the group.
    unsafe {
        let mut sums = [[S::zero(); P]; M];
        let mut pair = [[S::zero(); P]; M];
        let whole = d / 4 * 4;
        for chain in 0..4 {
            let mut acc = [[S::zero(); P]; M];
            for i in (0..whole).step_by(4) {
                if chain == 0 {
                    for ahead in ahead {
                        prefetch::<S>(*ahead, i * PAGE * N::BYTES, 4 * PAGE * N::BYTES);
                    }
                }
                add_dimension::<S, N, M, P>(q, panels, first, i + chain, &mut acc);
            }
            if chain == 0 {
                for i in whole..d {
                    add_dimension::<S, N, M, P>(q, panels, first, i, &mut acc);
                }
            }
            for m in 0..M {
                for n in 0..P {
                    match chain {
                        0 | 2 => pair[m][n] = acc[m][n],
                        1 => sums[m][n] = S::add(pair[m][n], acc[m][n]),
                        _ => sums[m][n] = S::add(sums[m][n], S::add(pair[m][n], acc[m][n])),
                    }
                }
            }
        }
        for m in 0..M {
            for n in 0..P {
                let at = n * S::LANES;
                let score = S::mul(sums[m][n], S::splat(scale));
                S::store(scores[m][first + at / PAGE].as_mut_ptr().add(at % PAGE), score);
            }
        }
    }
}

/// Adds the products of dimension i to the sums of a [`tile`].
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "two-dimensional accumulators, unrolled by constant bounds")]
unsafe fn add_dimension<S: Simd, N: Numbers, const M: usize, const P: usize>(
    q: [&[f32]; M],
    panels: &[N; GROUP],
    first: usize,
    i: usize,
    acc: &mut [[S::V; P]; M],
) {
    // SAFETY: the contract of `tile`.
    unsafe {
        let mut keys = [S::zero(); P];
        for n in 0..P {
            let at = n * S::LANES;
            keys[n] = panels[first + at / PAGE].keys::<S>(i, at % PAGE);
        }
        for m in 0..M {
            let q = S::splat(*q[m].get_unchecked(i));
            for n in 0..P {
                acc[m][n] = S::fma(keys[n], q, acc[m][n]);
            }
        }
    }
}

/// Turns scores into `exp(s - max)`, and 0 where the mask hides them (online softmax, arXiv 1805.02867). Sums so far are rescaled
/// where the maximum grows.
#[inline(always)]
pub(super) fn softmax<S: Simd>(
    scores: &mut [[f32; PAGE]],
    seen: &Range<usize>,
    running: &mut Running,
    sums: &mut [f32],
) {
    // loops, because closures may be compiled without the ISA's instructions
    let mut maxes = [f32::NEG_INFINITY; PAGE];
    for (page, scores) in scores.iter_mut().enumerate() {
        let first = page * PAGE;
        if seen.start > first || seen.end < first + PAGE {
            for (j, score) in scores.iter_mut().enumerate() {
                *score = if seen.contains(&(first + j)) { *score } else { f32::NEG_INFINITY };
            }
        }
        // a NaN is not taken, nor by `f32::max`, which is several instructions
        for j in 0..PAGE {
            maxes[j] = if scores[j] > maxes[j] { scores[j] } else { maxes[j] };
        }
    }
    let mut width = PAGE / 2;
    while width > 0 {
        for j in 0..width {
            maxes[j] = if maxes[j + width] > maxes[j] { maxes[j + width] } else { maxes[j] };
        }
        width /= 2;
    }
    let running_max = maxes[0].max(running.max);
    if running_max > running.max {
        let rescale = exp::<S>(running.max - running_max);
        running.sum *= rescale;
        for sum in sums {
            *sum *= rescale;
        }
        running.max = running_max;
    }
    let running_max = running.max;
    let mut partial_sums = [0.0; PAGE];
    for scores in scores {
        for j in 0..PAGE {
            scores[j] = exp::<S>(scores[j] - running_max);
            partial_sums[j] += scores[j];
        }
    }
    let mut sums = [0.0; 4];
    for i in 0..4 {
        sums[i] = (partial_sums[i] + partial_sums[4 + i]) + (partial_sums[8 + i] + partial_sums[12 + i]);
    }
    running.sum += (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

/// Adds the positions `seen` of a group to the sums `[M][d]`, in order.
#[inline(always)]
pub(super) unsafe fn accumulate<S: Simd, N: Numbers, const M: usize>(
    weights: &[[[f32; PAGE]; GROUP]; M],
    seen: Range<usize>,
    panels: &[N; GROUP],
    ahead: &[*const u8],
    sums: &mut [f32],
    d: usize,
) {
    if seen.is_empty() {
        return;
    }
    let mut at = 0;
    // SAFETY: values are `[PAGE][d]`; each arm takes as many dimensions as are left.
    unsafe {
        while at < d {
            at += match (d - at) / S::LANES {
                8.. if M == 1 => dimensions::<S, N, M, 8>(weights, &seen, panels, ahead, d, at, sums),
                6.. if M >= 4 && S::LANES == PAGE => {
                    dimensions::<S, N, M, 6>(weights, &seen, panels, ahead, d, at, sums)
                }
                4.. if M <= 2 => dimensions::<S, N, M, 4>(weights, &seen, panels, ahead, d, at, sums),
                2.. => dimensions::<S, N, M, 2>(weights, &seen, panels, ahead, d, at, sums),
                1 => dimensions::<S, N, M, 1>(weights, &seen, panels, ahead, d, at, sums),
                _ => break,
            };
        }
        for (weights, sums) in weights.iter().zip(sums.chunks_exact_mut(d)) {
            for j in seen.clone() {
                let (page, j) = (j / PAGE, j % PAGE);
                for (i, sum) in sums.iter_mut().enumerate().skip(at) {
                    *sum = fma::<S>(panels[page].value(d, j, i), weights[page][j], *sum);
                }
            }
        }
    }
}

/// Adds R registers of dimensions from `at` on. Returns the number of dimensions.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "two-dimensional accumulators, unrolled by constant bounds")]
unsafe fn dimensions<S: Simd, N: Numbers, const M: usize, const R: usize>(
    weights: &[[[f32; PAGE]; GROUP]; M],
    seen: &Range<usize>,
    panels: &[N; GROUP],
    ahead: &[*const u8],
    d: usize,
    at: usize,
    sums: &mut [f32],
) -> usize {
    // SAFETY: the caller guarantees that panels have the sizes of the cache.
    unsafe {
        let offset = |m: usize, n: usize| m * d + at + n * S::LANES;
        let mut acc = [[S::zero(); R]; M];
        for m in 0..M {
            for n in 0..R {
                acc[m][n] = S::load(sums.as_ptr().add(offset(m, n)));
            }
        }
        for page in seen.start / PAGE..seen.end.div_ceil(PAGE) {
            let first = page * PAGE;
            for j in seen.start.max(first) - first..seen.end.min(first + PAGE) - first {
                if at == 0 {
                    prefetch::<S>(ahead[page], j * d * N::BYTES, d * N::BYTES);
                }
                let mut value = [S::zero(); R];
                for n in 0..R {
                    value[n] = panels[page].values::<S>(d, j, at + n * S::LANES);
                }
                for m in 0..M {
                    let weight = S::splat(weights[m][page][j]);
                    for n in 0..R {
                        acc[m][n] = S::fma(value[n], weight, acc[m][n]);
                    }
                }
            }
        }
        for m in 0..M {
            for n in 0..R {
                S::store(sums.as_mut_ptr().add(offset(m, n)), acc[m][n]);
            }
        }
    }
    R * S::LANES
}
