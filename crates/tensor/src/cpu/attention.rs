//! Attention: queries of one key/value head over the pages of a sequence.

use super::kernels::{Output, dispatch, exp, fma};
#[cfg(target_arch = "aarch64")]
use super::simd::Neon;
#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2, Avx512};
use super::simd::{F16, F32, Format, Level, Portable, Simd};
use crate::{Heads, KvType, PAGE};
use std::cell::Cell;
use std::ops::Range;

/// `out[i] = query i` attended over the pages: queries of one key/value head, rows first, then the heads of the group.
pub(super) struct Attend<'a> {
    /// Queries `[rows, heads of all]`; this task takes `heads` of each of `rows`.
    pub(super) q: &'a [f32],
    /// Width of a row of q and of the output.
    pub(super) width: usize,
    /// Rows of the pass.
    pub(super) rows: Range<usize>,
    /// Position of the first of these rows.
    pub(super) position: usize,
    /// Query heads of this task: one key/value head's.
    pub(super) heads: Range<usize>,
    /// Width of a head.
    pub(super) head_dim: usize,
    /// Key and value panels of page i of the sequence, for this key/value head.
    pub(super) panels: &'a (dyn Fn(usize) -> Panels<'a> + Sync),
    /// Window, if there is one.
    pub(super) window: Option<usize>,
    /// Factor of the scores.
    pub(super) scale: f32,
}

/// Keys `[head_dim][PAGE]` and values `[PAGE][head_dim]` of a head on a page, by type of cache.
pub(super) enum Panels<'a> {
    F32 { keys: &'a [f32], values: &'a [f32] },
    F16 { keys: &'a [u16], values: &'a [u16] },
    Q8_0 { keys: &'a [i8], values: &'a [i8], key_scales: &'a [f32], value_scales: &'a [f32], heads: Heads },
}

/// Running softmax of one query: `sum(exp(s - most))`; the sum of `exp(s - most) v` is in the output.
#[derive(Clone, Copy)]
struct Running {
    most: f32,
    sum: f32,
}

/// What a task needs beside its arguments, kept by its thread.
#[derive(Default)]
struct Room {
    running: Vec<Running>,
    widened: Vec<f32>,
}

thread_local! {
    static ROOM: Cell<Room> = const { Cell::new(Room { running: Vec::new(), widened: Vec::new() }) };
}

/// Attention of one task; see [`Attend`]. Writes rows and heads of its own.
pub(super) fn attend(level: Level, task: &Attend<'_>, out: Output<'_>) {
    let mut room = ROOM.take();
    // SAFETY: the level is available; panels have the sizes of the cache that they are from.
    unsafe { attend_rows(level, task, &mut room, out) }
    ROOM.set(room);
}

dispatch!(attend_rows = attend_generic(task: &Attend<'_>, room: &mut Room, out: Output<'_>));

#[inline(always)]
unsafe fn attend_generic<S: Simd>(task: &Attend<'_>, room: &mut Room, out: Output<'_>) {
    let d = task.head_dim;
    let last_position = task.position + task.rows.len() - 1;
    let Room { running, widened } = room;
    running.clear();
    running.resize(task.rows.len() * task.heads.len(), Running { most: f32::NEG_INFINITY, sum: 0.0 });
    for row in task.rows.clone() {
        // SAFETY: rows and heads of this task only.
        unsafe { out.slice(row, task.heads.start * d..task.heads.end * d) }.fill(0.0);
    }
    for page in task.first_seen(task.position) / PAGE..=last_position / PAGE {
        // SAFETY: the caller's.
        unsafe {
            match (task.panels)(page) {
                Panels::F32 { keys, values } => {
                    attend_page::<S, F32>(task, page, keys.as_ptr().cast(), values.as_ptr().cast(), running, out);
                }
                Panels::F16 { keys, values } => {
                    attend_page::<S, F16>(task, page, keys.as_ptr().cast(), values.as_ptr().cast(), running, out);
                }
                Panels::Q8_0 { keys, values, key_scales, value_scales, heads } => {
                    widened.resize(2 * PAGE * d, 0.0);
                    let (to_keys, to_values) = widened.split_at_mut(PAGE * d);
                    widen_keys(heads, keys, key_scales, to_keys);
                    widen_values(d, values, value_scales, to_values);
                    let (keys, values) = (to_keys.as_ptr(), to_values.as_ptr());
                    attend_page::<S, F32>(task, page, keys.cast(), values.cast(), running, out);
                }
            }
        }
    }
    for (i, running) in running.iter().enumerate() {
        let inverse = 1.0 / running.sum;
        // SAFETY: rows and heads of this task only.
        unsafe { task.query(i).output(out, d) }.iter_mut().for_each(|v| *v *= inverse);
    }
}

/// A query of a task: its row, and its head of all heads.
#[derive(Clone, Copy)]
struct Query {
    row: usize,
    head: usize,
}

impl Query {
    /// # Safety
    ///
    /// The query is the task's own.
    #[inline(always)]
    unsafe fn output(self, out: Output<'_>, d: usize) -> &mut [f32] {
        // SAFETY: the caller's.
        unsafe { out.slice(self.row, self.head * d..(self.head + 1) * d) }
    }
}

impl Attend<'_> {
    /// The first position that one at `position` sees.
    #[inline(always)]
    fn first_seen(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    /// Query i, rows first.
    #[inline(always)]
    fn query(&self, i: usize) -> Query {
        let group = self.heads.len();
        Query { row: self.rows.start + i / group, head: self.heads.start + i % group }
    }

    /// What query i sees of a page.
    #[inline(always)]
    fn seen(&self, i: usize, page: usize) -> Range<usize> {
        let position = self.position + i / self.heads.len();
        let low = self.first_seen(position).clamp(page * PAGE, (page + 1) * PAGE);
        let high = (position + 1).clamp(page * PAGE, (page + 1) * PAGE);
        low - page * PAGE..high - page * PAGE
    }
}

#[inline(always)]
fn widen_keys(heads: Heads, keys: &[i8], scales: &[f32], out: &mut [f32]) {
    for (i, (out, levels)) in out.chunks_exact_mut(PAGE).zip(keys.chunks_exact(PAGE)).enumerate() {
        let scales = &scales[heads.key_block(i) * PAGE..][..PAGE];
        for ((out, &level), scale) in out.iter_mut().zip(levels).zip(scales) {
            *out = f32::from(level) * scale;
        }
    }
}

#[inline(always)]
fn widen_values(d: usize, values: &[i8], scales: &[f32], out: &mut [f32]) {
    let rows = out.chunks_exact_mut(d).zip(values.chunks_exact(d));
    for ((out, levels), scales) in rows.zip(scales.chunks_exact(d.div_ceil(KvType::BLOCK))) {
        let blocks = out.chunks_mut(KvType::BLOCK).zip(levels.chunks(KvType::BLOCK)).zip(scales);
        for ((out, levels), scale) in blocks {
            out.iter_mut().zip(levels).for_each(|(out, &level)| *out = f32::from(level) * scale);
        }
    }
}

/// A page for all queries of the task.
#[inline(always)]
unsafe fn attend_page<S: Simd, F: Format>(
    task: &Attend<'_>,
    page: usize,
    keys: *const u8,
    values: *const u8,
    running: &mut [Running],
    out: Output<'_>,
) {
    let mut i = 0;
    while i < running.len() {
        // SAFETY: the caller's.
        i += unsafe {
            match running.len() - i {
                n if n >= 4 && S::ROWS >= 4 => queries::<S, F, 4>(task, page, keys, values, i, running, out),
                _ => queries::<S, F, 1>(task, page, keys, values, i, running, out),
            }
        };
    }
}

/// A page for queries `first .. first + M`. Returns M.
#[inline(always)]
unsafe fn queries<S: Simd, F: Format, const M: usize>(
    task: &Attend<'_>,
    page: usize,
    keys: *const u8,
    values: *const u8,
    first: usize,
    running: &mut [Running],
    out: Output<'_>,
) -> usize {
    let d = task.head_dim;
    let seen: [Range<usize>; M] = std::array::from_fn(|m| task.seen(first + m, page));
    if seen.iter().all(Range::is_empty) {
        return M;
    }
    let q: [&[f32]; M] = std::array::from_fn(|m| {
        let query = task.query(first + m);
        &task.q[query.row * task.width + query.head * d..][..d]
    });
    // SAFETY: keys `[d][PAGE]`, values `[PAGE][d]`; the queries' outputs are the task's own.
    unsafe {
        let scores = scores::<S, F, M>(q, keys, task.scale);
        for m in (0..M).filter(|&m| !seen[m].is_empty()) {
            let acc = task.query(first + m).output(out, d);
            let weights = softmax::<S>(&scores[m], seen[m].clone(), &mut running[first + m], acc);
            accumulate::<S, F>(&weights, seen[m].clone(), values, acc);
        }
    }
    M
}

/// Scores of the positions of a page, each summed in four chains.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "two-dimensional accumulators, unrolled by constant bounds")]
unsafe fn scores<S: Simd, F: Format, const M: usize>(q: [&[f32]; M], keys: *const u8, scale: f32) -> [[f32; PAGE]; M] {
    let d = q[0].len();
    let mut scores = [[0.0; PAGE]; M];
    for at in (0..PAGE).step_by(S::LANES) {
        // SAFETY: keys are `[d][PAGE]`, i is below d, LANES divides PAGE.
        unsafe {
            let mut acc = [[S::zero(); 4]; M];
            let key = |i: usize| F::load::<S>(keys.add((i * PAGE + at) * F::BYTES));
            let whole = d / 4 * 4;
            for i in (0..whole).step_by(4) {
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
                S::store(scores[m].as_mut_ptr().add(at), sum);
            }
        }
    }
    for scores in &mut scores {
        for score in scores {
            *score *= scale;
        }
    }
    scores
}

/// `exp(s - most)` of the positions seen; what was summed before is scaled where `most` grows.
#[inline(always)]
fn softmax<S: Simd>(scores: &[f32; PAGE], seen: Range<usize>, running: &mut Running, acc: &mut [f32]) -> [f32; PAGE] {
    let most = scores[seen.clone()].iter().copied().fold(running.most, f32::max);
    if most > running.most {
        let factor = exp::<S>(running.most - most);
        running.sum *= factor;
        acc.iter_mut().for_each(|v| *v *= factor);
        running.most = most;
    }
    let most = running.most;
    // loops, because closures may be compiled without the level's instructions
    let mut weights = [0.0; PAGE];
    for j in 0..PAGE {
        let weight = exp::<S>(scores[j] - most);
        weights[j] = if seen.start <= j && j < seen.end { weight } else { 0.0 };
    }
    let mut sums = [0.0; 4];
    for i in 0..4 {
        sums[i] = (weights[i] + weights[4 + i]) + (weights[8 + i] + weights[12 + i]);
    }
    running.sum += (sums[0] + sums[1]) + (sums[2] + sums[3]);
    weights
}

/// Adds the positions `seen` of a page.
#[inline(always)]
unsafe fn accumulate<S: Simd, F: Format>(
    weights: &[f32; PAGE],
    seen: Range<usize>,
    values: *const u8,
    acc: &mut [f32],
) {
    let d = acc.len();
    let mut at = 0;
    // SAFETY: values are `[PAGE][d]`; each arm takes as many dimensions as are left.
    unsafe {
        while at < d {
            at += match (d - at) / S::LANES {
                8.. => dimensions::<S, F, 8>(weights, &seen, values, d, at, acc),
                4.. => dimensions::<S, F, 4>(weights, &seen, values, d, at, acc),
                2.. => dimensions::<S, F, 2>(weights, &seen, values, d, at, acc),
                1 => dimensions::<S, F, 1>(weights, &seen, values, d, at, acc),
                _ => break,
            };
        }
        for j in seen {
            for (i, acc) in acc.iter_mut().enumerate().skip(at) {
                *acc = fma::<S>(F::one(values.add((j * d + i) * F::BYTES)), weights[j], *acc);
            }
        }
    }
}

/// N registers of dimensions from `at` on. Returns how many dimensions.
#[inline(always)]
unsafe fn dimensions<S: Simd, F: Format, const N: usize>(
    weights: &[f32; PAGE],
    seen: &Range<usize>,
    values: *const u8,
    d: usize,
    at: usize,
    acc: &mut [f32],
) -> usize {
    // SAFETY: the caller's.
    unsafe {
        let out = acc.as_mut_ptr().add(at);
        let mut sums = [S::zero(); N];
        for (n, sum) in sums.iter_mut().enumerate() {
            *sum = S::load(out.add(n * S::LANES));
        }
        for j in seen.clone() {
            let (weight, row) = (S::splat(weights[j]), values.add((j * d + at) * F::BYTES));
            for (n, sum) in sums.iter_mut().enumerate() {
                *sum = S::fma(F::load::<S>(row.add(n * S::LANES * F::BYTES)), weight, *sum);
            }
        }
        for (n, sum) in sums.into_iter().enumerate() {
            S::store(out.add(n * S::LANES), sum);
        }
    }
    N * S::LANES
}
