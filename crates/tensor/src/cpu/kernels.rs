//! The loops, written once over [`Simd`] and compiled for every instruction set.
//!
//! Each result is summed in an order that depends on its own operands only, not on how many rows a pass has: a token's
//! logits are the same bits whether its prompt came whole, in chunks or beside other sequences.

use super::panel::PANEL;
#[cfg(target_arch = "aarch64")]
use super::simd::Neon;
#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2, Avx512};
use super::simd::{Bf16, F16, F32, Format, Level, Portable, Simd};
use super::units::{self, Unit};
use crate::DType;
use crate::quant::{self, Block};
use std::cell::Cell;
use std::ops::Range;

/// Compiles a generic function for every instruction set and picks at run time.
macro_rules! dispatch {
    ($(#[$doc:meta])* $vis:vis $name:ident = $generic:ident $([$format:ty])? ($($arg:ident: $ty:ty),*)) => {
        $(#[$doc])*
        $vis unsafe fn $name(level: Level, $($arg: $ty),*) {
            match level {
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 | Level::Avx512Vnni => {
                    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl")]
                    unsafe fn go($($arg: $ty),*) {
                        // SAFETY: the outer function's promise.
                        unsafe { $generic::<Avx512 $(, $format)?>($($arg),*) }
                    }
                    // SAFETY: a level is only used where it is available.
                    unsafe { go($($arg),*) }
                }
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => {
                    #[target_feature(enable = "avx2,fma,f16c")]
                    unsafe fn go($($arg: $ty),*) {
                        // SAFETY: the outer function's promise.
                        unsafe { $generic::<Avx2 $(, $format)?>($($arg),*) }
                    }
                    // SAFETY: a level is only used where it is available.
                    unsafe { go($($arg),*) }
                }
                #[cfg(target_arch = "aarch64")]
                // SAFETY: the outer function's promise.
                Level::Neon | Level::NeonDot => unsafe { $generic::<Neon $(, $format)?>($($arg),*) },
                // SAFETY: the outer function's promise.
                _ => unsafe { $generic::<Portable $(, $format)?>($($arg),*) },
            }
        }
    };
}

pub(super) use dispatch;

/// Activations as a kernel reads them: `rows` rows of `dim` f32.
#[derive(Clone, Copy)]
pub(super) struct Input<'a> {
    pub(super) values: &'a [f32],
    pub(super) rows: usize,
    pub(super) dim: usize,
}

/// Activations that several tasks write, each its own columns.
#[derive(Clone, Copy)]
pub(super) struct Output<'a> {
    values: *mut f32,
    len: usize,
    dim: usize,
    lifetime: std::marker::PhantomData<&'a mut [f32]>,
}

// SAFETY: tasks write disjoint elements, by the contract of `cell`.
unsafe impl Send for Output<'_> {}
// SAFETY: as above.
unsafe impl Sync for Output<'_> {}

impl<'a> Output<'a> {
    pub(super) fn new(values: &'a mut [f32], dim: usize) -> Self {
        Self { values: values.as_mut_ptr(), len: values.len(), dim, lifetime: std::marker::PhantomData }
    }

    /// Element `col` of row `row`.
    ///
    /// # Safety
    ///
    /// No other task uses this element, and no other reference to it lives.
    #[allow(clippy::mut_from_ref, reason = "the disjointness of tasks is what the type is for")]
    unsafe fn cell(&self, row: usize, col: usize) -> &'a mut f32 {
        let at = row * self.dim + col;
        assert!(col < self.dim && at < self.len);
        // SAFETY: inside the slice; alone by the caller's promise.
        unsafe { &mut *self.values.add(at) }
    }

    /// Columns `cols` of row `row`, under the same promise as [`cell`](Self::cell).
    #[allow(clippy::mut_from_ref, reason = "the disjointness of tasks is what the type is for")]
    pub(super) unsafe fn slice(&self, row: usize, cols: Range<usize>) -> &'a mut [f32] {
        let at = row * self.dim + cols.start;
        assert!(cols.start <= cols.end && cols.end <= self.dim && at + cols.len() <= self.len);
        // SAFETY: inside the slice; alone by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.values.add(at), cols.len()) }
    }
}

/// Weights as a kernel reads them: `rows` rows of `cols` elements, of any alignment.
#[derive(Clone, Copy)]
pub(super) struct Weights<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) dtype: DType,
    pub(super) rows: usize,
    pub(super) cols: usize,
}

impl Weights<'_> {
    /// The weight row at place `i` of a group that makes `outputs` outputs from `column` on: past the first `step` places
    /// stand the up rows of a gated output; places without an output repeat the last.
    #[inline(always)]
    fn row(&self, i: usize, step: usize, column: usize, outputs: usize) -> usize {
        let output = column + (i % step).min(outputs - 1);
        if i >= step { self.rows / 2 + output } else { output }
    }
}

pub(super) use crate::Finish;

/// Columns `task` of `out`: `x wᵀ`, finished.
///
/// The caller has checked that the shapes fit, and gives each task other columns.
pub(super) fn project(level: Level, x: Input<'_>, w: Weights<'_>, finish: Finish, task: Range<usize>, out: Output<'_>) {
    let bytes = w.dtype.bytes(w.cols).and_then(|row| row.checked_mul(w.rows));
    assert!(bytes == Some(w.bytes.len()) && x.dim == w.cols && x.values.len() >= x.rows * x.dim);
    // SAFETY: the level is available (checked when the backend was made); the kernel reads whole rows inside the
    // slices just checked, and writes the task's own columns.
    unsafe {
        match w.dtype {
            DType::F32 => project_f32(level, x, w, finish, task, out),
            DType::F16 => project_f16(level, x, w, finish, task, out),
            DType::Bf16 => project_bf16(level, x, w, finish, task, out),
            _ => project_decoded(level, x, w, finish, task, out),
        }
    }
}

dispatch!(project_f32 = columns[F32](x: Input<'_>, w: Weights<'_>, finish: Finish, task: Range<usize>, out: Output<'_>));
dispatch!(project_f16 = columns[F16](x: Input<'_>, w: Weights<'_>, finish: Finish, task: Range<usize>, out: Output<'_>));
dispatch!(project_bf16 = columns[Bf16](x: Input<'_>, w: Weights<'_>, finish: Finish, task: Range<usize>, out: Output<'_>));
dispatch!(project_decoded = decoded_columns(x: Input<'_>, w: Weights<'_>, finish: Finish, task: Range<usize>, out: Output<'_>));

/// Decodes whole blocks of a quantised row, in the instruction set of the level.
type Decode = unsafe fn(Level, &[u8], &mut [f32]);

fn decoder(dtype: DType) -> Decode {
    match dtype {
        DType::F32 | DType::F16 | DType::Bf16 => |_, _, _| unreachable!("plain types have loads of their own"),
        DType::Q8_0 => decode_q8_0,
        DType::Q4_0 => decode_q4_0,
        DType::Q4_1 => decode_q4_1,
        DType::Q5_0 => decode_q5_0,
        DType::Q5_1 => decode_q5_1,
        DType::Q2K => decode_q2_k,
        DType::Q3K => decode_q3_k,
        DType::Q4K => decode_q4_k,
        DType::Q5K => decode_q5_k,
        DType::Q6K => decode_q6_k,
        DType::Iq4Nl => decode_iq4_nl,
        DType::Iq4Xs => decode_iq4_xs,
    }
}

dispatch!(decode_q8_0 = decode[quant::Q8_0](bytes: &[u8], out: &mut [f32]));
dispatch!(decode_q4_0 = decode[quant::Q4_0](bytes: &[u8], out: &mut [f32]));
dispatch!(decode_q4_1 = decode[quant::Q4_1](bytes: &[u8], out: &mut [f32]));
dispatch!(decode_q5_0 = decode[quant::Q5_0](bytes: &[u8], out: &mut [f32]));
dispatch!(decode_q5_1 = decode[quant::Q5_1](bytes: &[u8], out: &mut [f32]));
dispatch!(decode_q2_k = decode[quant::Q2K](bytes: &[u8], out: &mut [f32]));
dispatch!(decode_q3_k = decode[quant::Q3K](bytes: &[u8], out: &mut [f32]));
dispatch!(decode_q4_k = decode[quant::Q4K](bytes: &[u8], out: &mut [f32]));
dispatch!(decode_q5_k = decode[quant::Q5K](bytes: &[u8], out: &mut [f32]));
dispatch!(decode_q6_k = decode[quant::Q6K](bytes: &[u8], out: &mut [f32]));
dispatch!(decode_iq4_nl = decode[quant::Iq4Nl](bytes: &[u8], out: &mut [f32]));
dispatch!(decode_iq4_xs = decode[quant::Iq4Xs](bytes: &[u8], out: &mut [f32]));

#[inline(always)]
unsafe fn decode<S: Simd, Q: Block>(bytes: &[u8], out: &mut [f32]) {
    quant::row::<Q>(bytes, out);
}

/// Weight rows that the inner kernel takes at once.
const GROUP: usize = 4;

/// Bytes of activations that stay in the second-level cache while a task's weights pass by.
const RESIDENT: usize = 512 << 10;

#[inline(always)]
unsafe fn columns<S: Simd, F: Format>(
    x: Input<'_>,
    w: Weights<'_>,
    finish: Finish,
    task: Range<usize>,
    out: Output<'_>,
) {
    let resident = (RESIDENT / (4 * x.dim.max(1))).max(S::ROWS);
    // a gated output takes two rows of the weight, so a group makes half as many outputs
    let step = if finish == Finish::SiluGate { GROUP / 2 } else { GROUP };
    let mut first = 0;
    while first < x.rows {
        let last = (first + resident).min(x.rows);
        let mut column = task.start;
        while column < task.end {
            let outputs = step.min(task.end - column);
            let rows: [*const u8; GROUP] =
                std::array::from_fn(|i| w.bytes[w.row(i, step, column, outputs) * w.cols * F::BYTES..].as_ptr());
            // SAFETY: `rows` point at whole weight rows.
            unsafe { group::<S, F>(rows, x, first..last, w.cols, column, outputs, finish, out) }
            column += step;
        }
        first = last;
    }
}

/// As [`columns`], for a quantised type: each group of weight rows is decoded once for all activation rows of a round.
#[inline(always)]
unsafe fn decoded_columns<S: Simd>(x: Input<'_>, w: Weights<'_>, finish: Finish, task: Range<usize>, out: Output<'_>) {
    thread_local! {
        static DECODED: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    }
    let decode = decoder(w.dtype);
    let row_bytes = w.bytes.len() / w.rows.max(1);
    let resident = (RESIDENT / (4 * x.dim.max(1))).max(S::ROWS);
    let step = if finish == Finish::SiluGate { GROUP / 2 } else { GROUP };
    // taken out, because a closure would not be compiled for the level's instructions
    let mut scratch = DECODED.take();
    scratch.resize(scratch.len().max(GROUP * w.cols), 0.0);
    let decoded = &mut scratch[..GROUP * w.cols];
    let mut first = 0;
    while first < x.rows {
        let last = (first + resident).min(x.rows);
        let mut column = task.start;
        while column < task.end {
            let outputs = step.min(task.end - column);
            for i in 0..GROUP {
                let row = w.row(i, step, column, outputs);
                let bytes = &w.bytes[row * row_bytes..][..row_bytes];
                // SAFETY: the level that this function was compiled for is available.
                unsafe { decode(S::LEVEL, bytes, &mut decoded[i * w.cols..][..w.cols]) }
            }
            let mut rows = [decoded.as_ptr().cast(); GROUP];
            for (i, row) in rows.iter_mut().enumerate() {
                *row = decoded[i * w.cols..].as_ptr().cast();
            }
            // SAFETY: `rows` point at whole decoded rows.
            unsafe { group::<S, F32>(rows, x, first..last, w.cols, column, outputs, finish, out) }
            column += step;
        }
        first = last;
    }
    DECODED.set(scratch);
}

/// A group of weight rows times activation rows `range`.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "inlined into one loop; a struct would only be taken apart again")]
unsafe fn group<S: Simd, F: Format>(
    rows: [*const u8; GROUP],
    x: Input<'_>,
    range: Range<usize>,
    k: usize,
    column: usize,
    outputs: usize,
    finish: Finish,
    out: Output<'_>,
) {
    let mut m = range.start;
    while m < range.end {
        let x = x.values[m * x.dim..].as_ptr();
        // SAFETY: `rows` point at whole weight rows, x at the activation rows that each arm takes.
        unsafe {
            m += match range.end - m {
                n if n >= 6 && S::ROWS >= 6 => block::<S, F, 6>(rows, x, k, m, column, outputs, finish, out),
                n if n >= 4 && S::ROWS >= 4 => block::<S, F, 4>(rows, x, k, m, column, outputs, finish, out),
                n if n >= 2 => block::<S, F, 2>(rows, x, k, m, column, outputs, finish, out),
                _ => block::<S, F, 1>(rows, x, k, m, column, outputs, finish, out),
            };
        }
    }
}

/// Four weight rows times M activation rows, each product summed in one register; then the finish. Returns M.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "inlined into one loop; a struct would only be taken apart again")]
#[allow(clippy::needless_range_loop, reason = "two-dimensional accumulators, unrolled by constant bounds")]
unsafe fn block<S: Simd, F: Format, const M: usize>(
    rows: [*const u8; GROUP],
    x: *const f32,
    k: usize,
    m: usize,
    column: usize,
    outputs: usize,
    finish: Finish,
    out: Output<'_>,
) -> usize {
    // SAFETY: every load is of elements `i .. i + LANES <= k` of a row, or of a local copy; cells are the task's own.
    unsafe {
        let mut acc = [[S::zero(); M]; GROUP];
        let whole = k / S::LANES * S::LANES;
        let mut i = 0;
        while i < whole {
            let weights: [S::V; GROUP] = std::array::from_fn(|r| F::load::<S>(rows[r].add(i * F::BYTES)));
            for j in 0..M {
                let x = S::load(x.add(j * k + i));
                for r in 0..GROUP {
                    acc[r][j] = S::fma(weights[r], x, acc[r][j]);
                }
            }
            i += S::LANES;
        }
        if whole < k {
            let rest = k - whole;
            let mut bytes = [0u8; 64];
            let mut values = [0f32; 16];
            let weights: [S::V; GROUP] = std::array::from_fn(|r| {
                let tail = std::slice::from_raw_parts(rows[r].add(whole * F::BYTES), rest * F::BYTES);
                bytes[..tail.len()].copy_from_slice(tail);
                F::load::<S>(bytes.as_ptr())
            });
            for j in 0..M {
                values[..rest].copy_from_slice(std::slice::from_raw_parts(x.add(j * k + whole), rest));
                let x = S::load(values.as_ptr());
                for r in 0..GROUP {
                    acc[r][j] = S::fma(weights[r], x, acc[r][j]);
                }
            }
        }
        for j in 0..M {
            let y: [f32; GROUP] = std::array::from_fn(|r| S::sum(acc[r][j]));
            for o in 0..outputs {
                let cell = out.cell(m + j, column + o);
                match finish {
                    Finish::Replace => *cell = y[o],
                    Finish::Add => *cell += y[o],
                    Finish::SiluGate => *cell = silu::<S>(y[o]) * y[GROUP / 2 + o],
                }
            }
        }
    }
    M
}

#[inline(always)]
pub(super) fn fma<S: Simd>(a: f32, b: f32, c: f32) -> f32 {
    if S::FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `e^x`, to 6e-7 of itself; 0 below -87, and at most `e^88`.
///
/// The exponent's whole part in base 2 goes into the bits, the rest through a polynomial of degree 5.
#[inline(always)]
pub(super) fn exp<S: Simd>(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    let bounded = if x > 88.0 { 88.0 } else { x };
    let bounded = if bounded < -87.0 { -87.0 } else { bounded };
    let shifted = fma::<S>(bounded, std::f32::consts::LOG2_E, ROUND);
    let whole = shifted - ROUND;
    let rest = fma::<S>(whole, -0.693_359_4, bounded);
    let rest = fma::<S>(whole, 2.121_944_4e-4, rest);
    let mut sum = 8.369_148e-3;
    for factor in [4.194_512_6e-2, 0.166_662_77, 0.499_988_67, 1.0, 1.0] {
        sum = fma::<S>(sum, rest, factor);
    }
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    if x < -87.0 { 0.0 } else { sum * power }
}

#[inline(always)]
fn silu<S: Simd>(x: f32) -> f32 {
    x / (1.0 + exp::<S>(-x))
}

/// Puts the sums of rows `first ..` and of the columns `cells` where they belong; `ups` counts for a gate only.
pub(super) fn finish(
    level: Level,
    finish: Finish,
    sums: &[[f32; PANEL]],
    ups: &[[f32; PANEL]],
    first: usize,
    cells: Range<usize>,
    out: Output<'_>,
) {
    // SAFETY: the level is available; cells are the task's own.
    unsafe { finish_rows(level, finish, sums, ups, first, cells, out) }
}

dispatch!(finish_rows = finish_generic(
    finish: Finish,
    sums: &[[f32; PANEL]],
    ups: &[[f32; PANEL]],
    first: usize,
    cells: Range<usize>,
    out: Output<'_>
));

#[inline(always)]
unsafe fn finish_generic<S: Simd>(
    finish: Finish,
    sums: &[[f32; PANEL]],
    ups: &[[f32; PANEL]],
    first: usize,
    cells: Range<usize>,
    out: Output<'_>,
) {
    for (i, (sums, ups)) in sums.iter().zip(ups).enumerate() {
        // SAFETY: cells of this task only.
        let out = unsafe { out.slice(first + i, cells.clone()) };
        match finish {
            Finish::Replace => out.copy_from_slice(&sums[..out.len()]),
            Finish::Add => out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum),
            Finish::SiluGate => {
                let gated: [f32; PANEL] = std::array::from_fn(|i| silu::<S>(sums[i]) * ups[i]);
                out.copy_from_slice(&gated[..out.len()]);
            }
        }
    }
}

/// `out = x * weight / sqrt(mean(x²) + eps)`, a row.
pub(super) fn rms_norm(level: Level, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    assert!(x.len() == weight.len() && x.len() == out.len());
    // SAFETY: the level is available; the lengths were checked.
    unsafe { norm_row(level, x, weight, eps, out) }
}

dispatch!(pub(super) quantise_units = quantise_generic(x: &[f32], offset: i32, sixteens: bool, units: &mut [Unit]));

#[inline(always)]
unsafe fn quantise_generic<S: Simd>(x: &[f32], offset: i32, sixteens: bool, units: &mut [Unit]) {
    units::quantise(x, offset, sixteens, units);
}

dispatch!(norm_row = norm_generic(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]));

#[inline(always)]
unsafe fn norm_generic<S: Simd>(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let mut lanes = [0f32; 16];
    let chunks = x.chunks_exact(16);
    let rest = chunks.remainder();
    for chunk in chunks {
        for i in 0..16 {
            lanes[i] += chunk[i] * chunk[i];
        }
    }
    for (lane, v) in lanes.iter_mut().zip(rest) {
        *lane += v * v;
    }
    let square: f32 = lanes.iter().sum();
    let inverse = 1.0 / (square / x.len() as f32 + eps).sqrt();
    for ((out, &x), &w) in out.iter_mut().zip(x).zip(weight) {
        *out = x * inverse * w;
    }
}
