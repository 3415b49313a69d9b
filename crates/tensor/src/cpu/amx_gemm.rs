//! Products of many rows by AMX: weights of every type and activations become tiles of bf16, sums are in single precision.
//!
//! A task has some pairs of panels. It converts [`DEPTH`] elements of their rows to tiles, which stay in the second-level
//! cache, and multiplies them with all activations before it converts the next elements.

use super::activations::Q8_LEN;
use super::amx::{self, Tiles};
use super::field::PANEL;
use super::int_simd::{IntSimd, Vnni};
use super::integer::q8_blocks;
use super::kernels::{self, Finish, Input, Output};
use super::matrix::{Matrix, Store};
use super::plain::Weights;
use super::quants::QuantBlock;
use super::simd::Isa;
use super::transpose::rows_of_half;
use crate::DType;
use crate::quant::with_quant_type;
use std::arch::x86_64::*;
use std::cell::Cell;
use std::ops::Range;

/// Rows of activations in two tiles.
pub(super) const ROWS: usize = 32;

/// Elements of a row that are converted at a time; a multiple of the block of every type. Two tiles of activations and two of
/// weights of this depth stay in the first-level cache.
const DEPTH: usize = 256;

/// Bytes of a task's tiles of weights.
const RESIDENT: usize = 512 << 10;

/// Pairs of panels of a task, at most: activations from the third-level cache serve all of them.
const MOST_PAIRS: usize = 16;

/// 32 bf16, or sixteen f32.
#[derive(Clone, Copy, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(super) struct Line([u8; 64]);

/// Lines of a tile.
const LINES: usize = amx::TILE / size_of::<Line>();

/// Whether an ISA takes this path for the rows of a prompt and this type of weight.
pub(super) fn suits(isa: Isa, dtype: DType) -> bool {
    isa == Isa::Amx && dtype != DType::F32
}

/// Lines of the tiles of activations.
pub(super) fn lines(rows: usize, cols: usize) -> usize {
    rows.next_multiple_of(ROWS) * q8_blocks(cols)
}

/// Rounds activation rows `block * ROWS ..` into tiles: two for each 32 elements, of sixteen rows each.
///
/// # Safety
///
/// The features of this function are available: the ISA is [`Isa::Amx`].
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16")]
pub(super) unsafe fn round(x: Input<'_>, block: usize, out: &mut [Line]) {
    for (i, lines) in out.chunks_exact_mut(LINES).enumerate() {
        let (sub, half) = (i / 2, i % 2);
        for (r, line) in lines.iter_mut().enumerate() {
            let row = block * ROWS + half * LINES + r;
            let rest = if row < x.rows { &x.values[row * x.dim..][..x.dim][(sub * Q8_LEN).min(x.dim)..] } else { &[] };
            // SAFETY: the mask has a bit for each element that is left in the row; masked elements are not read.
            unsafe {
                let of = |from: usize| {
                    let mask = ((1u32 << rest.len().saturating_sub(from).min(16)) - 1) as u16;
                    _mm512_maskz_loadu_ps(mask, rest.as_ptr().wrapping_add(from))
                };
                store(line, bits(_mm512_cvtne2ps_pbh(of(16), of(0))));
            }
        }
    }
}

thread_local! {
    /// Tiles of weights and sums of a task, and a panel interleaved on use.
    static SCRATCH: Cell<(Vec<Line>, Vec<Line>, Vec<u8>)> = const { Cell::new((Vec::new(), Vec::new(), Vec::new())) };
}

/// Partition of a matrix into tasks.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    /// Pairs of panels: a gate and its up, or two neighbours.
    pairs: usize,
    /// Elements of a row that are converted at a time.
    depth: usize,
    /// Pairs of a task.
    share: usize,
}

impl Plan {
    pub(super) fn of(w: &Matrix, threads: usize) -> Self {
        let pairs = w.order.panels().div_ceil(2);
        // a panel that is interleaved on use is widened as a whole
        let whole = w.dtype.is_quantized() && matches!(w.store, Store::Rows(_));
        let depth = if whole { w.cols } else { w.cols.min(DEPTH) }.next_multiple_of(Q8_LEN);
        let most = (RESIDENT / (2 * PANEL * depth * 2).max(1)).clamp(1, MOST_PAIRS);
        Self { pairs, depth, share: pairs.div_ceil(threads * 4).clamp(1, most) }
    }

    pub(super) fn tasks(self) -> usize {
        self.pairs.div_ceil(self.share)
    }
}

/// Operands of a product.
#[derive(Clone, Copy)]
pub(super) struct Task<'a> {
    /// Activations, as [`round`] makes them: blocks of [`ROWS`] rows.
    pub(super) tiles: &'a [Line],
    pub(super) rows: usize,
    pub(super) weight: &'a Matrix,
    pub(super) plan: Plan,
    pub(super) finish: Finish<'a>,
    /// Outputs of a row.
    pub(super) width: usize,
}

/// Share `share` of the outputs, for all rows.
///
/// # Safety
///
/// The features of this function and tiles are available: the ISA is [`Isa::Amx`]. No other task has the same share.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16")]
pub(super) unsafe fn project(task: Task<'_>, share: usize, out: Output<'_>) {
    let Task { tiles, rows, weight, plan, .. } = task;
    let subs = q8_blocks(weight.cols);
    let blocks = rows.div_ceil(ROWS);
    assert!(tiles.len() >= lines(rows, weight.cols));
    let pairs = share * plan.share..((share + 1) * plan.share).min(plan.pairs);
    let (mut b, mut c, mut panel) = SCRATCH.take();
    let deep = plan.depth / Q8_LEN;
    let zero: Line = bytemuck::Zeroable::zeroed();
    b.resize(b.len().max(pairs.len() * deep * 2 * LINES), zero);
    c.resize(c.len().max(blocks * pairs.len() * 4 * LINES), zero);
    // SAFETY: the caller guarantees that tiles are available.
    let registers = unsafe { Tiles::new() };
    for first in (0..subs).step_by(deep.max(1)) {
        let taken = first..(first + deep).min(subs);
        for (pair, b) in pairs.clone().zip(b.chunks_exact_mut(deep * 2 * LINES)) {
            for side in 0..2 {
                // SAFETY: this function has the features of `fill`.
                unsafe { fill(weight, 2 * pair + side, taken.clone(), &mut panel, b, side) };
            }
        }
        for block in 0..blocks {
            let lines = |block| (block * subs + first) * 2 * LINES..(block * subs + taken.end) * 2 * LINES;
            let a = &tiles[lines(block)];
            let next = if block + 1 < blocks { &tiles[lines(block + 1)] } else { &[] };
            let mut ahead = next.chunks(next.len().div_ceil(pairs.len()).max(1));
            for (j, pair) in pairs.clone().enumerate() {
                ahead.next().into_iter().flatten().for_each(prefetch);
                let b = &b[j * deep * 2 * LINES..][..taken.len() * 2 * LINES];
                let c = &mut c[(block * pairs.len() + j) * 4 * LINES..][..4 * LINES];
                let (a, b) = (a.as_ptr().cast(), b.as_ptr().cast());
                // SAFETY: `a` and `b` are slices of two tiles for each of the taken blocks, `c` of four tiles. There is at least
                // one block, because `step_by` gives starts below `subs` only.
                unsafe { registers.multiply(a, b, c.as_mut_ptr().cast(), taken.len(), first == 0) };
                if taken.end == subs {
                    give(task, block, pair, c, out);
                }
            }
        }
    }
    SCRATCH.set((b, c, panel));
}

/// Applies the epilogue to the sums of a block of rows and a pair of panels.
fn give(task: Task<'_>, block: usize, pair: usize, sums: &[Line], out: Output<'_>) {
    let first = block * ROWS;
    let taken = ROWS.min(task.rows - first);
    // SAFETY: a line has the size of sixteen f32 and a larger alignment, and any bits are f32.
    let sums: &[[f32; PANEL]] = unsafe { std::slice::from_raw_parts(sums.as_ptr().cast(), sums.len()) };
    let (left, right) = sums.split_at(ROWS);
    let put = |sums: &[[f32; PANEL]], ups: &[[f32; PANEL]], column: usize| {
        let cells = column * PANEL..((column + 1) * PANEL).min(task.width);
        if !cells.is_empty() {
            kernels::finish(Isa::Amx, task.finish, &sums[..taken], &ups[..taken], first, cells, out);
        }
    };
    if task.finish.is_gated() {
        put(left, right, pair);
    } else {
        put(left, left, 2 * pair);
        put(right, right, 2 * pair + 1);
    }
}

/// Fills side `side` (0 or 1) of the tiles of panel i: for each 32 elements a tile of side 0, then one of side 1. A panel past
/// the last is zeros.
///
/// # Safety
///
/// The features of this function are available.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16")]
unsafe fn fill(w: &Matrix, i: usize, subs: Range<usize>, scratch: &mut Vec<u8>, out: &mut [Line], side: usize) {
    let mut tiles = out.chunks_exact_mut(LINES).skip(side).step_by(2).take(subs.len());
    if i >= w.order.panels() {
        tiles.for_each(|tile| tile.fill(bytemuck::Zeroable::zeroed()));
        return;
    }
    if let (false, Store::Rows(weight)) = (w.dtype.is_quantized(), &w.store) {
        let weights = Weights(weight);
        for (sub, tile) in subs.zip(&mut tiles) {
            // SAFETY: this function has the features; the rows are those of the weight, whose elements have two bytes: `suits`
            // excludes F32.
            unsafe {
                for (line, pairs) in tile.iter_mut().zip(rows_of_half(weights, w.order.of(i), sub * Q8_LEN)) {
                    store(line, if w.dtype == DType::F16 { halves_to_bf16(pairs) } else { pairs });
                }
            }
        }
        return;
    }
    let panel = w.panel(i, scratch);
    // SAFETY: this function has the features of `widen`.
    unsafe { with_quant_type!(w.dtype, Q => widen::<Q>(panel, subs, tiles), else { _ => {} }) }
}

/// Widens sub-blocks of a panel to tiles of bf16.
///
/// # Safety
///
/// The features of this function are available.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16")]
unsafe fn widen<'a, C: QuantBlock>(panel: &[u8], subs: Range<usize>, tiles: impl Iterator<Item = &'a mut [Line]>) {
    assert!(panel.len() / C::PANEL_BYTES * C::SUB_BLOCKS >= subs.end);
    let zero_point = if C::SIGNED { Vnni::BIAS } else { C::ZERO_POINT };
    for (sub, tile) in subs.zip(tiles) {
        let (block, u) = (sub / C::SUB_BLOCKS, sub % C::SUB_BLOCKS);
        // SAFETY: the panel has `subs.end` sub-blocks (asserted above); a panel of Vnni is one part.
        unsafe {
            let block = panel.as_ptr().add(block * C::PANEL_BYTES);
            let head = C::head::<Vnni>(block, 0);
            let words = C::quants::<Vnni>(block, 0, u);
            let mut scale = C::scale::<Vnni>(head, block, 0, u, 0);
            for (q, word) in words.into_iter().enumerate() {
                if C::SIXTEENS && q == 4 {
                    scale = C::scale::<Vnni>(head, block, 0, u, 1);
                }
                let min = if C::MINIMA { scale[1] } else { _mm512_setzero_ps() };
                let start = _mm512_fnmadd_ps(_mm512_set1_ps(zero_point as f32), scale[0], min);
                let byte = |bits: __m512i| {
                    let quant = _mm512_cvtepi32_ps(_mm512_and_si512(bits, _mm512_set1_epi32(255)));
                    _mm512_fmadd_ps(quant, scale[0], start)
                };
                let pair = |low, high| paired(_mm512_cvtne2ps_pbh(high, low));
                let (b0, b1) = (byte(word), byte(_mm512_srli_epi32(word, 8)));
                let (b2, b3) = (byte(_mm512_srli_epi32(word, 16)), byte(_mm512_srli_epi32(word, 24)));
                store(&mut tile[2 * q], pair(b0, b1));
                store(&mut tile[2 * q + 1], pair(b2, b3));
            }
        }
    }
}

/// Two times sixteen numbers, interleaved to pairs.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl")]
fn paired(numbers: __m512bh) -> __m512i {
    const INDICES: [u16; 32] = {
        let mut indices = [0; 32];
        let mut i = 0;
        while i < 32 {
            indices[i] = (i / 2 + i % 2 * 16) as u16;
            i += 1;
        }
        indices
    };
    // SAFETY: a load of 64 bytes from an array of 64 bytes.
    let indices = unsafe { _mm512_loadu_si512(INDICES.as_ptr().cast()) };
    _mm512_permutexvar_epi16(indices, bits(numbers))
}

/// Pairs of halves as pairs of bf16.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16")]
fn halves_to_bf16(pairs: __m512i) -> __m512i {
    let low = _mm512_cvtph_ps(_mm512_castsi512_si256(pairs));
    bits(_mm512_cvtne2ps_pbh(_mm512_cvtph_ps(_mm512_extracti64x4_epi64::<1>(pairs)), low))
}

#[inline(always)]
fn bits(numbers: __m512bh) -> __m512i {
    // SAFETY: both types are 512 bits, of which any pattern is valid.
    unsafe { std::mem::transmute(numbers) }
}

/// Asks for a line in the second-level cache.
#[inline(always)]
fn prefetch(line: &Line) {
    // SAFETY: a prefetch of any address has no effect but on the caches.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(line.0.as_ptr().cast()) };
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl")]
fn store(line: &mut Line, bits: __m512i) {
    // SAFETY: a line is 64 bytes with an alignment of 64.
    unsafe { _mm512_store_si512(line.0.as_mut_ptr().cast(), bits) }
}
