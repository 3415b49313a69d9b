//! Attention: queries of one key/value head over the pages of a sequence.

use crate::cpu::cache::Panels;
use crate::cpu::kernels::{Output, dispatch};
use crate::cpu::math::{exp, fma};
#[cfg(target_arch = "aarch64")]
use crate::cpu::simd::Neon;
#[cfg(target_arch = "x86_64")]
use crate::cpu::simd::{Avx2, Avx512};
use crate::cpu::simd::{F16, F32, Format, Isa, Portable, Simd};
use crate::{BlockSparse, Heads, KvType, Mask, PAGE};
use half::f16;
use std::cell::Cell;
use std::ops::Range;

/// `out[i] = query i` attended over the pages: queries of one key/value head, rows first, then the heads of the group.
pub(crate) struct Task<'a> {
    /// Queries `[rows, heads of all]`; this task takes `heads` of each of `rows`.
    pub(crate) q: &'a [f32],
    /// Width of a row of q and of the output.
    pub(crate) width: usize,
    /// Rows of the pass.
    pub(crate) rows: Range<usize>,
    /// Position of the first of these rows.
    pub(crate) position: usize,
    /// Query heads of this task: one key/value head's.
    pub(crate) heads: Range<usize>,
    /// Width of a head.
    pub(crate) head_dim: usize,
    /// Key and value panels of page i of the sequence, for this key/value head.
    pub(crate) panels: &'a (dyn Fn(usize) -> Panels<'a> + Sync),
    /// Positions that a row attends to.
    pub(crate) mask: Mask,
    /// The position after the last one of the segment.
    pub(crate) end: usize,
    /// Factor of the scores.
    pub(crate) scale: f32,
}

impl Panels<'_> {
    /// Prefetches the panels of the next page: panels of a head are too far apart for the hardware prefetcher.
    #[inline(always)]
    fn prefetch<S: Simd>(&self) {
        let lines = |first: *const u8, bytes: usize| {
            for at in (0..bytes).step_by(64) {
                // SAFETY: a prefetch never faults.
                unsafe { S::prefetch(first.wrapping_add(at)) };
            }
        };
        match self {
            Panels::F32 { keys, values } => {
                lines(keys.as_ptr().cast(), size_of_val(*keys));
                lines(values.as_ptr().cast(), size_of_val(*values));
            }
            Panels::F16 { keys, values } => {
                lines(keys.as_ptr().cast(), size_of_val(*keys));
                lines(values.as_ptr().cast(), size_of_val(*values));
            }
            Panels::Q8_0 { keys, values, .. } => {
                lines(keys.as_ptr().cast(), keys.len());
                lines(values.as_ptr().cast(), values.len());
            }
        }
    }
}

/// Running softmax of one query: the maximum `max` of its scores s, and `sum(exp(s - max))`. `sum(exp(s - max) v)` is among the
/// sums of the task.
#[derive(Clone, Copy)]
struct Running {
    max: f32,
    sum: f32,
}

/// Least number of queries for which a page of halves is widened once for all.
const WIDEN_MIN_QUERIES: usize = 8;

/// Pages whose scores are computed before their values are read: sums are rescaled once for all of them.
const GROUP: usize = 4;

/// Scratch memory of a task, kept by its thread.
#[derive(Default)]
struct Scratch {
    running: Vec<Running>,
    /// Queries and their sums `[rows, heads of the task, head_dim]`: the rows of a pass are so far apart in memory that they
    /// would share a few lines of the first-level cache.
    queries: Vec<f32>,
    sums: Vec<f32>,
    /// Keys and values of a group of pages.
    widened: Vec<f32>,
}

thread_local! {
    static SCRATCH: Cell<Scratch> =
        const { Cell::new(Scratch { running: Vec::new(), queries: Vec::new(), sums: Vec::new(), widened: Vec::new() }) };
}

/// Attention of one task; see [`Task`]. Writes rows and heads of its own.
pub(crate) fn attend(isa: Isa, task: &Task<'_>, out: Output<'_>) {
    let mut scratch = SCRATCH.take();
    // SAFETY: an ISA in use is available; panels have the sizes of their cache.
    unsafe { attend_rows(isa, task, &mut scratch, out) }
    SCRATCH.set(scratch);
}

dispatch!(attend_rows = attend_generic(task: &Task<'_>, scratch: &mut Scratch, out: Output<'_>));

#[inline(always)]
unsafe fn attend_generic<S: Simd>(task: &Task<'_>, scratch: &mut Scratch, out: Output<'_>) {
    let (d, count) = (task.head_dim, task.rows.len() * task.heads.len());
    let columns = task.heads.start * d..task.heads.end * d;
    scratch.queries.clear();
    for row in task.rows.clone() {
        scratch.queries.extend_from_slice(&task.q[row * task.width..][columns.clone()]);
    }
    scratch.running.clear();
    scratch.running.resize(count, Running { max: f32::NEG_INFINITY, sum: 0.0 });
    scratch.sums.clear();
    scratch.sums.resize(count * d, 0.0);
    scratch.widened.resize(GROUP * 2 * PAGE * d, 0.0);
    let mut state = State { queries: &scratch.queries, sums: &mut scratch.sums, running: &mut scratch.running };
    let last_page = task.last_page();
    let mut page = task.first_seen(task.position) / PAGE;
    while page <= last_page {
        // groups begin at multiples, so that sums do not depend on the pass
        let pages = page..((page / GROUP + 1) * GROUP).min(last_page + 1);
        page = pages.end;
        if !task.sees_any(&pages) {
            continue;
        }
        // SAFETY: panels have the sizes of the cache.
        unsafe {
            match gather::<S>(task, pages, count, &mut scratch.widened) {
                (group, false) => attend_group::<S, F32>(task, &group, &mut state),
                (group, true) => attend_group::<S, F16>(task, &group, &mut state),
            }
        }
    }
    for (row, (sums, running)) in
        task.rows.clone().zip(state.sums.chunks_exact(columns.len()).zip(state.running.chunks_exact(task.heads.len())))
    {
        // SAFETY: this task alone writes these rows and heads.
        let out = unsafe { out.slice(row, columns.clone()) };
        for ((out, sums), running) in out.chunks_exact_mut(d).zip(sums.chunks_exact(d)).zip(running) {
            let inverse = 1.0 / running.sum;
            out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum * inverse);
        }
    }
}

/// Queries of a task, and their sums so far.
struct State<'a> {
    queries: &'a [f32],
    sums: &'a mut [f32],
    running: &'a mut [Running],
}

impl Task<'_> {
    /// The first position that a row at `position` sees.
    #[inline(always)]
    fn first_seen(&self, position: usize) -> usize {
        self.mask.window().map_or(0, |window| (position + 1).saturating_sub(window))
    }

    /// The position after the last one that a row at `position` sees.
    #[inline(always)]
    fn seen_end(&self, position: usize) -> usize {
        if self.mask == Mask::Full { self.end } else { position + 1 }
    }

    /// The last page that any row sees.
    #[inline(always)]
    fn last_page(&self) -> usize {
        (self.seen_end(self.position + self.rows.len() - 1) - 1) / PAGE
    }

    /// Positions of a group that query i sees, from the first of the group on.
    #[inline(always)]
    fn seen(&self, i: usize, group: &Group) -> Range<usize> {
        let position = self.position + i / self.heads.len();
        let (first, last) = (group.position, group.position + group.pages * PAGE);
        let low = self.first_seen(position).clamp(first, last);
        let high = self.seen_end(position).clamp(first, last);
        match self.mask {
            Mask::Blocks(blocks) => self.seen_blocks(blocks, i, position, low..high, first),
            Mask::Causal | Mask::Window(_) | Mask::Full => low - first..high - first,
        }
    }

    /// Query head of query i.
    #[inline(always)]
    fn head(&self, i: usize) -> usize {
        self.heads.start + i % self.heads.len()
    }

    /// Positions of `range` from the first to the last that query i sees, from `first` on.
    fn seen_blocks(
        &self,
        blocks: BlockSparse,
        i: usize,
        position: usize,
        range: Range<usize>,
        first: usize,
    ) -> Range<usize> {
        let sees = |block: &usize| blocks.sees(self.head(i), position / blocks.block, *block);
        let mut all = range.start / blocks.block..range.end.div_ceil(blocks.block);
        let Some(low) = all.find(sees) else { return 0..0 };
        let high = all.rev().find(sees).unwrap_or(low);
        let low = (low * blocks.block).clamp(range.start, range.end);
        low - first..((high + 1) * blocks.block).min(range.end) - first
    }

    /// Whether any query sees any of the pages.
    fn sees_any(&self, pages: &Range<usize>) -> bool {
        let Mask::Blocks(blocks) = self.mask else { return true };
        let query = self.position / blocks.block;
        let last = (pages.end * PAGE - 1) / blocks.block;
        let mut keys = pages.start * PAGE / blocks.block..=last;
        last + blocks.local > query || keys.any(|key| self.heads.clone().any(|head| blocks.sees(head, query, key)))
    }
}

/// Keys and values of neighbouring pages.
struct Group {
    /// First position of the first page.
    position: usize,
    pages: usize,
    keys: [*const u8; GROUP],
    values: [*const u8; GROUP],
}

/// Returns the panels of the pages, widened into `scratch` where their type needs it, and whether they are halves.
#[inline(always)]
unsafe fn gather<S: Simd>(task: &Task<'_>, pages: Range<usize>, count: usize, scratch: &mut [f32]) -> (Group, bool) {
    let panel = PAGE * task.head_dim;
    let last_page = task.last_page();
    let none = [std::ptr::null(); GROUP];
    let mut group = Group { position: pages.start * PAGE, pages: pages.len(), keys: none, values: none };
    let mut halves = false;
    for ((i, page), scratch) in pages.enumerate().zip(scratch.chunks_exact_mut(2 * panel)) {
        if count < WIDEN_MIN_QUERIES && page < last_page {
            (task.panels)(page + 1).prefetch::<S>();
        }
        let (to_keys, to_values) = scratch.split_at_mut(panel);
        (group.keys[i], group.values[i]) = match (task.panels)(page) {
            Panels::F32 { keys, values } => (keys.as_ptr().cast(), values.as_ptr().cast()),
            Panels::F16 { keys, values } if count < WIDEN_MIN_QUERIES => {
                halves = true;
                (keys.as_ptr().cast(), values.as_ptr().cast())
            }
            Panels::F16 { keys, values } => {
                // SAFETY: the caller guarantees that panels have the sizes of the cache.
                unsafe {
                    widen_halves::<S>(keys, to_keys);
                    widen_halves::<S>(values, to_values);
                }
                (to_keys.as_ptr().cast(), to_values.as_ptr().cast())
            }
            Panels::Q8_0 { keys, values, key_scales, value_scales, heads } => {
                widen_keys(heads, keys, key_scales, to_keys);
                widen_values(task.head_dim, values, value_scales, to_values);
                (to_keys.as_ptr().cast(), to_values.as_ptr().cast())
            }
        };
    }
    (group, halves)
}

#[inline(always)]
unsafe fn widen_halves<S: Simd>(halves: &[u16], out: &mut [f32]) {
    let whole = halves.len() / S::LANES * S::LANES;
    for at in (0..whole).step_by(S::LANES) {
        // SAFETY: the caller guarantees the instruction set and that `out` is as long as `halves`; LANES elements are left.
        unsafe { S::store(out.as_mut_ptr().add(at), S::load_f16(halves.as_ptr().add(at).cast())) };
    }
    for (out, half) in out[whole..].iter_mut().zip(&halves[whole..]) {
        *out = f16::from_bits(*half).to_f32();
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

/// Attention of all queries of the task over a group.
#[inline(always)]
unsafe fn attend_group<S: Simd, F: Format>(task: &Task<'_>, group: &Group, state: &mut State<'_>) {
    let mut i = 0;
    while i < state.running.len() {
        // SAFETY: the caller guarantees that panels have the sizes of the cache.
        i += unsafe {
            match state.running.len() - i {
                4.. if S::ROWS >= 4 => queries::<S, F, 4>(task, group, i, state),
                2.. => queries::<S, F, 2>(task, group, i, state),
                _ => queries::<S, F, 1>(task, group, i, state),
            }
        };
    }
}

/// Attention of queries `first .. first + M` over a group. Returns M.
#[inline(always)]
unsafe fn queries<S: Simd, F: Format, const M: usize>(
    task: &Task<'_>,
    group: &Group,
    first: usize,
    state: &mut State<'_>,
) -> usize {
    let d = task.head_dim;
    let seen: [Range<usize>; M] = std::array::from_fn(|m| task.seen(first + m, group));
    if seen.iter().all(Range::is_empty) {
        return M;
    }
    let q: [&[f32]; M] = std::array::from_fn(|m| &state.queries[(first + m) * d..][..d]);
    let sums = &mut state.sums[first * d..][..M * d];
    let running = &mut state.running[first..][..M];
    // SAFETY: the caller guarantees the instruction set, keys `[d][PAGE]` and values `[PAGE][d]`.
    unsafe {
        let mut weights = [[[0.0; PAGE]; GROUP]; M];
        for page in 0..group.pages {
            scores::<S, F, M>(q, group.keys[page], task.scale, page, &mut weights);
        }
        if let Mask::Blocks(_) = task.mask {
            for m in 0..M {
                hide(task, group, first + m, &seen[m], &mut weights[m]);
            }
        }
        for m in (0..M).filter(|&m| !seen[m].is_empty()) {
            softmax::<S>(&mut weights[m][..group.pages], &seen[m], &mut running[m], &mut sums[m * d..][..d]);
        }
        // positions in order; values that a query does not see may be NaN
        let low = seen.iter().fold(0, |low, seen| low.max(seen.start));
        let high = seen.iter().fold(usize::MAX, |high, seen| high.min(seen.end)).max(low);
        for m in 0..M {
            let seen = seen[m].start..low.min(seen[m].end);
            accumulate::<S, F, 1>(&[weights[m]], seen, &group.values, &mut sums[m * d..][..d], d);
        }
        accumulate::<S, F, M>(&weights, low..high, &group.values, sums, d);
        for m in 0..M {
            let seen = high.max(seen[m].start)..seen[m].end;
            accumulate::<S, F, 1>(&[weights[m]], seen, &group.values, &mut sums[m * d..][..d], d);
        }
    }
    M
}

/// Hides the positions between those that query i sees.
fn hide(task: &Task<'_>, group: &Group, i: usize, seen: &Range<usize>, scores: &mut [[f32; PAGE]; GROUP]) {
    let (head, own) = (task.head(i), task.position + i / task.heads.len());
    for at in seen.clone().filter(|at| !task.mask.sees(head, own, group.position + at)) {
        scores[at / PAGE][at % PAGE] = f32::NEG_INFINITY;
    }
}

/// Scores of the positions of a page, each summed in four chains.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "two-dimensional accumulators, unrolled by constant bounds")]
unsafe fn scores<S: Simd, F: Format, const M: usize>(
    q: [&[f32]; M],
    keys: *const u8,
    scale: f32,
    page: usize,
    scores: &mut [[[f32; PAGE]; GROUP]; M],
) {
    let d = q[0].len();
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
                S::store(scores[m][page].as_mut_ptr().add(at), sum);
            }
        }
    }
    for scores in scores {
        for score in &mut scores[page] {
            *score *= scale;
        }
    }
}

/// Turns scores into `exp(s - max)`, and 0 where the mask hides them (online softmax, arXiv 1805.02867). Sums so far are rescaled
/// where the maximum grows.
#[inline(always)]
fn softmax<S: Simd>(scores: &mut [[f32; PAGE]], seen: &Range<usize>, running: &mut Running, sums: &mut [f32]) {
    // loops, because closures may be compiled without the ISA's instructions
    let mut maxes = [f32::NEG_INFINITY; PAGE];
    for (page, scores) in scores.iter_mut().enumerate() {
        for j in 0..PAGE {
            let at = page * PAGE + j;
            scores[j] = if seen.start <= at && at < seen.end { scores[j] } else { f32::NEG_INFINITY };
            maxes[j] = maxes[j].max(scores[j]);
        }
    }
    let mut width = PAGE / 2;
    while width > 0 {
        for j in 0..width {
            maxes[j] = maxes[j].max(maxes[j + width]);
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
unsafe fn accumulate<S: Simd, F: Format, const M: usize>(
    weights: &[[[f32; PAGE]; GROUP]; M],
    seen: Range<usize>,
    values: &[*const u8; GROUP],
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
                8.. if M == 1 => dimensions::<S, F, M, 8>(weights, &seen, values, d, at, sums),
                6.. if M >= 4 => dimensions::<S, F, M, 6>(weights, &seen, values, d, at, sums),
                4.. if M <= 2 => dimensions::<S, F, M, 4>(weights, &seen, values, d, at, sums),
                2.. => dimensions::<S, F, M, 2>(weights, &seen, values, d, at, sums),
                1 => dimensions::<S, F, M, 1>(weights, &seen, values, d, at, sums),
                _ => break,
            };
        }
        for (weights, sums) in weights.iter().zip(sums.chunks_exact_mut(d)) {
            for j in seen.clone() {
                let (page, j) = (j / PAGE, j % PAGE);
                for (i, sum) in sums.iter_mut().enumerate().skip(at) {
                    *sum = fma::<S>(F::one(values[page].add((j * d + i) * F::BYTES)), weights[page][j], *sum);
                }
            }
        }
    }
}

/// Adds N registers of dimensions from `at` on. Returns the number of dimensions.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "two-dimensional accumulators, unrolled by constant bounds")]
unsafe fn dimensions<S: Simd, F: Format, const M: usize, const N: usize>(
    weights: &[[[f32; PAGE]; GROUP]; M],
    seen: &Range<usize>,
    values: &[*const u8; GROUP],
    d: usize,
    at: usize,
    sums: &mut [f32],
) -> usize {
    // SAFETY: the caller guarantees that panels have the sizes of the cache.
    unsafe {
        let offset = |m: usize, n: usize| m * d + at + n * S::LANES;
        let mut acc = [[S::zero(); N]; M];
        for m in 0..M {
            for n in 0..N {
                acc[m][n] = S::load(sums.as_ptr().add(offset(m, n)));
            }
        }
        for page in seen.start / PAGE..seen.end.div_ceil(PAGE) {
            let first = page * PAGE;
            for j in seen.start.max(first) - first..seen.end.min(first + PAGE) - first {
                let row = values[page].add((j * d + at) * F::BYTES);
                let mut value = [S::zero(); N];
                for n in 0..N {
                    value[n] = F::load::<S>(row.add(n * S::LANES * F::BYTES));
                }
                for m in 0..M {
                    let weight = S::splat(weights[m][page][j]);
                    for n in 0..N {
                        acc[m][n] = S::fma(value[n], weight, acc[m][n]);
                    }
                }
            }
        }
        for m in 0..M {
            for n in 0..N {
                S::store(sums.as_mut_ptr().add(offset(m, n)), acc[m][n]);
            }
        }
    }
    N * S::LANES
}
