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
use crate::quant::{self, Block};
use crate::{DType, Heads, KvType, PAGE};
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

/// `e^x`, to 6e-7 of itself; 0 below -87, and at most `e^88`.
///
/// The exponent's whole part in base 2 goes into the bits, the rest through a polynomial of degree 5.
#[inline(always)]
fn exp<S: Simd>(x: f32) -> f32 {
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

impl<'a> Panels<'a> {
    /// Keys and values, widened into `room` where they are not f32 already.
    #[inline(always)]
    fn widened<'b>(self, d: usize, room: &'b mut Vec<f32>) -> (&'b [f32], &'b [f32])
    where
        'a: 'b,
    {
        if let Panels::F32 { keys, values } = self {
            return (keys, values);
        }
        room.resize(2 * PAGE * d, 0.0);
        let (to_keys, to_values) = room.split_at_mut(PAGE * d);
        match self {
            Panels::F32 { .. } => {}
            Panels::F16 { keys, values } => {
                to_keys.iter_mut().zip(keys).for_each(|(to, &half)| *to = finite_half(half));
                to_values.iter_mut().zip(values).for_each(|(to, &half)| *to = finite_half(half));
            }
            Panels::Q8_0 { keys, values, key_scales, value_scales, heads } => {
                let keys = to_keys.chunks_exact_mut(PAGE).zip(keys.chunks_exact(PAGE));
                for (i, (to, levels)) in keys.enumerate() {
                    let scales = &key_scales[heads.key_block(i) * PAGE..][..PAGE];
                    for ((to, &level), scale) in to.iter_mut().zip(levels).zip(scales) {
                        *to = f32::from(level) * scale;
                    }
                }
                let blocks = d.div_ceil(KvType::BLOCK);
                let rows = to_values.chunks_exact_mut(d).zip(values.chunks_exact(d));
                for ((to, levels), scales) in rows.zip(value_scales.chunks_exact(blocks)) {
                    let row = to.chunks_mut(KvType::BLOCK).zip(levels.chunks(KvType::BLOCK)).zip(scales);
                    for ((to, levels), scale) in row {
                        to.iter_mut().zip(levels).for_each(|(to, &level)| *to = f32::from(level) * scale);
                    }
                }
            }
        }
        (to_keys, to_values)
    }
}

/// The value of a half that is not infinite, without a branch or a call.
#[inline(always)]
fn finite_half(bits: u16) -> f32 {
    let bits = u32::from(bits);
    // the exponent's bias changes by 112; the product is exact, for subnormal halves too
    let magnitude = f32::from_bits((bits & 0x7fff) << 13) * f32::from_bits((127 + 112) << 23);
    f32::from_bits(magnitude.to_bits() | (bits & 0x8000) << 16)
}

/// Attention of one task; see [`Attend`]. Writes rows and heads of its own.
pub(super) fn attend(level: Level, task: &Attend<'_>, out: Output<'_>) {
    // SAFETY: the level is available; the loops index checked slices.
    unsafe { attend_rows(level, task, out) }
}

dispatch!(attend_rows = attend_generic(task: &Attend<'_>, out: Output<'_>));

/// Running softmax of one query: `sum(exp(s - most))` and `sum(exp(s - most) v)`.
struct Running {
    most: f32,
    sum: f32,
}

#[inline(always)]
unsafe fn attend_generic<S: Simd>(task: &Attend<'_>, out: Output<'_>) {
    let d = task.head_dim;
    let first_of = |position: usize| task.window.map_or(0, |window| (position + 1).saturating_sub(window));
    let last_position = task.position + task.rows.len() - 1;
    let group = task.heads.len();
    let mut running: Vec<Running> =
        (0..task.rows.len() * group).map(|_| Running { most: f32::NEG_INFINITY, sum: 0.0 }).collect();
    for row in task.rows.clone() {
        // SAFETY: rows and heads of this task only.
        unsafe { out.slice(row, task.heads.start * d..task.heads.end * d) }.fill(0.0);
    }
    let mut room = Vec::new();
    for page in first_of(task.position) / PAGE..=last_position / PAGE {
        let (keys, values) = (task.panels)(page).widened(d, &mut room);
        for (i, row) in task.rows.clone().enumerate() {
            let position = task.position + i;
            let low = first_of(position).max(page * PAGE);
            let high = (position + 1).min((page + 1) * PAGE);
            if low >= high {
                continue;
            }
            for (j, head) in task.heads.clone().enumerate() {
                let q = &task.q[row * task.width + head * d..][..d];
                // SAFETY: rows and heads of this task only.
                let acc = unsafe { out.slice(row, head * d..(head + 1) * d) };
                let scores = scores::<S>(q, keys, task.scale);
                accumulate::<S>(&scores, low % PAGE..low % PAGE + high - low, values, &mut running[i * group + j], acc);
            }
        }
    }
    for (i, row) in task.rows.clone().enumerate() {
        for (j, head) in task.heads.clone().enumerate() {
            let inverse = 1.0 / running[i * group + j].sum;
            // SAFETY: rows and heads of this task only.
            unsafe { out.slice(row, head * d..(head + 1) * d) }.iter_mut().for_each(|v| *v *= inverse);
        }
    }
}

#[inline(always)]
fn fma<S: Simd>(a: f32, b: f32, c: f32) -> f32 {
    if S::FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Scores of the positions of a page; keys lie `[head_dim][PAGE]`.
#[inline(always)]
fn scores<S: Simd>(q: &[f32], keys: &[f32], scale: f32) -> [f32; PAGE] {
    let mut acc = [0f32; PAGE];
    for (&q, k) in q.iter().zip(keys.chunks_exact(PAGE)) {
        for (acc, &k) in acc.iter_mut().zip(k) {
            *acc = fma::<S>(q, k, *acc);
        }
    }
    acc.map(|s| s * scale)
}

/// Adds the positions `seen` of a page; values lie `[PAGE][head_dim]`.
#[inline(always)]
fn accumulate<S: Simd>(
    scores: &[f32; PAGE],
    seen: Range<usize>,
    values: &[f32],
    running: &mut Running,
    acc: &mut [f32],
) {
    let most = scores[seen.clone()].iter().copied().fold(running.most, f32::max);
    if most > running.most {
        let factor = (running.most - most).exp();
        running.sum *= factor;
        acc.iter_mut().for_each(|v| *v *= factor);
        running.most = most;
    }
    let d = acc.len();
    for j in seen {
        let weight = (scores[j] - running.most).exp();
        running.sum += weight;
        for (acc, &v) in acc.iter_mut().zip(&values[j * d..][..d]) {
            *acc = fma::<S>(weight, v, *acc);
        }
    }
}
