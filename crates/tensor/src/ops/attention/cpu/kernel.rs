//! Attention: queries of one key/value head over the pages of a sequence.

use super::panels::{self, Levels, Numbers, Plain};
use super::products::{GROUP, NOTHING, accumulate, scores, softmax, tiles};
use super::sums::{CHUNK, Sums};
use crate::cpu::cache::{Cache, Panels};
use crate::cpu::kernels::{Output, dispatch};
#[cfg(target_arch = "aarch64")]
use crate::cpu::simd::Neon;
#[cfg(target_arch = "x86_64")]
use crate::cpu::simd::{Avx2, Avx512};
use crate::cpu::simd::{F16, F32, Isa, Portable, Simd};
use crate::{BlockSparse, Mask, PAGE};
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
    pub(crate) cache: &'a Cache,
    pub(crate) layer: usize,
    /// Pages of the sequence.
    pub(crate) pages: &'a [u32],
    pub(crate) kv_head: usize,
    /// Positions that a row attends to.
    pub(crate) mask: Mask,
    /// The position after the last one of the segment.
    pub(crate) end: usize,
    /// Factor of the scores.
    pub(crate) scale: f32,
}

/// Least number of queries for which a page is widened once for all.
const WIDEN_MIN_QUERIES: usize = 8;

/// Panels between the one that is read and the one that is prefetched: panels of a head are too far apart in memory for the
/// hardware's prefetcher.
const AHEAD: usize = 2;

/// Scratch memory of a task, kept by its thread.
#[derive(Default)]
struct Scratch {
    /// Queries `[rows, heads of the task, head_dim]`: the rows of a pass are so far apart in memory that they would share a few lines
    /// of the first-level cache.
    queries: Vec<f32>,
    /// [`Sums`] of all chunks so far, and of one.
    sums: [Vec<f32>; 2],
    /// Keys and values of a group of pages.
    widened: Vec<f32>,
    /// Weights of the positions of a group, of each query.
    weights: Vec<[[f32; PAGE]; GROUP]>,
}

thread_local! {
    static SCRATCH: Cell<Scratch> = const {
        Cell::new(Scratch {
            queries: Vec::new(),
            sums: [Vec::new(), Vec::new()],
            widened: Vec::new(),
            weights: Vec::new(),
        })
    };
}

/// Attention of one task; see [`Task`]. Writes rows and heads of its own.
pub(crate) fn attend(isa: Isa, task: &Task<'_>, out: Output<'_>) {
    let mut scratch = SCRATCH.take();
    let Scratch { queries, sums, widened, weights } = &mut scratch;
    task.gather(queries);
    let [mut all, mut next] = sums.each_mut().map(|numbers| {
        numbers.resize(task.sums_len(), 0.0);
        Sums::of(numbers, task.queries(), task.head_dim)
    });
    let chunks = task.chunks();
    for chunk in chunks.clone() {
        let sums = if chunk == chunks.start { &mut all } else { &mut next };
        // SAFETY: an ISA in use is available; panels have the sizes of their cache.
        unsafe { sum_chunk(isa, task, chunk, &mut State { queries, sums, widened, weights }) }
        if chunk > chunks.start {
            all.merge(isa, &next);
        }
    }
    task.write(&all, out);
    SCRATCH.set(scratch);
}

/// Sums of one chunk of a task's positions into `numbers`, [`Task::sums_len`] of them.
pub(crate) fn attend_chunk(isa: Isa, task: &Task<'_>, chunk: usize, numbers: &mut [f32]) {
    let mut scratch = SCRATCH.take();
    task.gather(&mut scratch.queries);
    let mut sums = Sums::of(numbers, task.queries(), task.head_dim);
    let Scratch { queries, widened, weights, .. } = &mut scratch;
    let mut state = State { queries, sums: &mut sums, widened, weights };
    // SAFETY: an ISA in use is available; panels have the sizes of their cache.
    unsafe { sum_chunk(isa, task, chunk, &mut state) }
    SCRATCH.set(scratch);
}

/// Attention of a task from the sums of its chunks, in order, which [`attend_chunk`] has written.
pub(crate) fn combine<'a>(isa: Isa, task: &Task<'_>, mut chunks: impl Iterator<Item = &'a mut [f32]>, out: Output<'_>) {
    let of = |numbers| Sums::of(numbers, task.queries(), task.head_dim);
    let Some(mut all) = chunks.next().map(of) else { return };
    chunks.for_each(|next| all.merge(isa, &of(next)));
    task.write(&all, out);
}

dispatch!(sum_chunk = sum_chunk_generic(task: &Task<'_>, chunk: usize, state: &mut State<'_, '_>));

/// Sums of the positions of a chunk.
///
/// # Safety
///
/// The instruction set of S is available, and panels have the sizes of the cache.
#[inline(always)]
unsafe fn sum_chunk_generic<S: Simd>(task: &Task<'_>, chunk: usize, state: &mut State<'_, '_>) {
    let d = task.head_dim;
    state.sums.clear();
    state.widened.resize(GROUP * 2 * PAGE * d, 0.0);
    let chunk = chunk * CHUNK / PAGE..(chunk + 1) * CHUNK / PAGE;
    let end = chunk.end.min(task.last_page() + 1);
    let mut page = chunk.start.max(task.first_seen(task.position) / PAGE);
    while page < end {
        // groups begin at multiples, so that sums do not depend on the pass
        let pages = page..((page / GROUP + 1) * GROUP).min(end);
        page = pages.end;
        if !task.sees_any(&pages) {
            continue;
        }
        // SAFETY: panels have the sizes of the cache; the caller guarantees the instruction set.
        unsafe {
            if task.queries() >= WIDEN_MIN_QUERIES {
                for (page, widened) in pages.clone().zip(state.widened.chunks_exact_mut(2 * PAGE * d)) {
                    panels::widen::<S>(&task.panels(page), d, widened);
                }
                let group = Group::of_widened(&pages, state.widened, PAGE * d);
                attend_group::<S, Plain<F32>>(task, &group, state);
                continue;
            }
            match task.panels(pages.start) {
                Panels::F32 { .. } => attend_group::<S, Plain<F32>>(task, &Group::new(task, &pages), state),
                Panels::F16 { .. } => attend_group::<S, Plain<F16>>(task, &Group::new(task, &pages), state),
                Panels::Q8_0 { .. } => attend_group::<S, Levels>(task, &Group::new(task, &pages), state),
            }
        }
    }
}

/// Queries of a task, their sums so far, and memory for a group of pages.
struct State<'a, 'b> {
    queries: &'a [f32],
    sums: &'a mut Sums<'b>,
    widened: &'a mut Vec<f32>,
    weights: &'a mut Vec<[[f32; PAGE]; GROUP]>,
}

impl Task<'_> {
    /// Keys and values of page `page` of the sequence.
    fn panels(&self, page: usize) -> Panels<'_> {
        self.cache.panels(self.layer, self.pages[page], self.kv_head)
    }

    /// Queries of the task.
    fn queries(&self) -> usize {
        self.rows.len() * self.heads.len()
    }

    /// Numbers that hold the sums of its queries.
    pub(crate) fn sums_len(&self) -> usize {
        Sums::len(self.queries(), self.head_dim)
    }

    /// Chunks of the positions that any row sees.
    pub(crate) fn chunks(&self) -> Range<usize> {
        self.first_seen(self.position) / CHUNK..self.last_page() * PAGE / CHUNK + 1
    }

    /// Columns of its heads in a row of q and of the output.
    fn columns(&self) -> Range<usize> {
        self.heads.start * self.head_dim..self.heads.end * self.head_dim
    }

    fn gather(&self, queries: &mut Vec<f32>) {
        queries.clear();
        for row in self.rows.clone() {
            queries.extend_from_slice(&self.q[row * self.width..][self.columns()]);
        }
    }

    /// Writes the sums, divided by those of the softmax, to rows and heads of its own.
    fn write(&self, sums: &Sums<'_>, out: Output<'_>) {
        let (d, heads) = (self.head_dim, self.heads.len());
        let rows = sums.values.chunks_exact(heads * d).zip(sums.running.chunks_exact(heads));
        for (row, (sums, running)) in self.rows.clone().zip(rows) {
            // SAFETY: this task alone writes these rows and heads.
            let out = unsafe { out.slice(row, self.columns()) };
            for ((out, sums), running) in out.chunks_exact_mut(d).zip(sums.chunks_exact(d)).zip(running) {
                let inverse = 1.0 / running.sum;
                out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum * inverse);
            }
        }
    }

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
    fn seen<N>(&self, i: usize, group: &Group<N>) -> Range<usize> {
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
struct Group<N> {
    /// First position of the first page.
    position: usize,
    pages: usize,
    panels: [N; GROUP],
    /// What is prefetched while each panel is read: the keys of the pages, then their values. Null is nothing.
    ahead: [*const u8; 2 * GROUP],
}

impl<N: Numbers> Group<N> {
    #[inline(always)]
    fn new(task: &Task<'_>, pages: &Range<usize>) -> Self {
        let (count, last) = (pages.len(), task.last_page());
        let of = |page: usize| N::of(task.panels(page));
        let panels = std::array::from_fn(|i| of((pages.start + i).min(last)));
        let ahead = std::array::from_fn(|i| match i + AHEAD {
            i if i < count => panels[i].first()[0],
            i if i < 2 * count => panels[i - count].first()[1],
            i if pages.end + i - 2 * count <= last => of(pages.end + i - 2 * count).first()[0],
            _ => std::ptr::null(),
        });
        Self { position: pages.start * PAGE, pages: count, panels, ahead }
    }

    /// Panels of `panel` numbers that were widened into `scratch`: keys, then values of each page.
    #[inline(always)]
    fn of_widened(pages: &Range<usize>, scratch: &[f32], panel: usize) -> Self {
        let panels = std::array::from_fn(|i| {
            let (keys, values) = scratch[2 * i * panel..][..2 * panel].split_at(panel);
            N::of(Panels::F32 { keys, values })
        });
        Self { position: pages.start * PAGE, pages: pages.len(), panels, ahead: NOTHING }
    }
}

/// Attention of all queries of the task over a group.
///
/// # Safety
///
/// The instruction set of S is available, and panels have the sizes of the cache.
#[inline(always)]
unsafe fn attend_group<S: Simd, N: Numbers>(task: &Task<'_>, group: &Group<N>, state: &mut State<'_, '_>) {
    let count = state.sums.running.len();
    // a block of queries after another, first with all keys, then with all values, which stay in the first-level cache
    state.weights.resize(count, [[0.0; PAGE]; GROUP]);
    let blocks = [count / 4 * 4, count / 2 * 2, count];
    // SAFETY: the contract of this function.
    unsafe {
        (0..blocks[0]).step_by(4).for_each(|i| weigh::<N, 4>(S::LEVEL, task, group, i, state));
        (blocks[0]..blocks[1]).step_by(2).for_each(|i| weigh::<N, 2>(S::LEVEL, task, group, i, state));
        (blocks[1]..blocks[2]).for_each(|i| weigh::<N, 1>(S::LEVEL, task, group, i, state));
        (0..blocks[0]).step_by(4).for_each(|i| add_values::<N, 4>(S::LEVEL, task, group, i, state));
        (blocks[0]..blocks[1]).step_by(2).for_each(|i| add_values::<N, 2>(S::LEVEL, task, group, i, state));
        (blocks[1]..blocks[2]).for_each(|i| add_values::<N, 1>(S::LEVEL, task, group, i, state));
    }
}

// functions of their own, because the compiler takes minutes for them in one
dispatch!(weigh<N: Numbers, M> = weigh_generic[N, M](
    task: &Task<'_>,
    group: &Group<N>,
    first: usize,
    state: &mut State<'_, '_>
));
dispatch!(add_values<N: Numbers, M> = add_values_generic[N, M](
    task: &Task<'_>,
    group: &Group<N>,
    first: usize,
    state: &mut State<'_, '_>
));

/// Weights of the positions of a group for queries `first .. first + M`.
///
/// # Safety
///
/// As for [`attend_group`].
#[inline(always)]
unsafe fn weigh_generic<S: Simd, N: Numbers, const M: usize>(
    task: &Task<'_>,
    group: &Group<N>,
    first: usize,
    state: &mut State<'_, '_>,
) {
    let d = task.head_dim;
    let seen: [Range<usize>; M] = std::array::from_fn(|m| task.seen(first + m, group));
    if seen.iter().all(Range::is_empty) {
        return;
    }
    let q: [&[f32]; M] = std::array::from_fn(|m| &state.queries[(first + m) * d..][..d]);
    let sums = &mut state.sums.values[first * d..][..M * d];
    let running = &mut state.sums.running[first..][..M];
    let Some(weights) = state.weights[first..].first_chunk_mut::<M>() else { return };
    // the first queries fetch for the others
    let ahead = if first == 0 { &group.ahead[..group.pages] } else { &NOTHING[..group.pages] };
    // SAFETY: the caller guarantees the instruction set and keys `[d][PAGE]`.
    unsafe {
        if M == 4 {
            tiles::<S, N, M>(q, &group.panels, ahead, task.scale, weights);
        } else {
            for (page, ahead) in ahead.iter().enumerate() {
                scores::<S, N, M>(q, group.panels[page], *ahead, task.scale, page, weights);
            }
        }
    }
    if let Mask::Blocks(_) = task.mask {
        for m in 0..M {
            hide(task, group, first + m, &seen[m], &mut weights[m]);
        }
    }
    for m in (0..M).filter(|&m| !seen[m].is_empty()) {
        softmax::<S>(&mut weights[m][..group.pages], &seen[m], &mut running[m], &mut sums[m * d..][..d]);
    }
}

/// Adds the values of a group to the sums of queries `first .. first + M`.
///
/// # Safety
///
/// As for [`attend_group`].
#[inline(always)]
unsafe fn add_values_generic<S: Simd, N: Numbers, const M: usize>(
    task: &Task<'_>,
    group: &Group<N>,
    first: usize,
    state: &mut State<'_, '_>,
) {
    let d = task.head_dim;
    let seen: [Range<usize>; M] = std::array::from_fn(|m| task.seen(first + m, group));
    let sums = &mut state.sums.values[first * d..][..M * d];
    let Some(weights) = state.weights[first..].first_chunk::<M>() else { return };
    let ahead = if first == 0 { &group.ahead[group.pages..] } else { &NOTHING[..] };
    // positions in order; values that a query does not see may be NaN
    let low = seen.iter().fold(0, |low, seen| low.max(seen.start));
    let high = seen.iter().fold(usize::MAX, |high, seen| high.min(seen.end)).max(low);
    // the positions of single queries before those of all, then those behind
    for after in [false, true] {
        // SAFETY: the caller guarantees the instruction set and values `[PAGE][d]`.
        unsafe {
            if after {
                accumulate::<S, N, M>(weights, low..high, &group.panels, ahead, sums, d);
            }
            for m in 0..M {
                let Range { start, end } = seen[m];
                let seen = if after { high.max(start)..end } else { start..low.min(end) };
                accumulate::<S, N, 1>(&[weights[m]], seen, &group.panels, &NOTHING, &mut sums[m * d..][..d], d);
            }
        }
    }
}

/// Hides the positions between those that query i sees.
fn hide<N>(task: &Task<'_>, group: &Group<N>, i: usize, seen: &Range<usize>, scores: &mut [[f32; PAGE]; GROUP]) {
    let (head, own) = (task.head(i), task.position + i / task.heads.len());
    for at in seen.clone().filter(|at| !task.mask.sees(head, own, group.position + at)) {
        scores[at / PAGE][at % PAGE] = f32::NEG_INFINITY;
    }
}
