//! Projections in f32: plain weights, and quantized weights decoded on the fly.

use super::kernels::{Finish, Input, Output, dispatch};
#[cfg(target_arch = "aarch64")]
use super::simd::Neon;
#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2, Avx512};
use super::simd::{Bf16, F16, F32, Format, Isa, Portable, Simd};
use crate::quant::with_quant_type;
use crate::quant::{self, Block};
use crate::{DType, Weight};
use std::cell::Cell;
use std::ops::Range;

/// Rows of a weight in the layout of the file, of any alignment.
#[derive(Clone, Copy)]
pub(super) struct Weights<'a>(pub(super) &'a Weight);

impl<'a> Weights<'a> {
    /// Row `i` of a group with `outputs` outputs from `column` on. Rows past the first `step` are the up rows of a gated output.
    /// Rows without an output repeat the last.
    #[inline(always)]
    fn row(self, i: usize, step: usize, column: usize, outputs: usize) -> &'a [u8] {
        let output = column + (i % step).min(outputs - 1);
        self.0.row(if i >= step { self.0.rows / 2 + output } else { output })
    }
}

/// Columns `task` of `out`: the epilogue of `x wᵀ`.
///
/// The caller checks the shapes, and gives each task its own columns.
pub(super) fn project(isa: Isa, x: Input<'_>, w: Weights<'_>, finish: Finish<'_>, task: Range<usize>, out: Output<'_>) {
    assert!(x.dim == w.0.cols && x.values.len() >= x.rows * x.dim);
    // SAFETY: the ISA is available (checked when the backend was made). The kernel reads whole rows inside the slices just
    // checked, and writes the columns of the task only.
    unsafe {
        match w.0.dtype {
            DType::F32 => project_f32(isa, x, w, finish, task, out),
            DType::F16 => project_f16(isa, x, w, finish, task, out),
            DType::Bf16 => project_bf16(isa, x, w, finish, task, out),
            _ => project_decoded(isa, x, w, finish, task, out),
        }
    }
}

dispatch!(project_f32 = columns[F32](x: Input<'_>, w: Weights<'_>, finish: Finish<'_>, task: Range<usize>, out: Output<'_>));
dispatch!(project_f16 = columns[F16](x: Input<'_>, w: Weights<'_>, finish: Finish<'_>, task: Range<usize>, out: Output<'_>));
dispatch!(project_bf16 = columns[Bf16](x: Input<'_>, w: Weights<'_>, finish: Finish<'_>, task: Range<usize>, out: Output<'_>));
dispatch!(project_decoded = decoded_columns(x: Input<'_>, w: Weights<'_>, finish: Finish<'_>, task: Range<usize>, out: Output<'_>));

/// Decodes whole blocks of a quantized row, compiled for an ISA.
type Decode = unsafe fn(Isa, &[u8], &mut [f32]);

fn decoder(dtype: DType) -> Decode {
    with_quant_type!(dtype, Q => decode_blocks::<Q>, else {
        _ => |_, _, _| unreachable!("plain types have loads of their own"),
    })
}

dispatch!(decode_blocks<Q: Block> = decode[Q](bytes: &[u8], out: &mut [f32]));

/// Has no contract; unsafe only because `dispatch!` requires it.
#[inline(always)]
unsafe fn decode<S: Simd, Q: Block>(bytes: &[u8], out: &mut [f32]) {
    quant::row::<Q>(bytes, out);
}

/// Weight rows of a tile of the inner kernel.
const GROUP: usize = 4;

/// Elements of a chunk of a row, for many rows: a tile of activations stays in the first-level cache while the task reads its
/// weights.
const CHUNK: usize = 1024;

/// Rows of activations whose sums a task keeps between chunks.
const ROUND: usize = 96;

thread_local! {
    /// Sums kept between chunks, and a group of decoded rows.
    static SCRATCH: Cell<(Vec<f32>, Vec<f32>)> = const { Cell::new((Vec::new(), Vec::new())) };
}

/// Weight rows of a tile, and their outputs.
struct Group {
    rows: [*const u8; GROUP],
    column: usize,
    outputs: usize,
}

/// Operands and destination of a task.
struct Task<'a> {
    x: Input<'a>,
    finish: Finish<'a>,
    out: Output<'a>,
}

/// Outputs of a group: a gated one takes two rows of the weight.
fn step(finish: Finish<'_>) -> usize {
    if finish.is_gated() { GROUP / 2 } else { GROUP }
}

/// Columns `columns` of the outputs.
///
/// # Safety
///
/// The instruction set of S is available, the weight's type is F, `x` has `x.rows` rows of `w.0.cols` elements, and no other task
/// writes these columns.
#[inline(always)]
unsafe fn columns<S: Simd, F: Format>(
    x: Input<'_>,
    w: Weights<'_>,
    finish: Finish<'_>,
    columns: Range<usize>,
    out: Output<'_>,
) {
    let (task, step) = (Task { x, finish, out }, step(finish));
    let groups = columns.len().div_ceil(step);
    let chunk = if x.rows > S::ROWS { CHUNK } else { w.0.cols };
    let (mut sums, decoded) = SCRATCH.take();
    let kept = if chunk < w.0.cols { groups * ROUND.min(x.rows) * GROUP * S::LANES } else { 0 };
    sums.resize(sums.len().max(kept), 0.0);
    for first in (0..x.rows).step_by(ROUND) {
        let rows = first..(first + ROUND).min(x.rows);
        let mut from = 0;
        // a row without elements also has outputs
        while from == 0 || from < w.0.cols {
            let part = from..(from + chunk.max(1)).min(w.0.cols);
            let mut m = rows.start;
            while m < rows.end {
                let mut taken = 0;
                for g in 0..groups {
                    let column = columns.start + g * step;
                    let outputs = step.min(columns.end - column);
                    let mut group = Group { rows: [std::ptr::null(); GROUP], column, outputs };
                    for (i, row) in group.rows.iter_mut().enumerate() {
                        *row = w.row(i, step, column, outputs).as_ptr();
                    }
                    let kept = (g * rows.len() + m - rows.start) * GROUP * S::LANES;
                    let sums = sums.as_mut_ptr().wrapping_add(kept);
                    // SAFETY: `rows` point at whole weight rows. Where a row has several chunks, `sums` has GROUP registers for
                    // each row of the round.
                    taken = unsafe { tile::<S, F>(&task, &group, m..rows.end, part.clone(), sums) };
                }
                m += taken.max(1);
            }
            from = part.end.max(1);
        }
    }
    SCRATCH.set((sums, decoded));
}

/// Columns `columns` of the outputs, for a quantized type. Each group of weight rows is decoded once for all activation rows.
///
/// # Safety
///
/// As for [`columns`], with a weight of a quantized type.
#[inline(always)]
unsafe fn decoded_columns<S: Simd>(
    x: Input<'_>,
    w: Weights<'_>,
    finish: Finish<'_>,
    columns: Range<usize>,
    out: Output<'_>,
) {
    let (task, step) = (Task { x, finish, out }, step(finish));
    let decode = decoder(w.0.dtype);
    // taken out of its cell: a closure of `with` would not be compiled for the instructions of the ISA
    let (sums, mut scratch) = SCRATCH.take();
    scratch.resize(scratch.len().max(GROUP * w.0.cols), 0.0);
    let decoded = &mut scratch[..GROUP * w.0.cols];
    for column in columns.clone().step_by(step) {
        let outputs = step.min(columns.end - column);
        let mut group = Group { rows: [std::ptr::null(); GROUP], column, outputs };
        for (i, row) in group.rows.iter_mut().enumerate() {
            let bytes = w.row(i, step, column, outputs);
            let decoded = &mut decoded[i * w.0.cols..][..w.0.cols];
            // SAFETY: the instruction set of S is available, by the contract of this function.
            unsafe { decode(S::LEVEL, bytes, decoded) }
            *row = decoded.as_ptr().cast();
        }
        let mut m = 0;
        while m < x.rows {
            // SAFETY: `rows` point at whole decoded rows; `sums` is not used for whole rows.
            m += unsafe { tile::<S, F32>(&task, &group, m..x.rows, 0..w.0.cols, std::ptr::null_mut()) };
        }
    }
    SCRATCH.set((sums, scratch));
}

/// Elements `part` of a group of weight rows times as many of the activation rows `rows` as the registers hold. Returns their
/// number.
///
/// # Safety
///
/// As for [`block`], with the rows of the tile among `rows`.
#[inline(always)]
unsafe fn tile<S: Simd, F: Format>(
    task: &Task<'_>,
    group: &Group,
    rows: Range<usize>,
    part: Range<usize>,
    sums: *mut f32,
) -> usize {
    // SAFETY: an arm takes no more rows than `rows` has; the rest is the contract of this function.
    unsafe {
        match rows.len() {
            n if n >= 6 && S::ROWS >= 6 => block::<S, F, 6>(task, group, rows.start, part, sums),
            n if n >= 4 && S::ROWS >= 4 => block::<S, F, 4>(task, group, rows.start, part, sums),
            n if n >= 2 => block::<S, F, 2>(task, group, rows.start, part, sums),
            _ => block::<S, F, 1>(task, group, rows.start, part, sums),
        }
    }
}

/// Four weight rows times M activation rows. Each product is summed in one register, which is kept in `sums` from chunk to chunk.
/// The epilogue follows the last chunk. Returns M.
///
/// # Safety
///
/// The instruction set of S is available. `group.rows` point at GROUP rows of `x.dim` elements of F; activation rows `m .. m + M`
/// exist. `sums` has GROUP * M registers where `part` is not the whole row. No other task writes the outputs of the group.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "two-dimensional accumulators, unrolled by constant bounds")]
unsafe fn block<S: Simd, F: Format, const M: usize>(
    task: &Task<'_>,
    group: &Group,
    m: usize,
    part: Range<usize>,
    sums: *mut f32,
) -> usize {
    let (k, rows) = (task.x.dim, group.rows);
    let x = task.x.values[m * k..].as_ptr();
    // SAFETY: every load is of elements `i .. i + LANES <= k` of a row, or of a local copy. `sums` is used where `part` is not
    // the whole row. Cells are those of the task.
    unsafe {
        let mut acc = [[S::zero(); M]; GROUP];
        if part.start > 0 {
            acc = sums.cast::<[[S::V; M]; GROUP]>().read_unaligned();
        }
        let whole = part.start + part.len() / S::LANES * S::LANES;
        let mut i = part.start;
        while i < whole {
            let mut weights = [S::zero(); GROUP];
            for r in 0..GROUP {
                let row = rows[r].add(i * F::BYTES);
                if M == 1 {
                    // the same elements of the next group
                    S::prefetch(row.wrapping_add(GROUP * k * F::BYTES));
                }
                weights[r] = F::load::<S>(row);
            }
            for j in 0..M {
                let x = S::load(x.add(j * k + i));
                for r in 0..GROUP {
                    acc[r][j] = S::fma(weights[r], x, acc[r][j]);
                }
            }
            i += S::LANES;
        }
        if part.end < k {
            sums.cast::<[[S::V; M]; GROUP]>().write_unaligned(acc);
            return M;
        }
        if whole < k {
            let rest = k - whole;
            let mut bytes = [0u8; 64];
            let mut values = [0f32; 16];
            let mut weights = [S::zero(); GROUP];
            for r in 0..GROUP {
                let tail = std::slice::from_raw_parts(rows[r].add(whole * F::BYTES), rest * F::BYTES);
                bytes[..tail.len()].copy_from_slice(tail);
                weights[r] = F::load::<S>(bytes.as_ptr());
            }
            for j in 0..M {
                values[..rest].copy_from_slice(std::slice::from_raw_parts(x.add(j * k + whole), rest));
                let x = S::load(values.as_ptr());
                for r in 0..GROUP {
                    acc[r][j] = S::fma(weights[r], x, acc[r][j]);
                }
            }
        }
        // a copy in memory: arrays indexed by a variable do not stay in registers
        let acc = std::hint::black_box(acc);
        for j in 0..M {
            let mut y = [0.0; GROUP];
            for r in 0..GROUP {
                y[r] = S::sum(acc[r][j]);
            }
            for o in 0..group.outputs {
                let column = group.column + o;
                let up = if task.finish.is_gated() { y[GROUP / 2 + o] } else { 0.0 };
                task.finish.put::<S>(task.out.cell(m + j, column), column, y[o], up);
            }
        }
    }
    M
}
