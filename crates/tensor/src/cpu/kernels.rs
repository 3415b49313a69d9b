//! Elementwise kernels, written once over [`Simd`] and compiled for every instruction set.
//!
//! The order of a sum depends on its own operands only, not on the number of rows of a pass: the logits of a token have the same
//! bits whether its prompt is computed whole, in chunks or beside other sequences.

use super::activations::{self, BlockQ8, Q8Options};
use super::field::PANEL;
#[cfg(target_arch = "aarch64")]
use super::simd::Neon;
#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2, Avx512};
use super::simd::{Isa, Portable, Simd};
use crate::{Epilogue, Store};
use std::ops::Range;

/// Defines an unsafe function that compiles a generic one for every instruction set and chooses by `isa` at run time.
///
/// The function may have a type and, behind it, a number among its parameters: `<Q: Bound, M>`. Contract of the function: `isa` is
/// available, and the contract of the generic function.
macro_rules! dispatch {
    ($vis:vis $name:ident $(<$q:ident: $bound:path $(, $m:ident)?>)? = $generic:ident $([$($format:ty),+])? ($($arg:ident: $ty:ty),*) $(-> $out:ty)?) => {
        $vis unsafe fn $name $(<$q: $bound $(, const $m: usize)?>)? (isa: Isa, $($arg: $ty),*) $(-> $out)? {
            match isa {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 | Isa::Avx512Vnni | Isa::Amx => {
                    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl")]
                    unsafe fn go $(<$q: $bound $(, const $m: usize)?>)? ($($arg: $ty),*) $(-> $out)? {
                        // SAFETY: this function has the features of Avx512; the rest is the contract of the outer function.
                        unsafe { $generic::<Avx512 $($(, $format)+)?>($($arg),*) }
                    }
                    // SAFETY: the ISA is available, by the contract of the outer function.
                    unsafe { go $(::<$q $(, $m)?>)? ($($arg),*) }
                }
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => {
                    #[target_feature(enable = "avx2,fma,f16c")]
                    unsafe fn go $(<$q: $bound $(, const $m: usize)?>)? ($($arg: $ty),*) $(-> $out)? {
                        // SAFETY: this function has the features of Avx2; the rest is the contract of the outer function.
                        unsafe { $generic::<Avx2 $($(, $format)+)?>($($arg),*) }
                    }
                    // SAFETY: the ISA is available, by the contract of the outer function.
                    unsafe { go $(::<$q $(, $m)?>)? ($($arg),*) }
                }
                #[cfg(target_arch = "aarch64")]
                // SAFETY: NEON is part of AArch64; the rest is the contract of the outer function.
                Isa::Neon | Isa::NeonDot => unsafe { $generic::<Neon $($(, $format)+)?>($($arg),*) },
                // SAFETY: Portable needs no instruction set; the rest is the contract of the outer function.
                _ => unsafe { $generic::<Portable $($(, $format)+)?>($($arg),*) },
            }
        }
    };
}

pub(crate) use dispatch;

/// Activations that a kernel reads: `rows` rows of `dim` f32.
#[derive(Clone, Copy)]
pub(crate) struct Input<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) dim: usize,
}

/// Activations that several tasks write, each in columns of its own.
#[derive(Clone, Copy)]
pub(crate) struct Output<'a> {
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
    pub(crate) fn new(values: &'a mut [f32], dim: usize) -> Self {
        Self { values: values.as_mut_ptr(), len: values.len(), dim, lifetime: std::marker::PhantomData }
    }

    /// Element `col` of row `row`.
    ///
    /// # Safety
    ///
    /// No other task uses this element, and no other reference to it exists.
    #[allow(clippy::mut_from_ref, reason = "tasks write disjoint elements, by the contract")]
    pub(crate) unsafe fn cell(&self, row: usize, col: usize) -> &'a mut f32 {
        let at = row * self.dim + col;
        assert!(col < self.dim && at < self.len);
        // SAFETY: inside the slice (asserted above), whose lifetime this type holds; exclusive by the contract.
        unsafe { &mut *self.values.add(at) }
    }

    /// Columns `cols` of row `row`.
    ///
    /// # Safety
    ///
    /// No other task uses these elements, and no other reference to them exists.
    #[allow(clippy::mut_from_ref, reason = "tasks write disjoint elements, by the contract")]
    pub(crate) unsafe fn slice(&self, row: usize, cols: Range<usize>) -> &'a mut [f32] {
        let at = row * self.dim + cols.start;
        assert!(cols.start <= cols.end && cols.end <= self.dim && at + cols.len() <= self.len);
        // SAFETY: inside the slice (asserted above), whose lifetime this type holds; exclusive by the contract.
        unsafe { std::slice::from_raw_parts_mut(self.values.add(at), cols.len()) }
    }
}

/// Epilogue of a projection on the processor.
#[derive(Clone, Copy)]
pub(super) struct Finish<'a> {
    /// Bias of each row of the weight, added first.
    pub(super) bias: Option<&'a [f32]>,
    pub(super) epilogue: Epilogue,
}

impl Finish<'_> {
    pub(super) fn is_gated(&self) -> bool {
        self.epilogue.activation.is_gated()
    }

    /// Applies the epilogue to the sum of output `column` and stores the result; only a gated activation uses `up`.
    #[inline(always)]
    pub(super) fn put<S: Simd>(&self, out: &mut f32, column: usize, sum: f32, up: f32) {
        let (mut y, mut up) = (sum, up);
        if let Some(bias) = self.bias {
            y += bias[column];
            if self.is_gated() {
                up += bias[bias.len() / 2 + column];
            }
        }
        let y = self.epilogue.scale * self.epilogue.activation.simd::<S>(y, up);
        match self.epilogue.store {
            Store::Overwrite => *out = y,
            Store::Accumulate => *out += y,
        }
    }
}

/// Applies the epilogue to the sums of rows `first ..` and columns `cells` and stores the results; only a gated activation uses
/// `ups`.
pub(super) fn finish(
    isa: Isa,
    finish: Finish<'_>,
    sums: &[[f32; PANEL]],
    ups: &[[f32; PANEL]],
    first: usize,
    cells: Range<usize>,
    out: Output<'_>,
) {
    // SAFETY: an ISA in use is available; the cells are those of the calling task, which no other task writes.
    unsafe { finish_rows(isa, finish, sums, ups, first, cells, out) }
}

dispatch!(finish_rows = finish_generic(
    finish: Finish<'_>,
    sums: &[[f32; PANEL]],
    ups: &[[f32; PANEL]],
    first: usize,
    cells: Range<usize>,
    out: Output<'_>
));

/// # Safety
///
/// The instruction set of S is available. No other task writes these cells of `out`.
#[inline(always)]
unsafe fn finish_generic<S: Simd>(
    finish: Finish<'_>,
    sums: &[[f32; PANEL]],
    ups: &[[f32; PANEL]],
    first: usize,
    cells: Range<usize>,
    out: Output<'_>,
) {
    let Finish { bias, epilogue: Epilogue { activation, scale, store } } = finish;
    let gated = finish.is_gated();
    let part = |from: usize| {
        let mut part = [0.0; PANEL];
        if let Some(bias) = bias {
            let part = &mut part[..cells.len()];
            part.copy_from_slice(&bias[from + cells.start..][..part.len()]);
        }
        part
    };
    let (biases, up_biases) = (part(0), part(if gated { bias.map_or(0, <[f32]>::len) / 2 } else { 0 }));
    for (i, (sums, ups)) in sums.iter().zip(ups).enumerate() {
        // SAFETY: the cells are those of the task, by the contract of this function.
        let out = unsafe { out.slice(first + i, cells.clone()) };
        // loops, because a closure may be compiled without the instructions of the ISA
        let mut results = *sums;
        let mut ups = *ups;
        if bias.is_some() {
            for i in 0..PANEL {
                results[i] += biases[i];
                ups[i] += up_biases[i];
            }
        }
        if !activation.is_identity() {
            for i in 0..PANEL {
                results[i] = activation.simd::<S>(results[i], ups[i]);
            }
        }
        if scale != 1.0 {
            for result in &mut results {
                *result *= scale;
            }
        }
        let whole: Result<&mut [f32; PANEL], _> = (&mut *out).try_into();
        match (store, whole) {
            (Store::Overwrite, Ok(out)) => *out = results,
            (Store::Overwrite, Err(_)) => out.copy_from_slice(&results[..out.len()]),
            (Store::Accumulate, Ok(out)) => {
                for i in 0..PANEL {
                    out[i] += results[i];
                }
            }
            (Store::Accumulate, Err(_)) => out.iter_mut().zip(&results).for_each(|(out, result)| *out += result),
        }
    }
}

/// `out = (x - mean(x)) * weight / sqrt(var(x) + eps) + bias`, a row.
pub(crate) fn layer_norm(isa: Isa, x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    assert!(x.len() == weight.len() && x.len() == bias.len() && x.len() == out.len());
    // SAFETY: an ISA in use is available; the kernel is plain loops over slices.
    unsafe { layer_norm_row(isa, x, weight, bias, eps, out) }
}

dispatch!(layer_norm_row = layer_norm_generic(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]));

/// Has no contract; unsafe only because `dispatch!` requires it.
#[inline(always)]
unsafe fn layer_norm_generic<S: Simd>(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    let mut lanes = [0f32; 16];
    let (chunks, rest) = x.as_chunks::<16>();
    for chunk in chunks {
        for i in 0..16 {
            lanes[i] += chunk[i];
        }
    }
    for (lane, v) in lanes.iter_mut().zip(rest) {
        *lane += v;
    }
    let mean = lanes.iter().sum::<f32>() / x.len() as f32;
    let mut lanes = [0f32; 16];
    for chunk in chunks {
        for i in 0..16 {
            lanes[i] += (chunk[i] - mean) * (chunk[i] - mean);
        }
    }
    for (lane, v) in lanes.iter_mut().zip(rest) {
        *lane += (v - mean) * (v - mean);
    }
    let inverse = 1.0 / (lanes.iter().sum::<f32>() / x.len() as f32 + eps).sqrt();
    for (((out, &x), &w), &b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
        *out = (x - mean) * inverse * w + b;
    }
}

/// `out = x * weight / sqrt(mean(x²) + eps)`, a row.
pub(crate) fn rms_norm(isa: Isa, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    assert!(x.len() == weight.len() && x.len() == out.len());
    // SAFETY: an ISA in use is available; the kernel is plain loops over slices.
    unsafe { norm_row(isa, x, weight, eps, out) }
}

dispatch!(pub(super) quantize_q8 = quantize_generic(x: &[f32], options: Q8Options, blocks: &mut [BlockQ8], step: usize));

/// Has no contract; unsafe only because `dispatch!` requires it.
#[inline(always)]
unsafe fn quantize_generic<S: Simd>(x: &[f32], options: Q8Options, blocks: &mut [BlockQ8], step: usize) {
    activations::quantize(x, options, blocks, step);
}

dispatch!(norm_row = norm_generic(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]));

/// Has no contract; unsafe only because `dispatch!` requires it.
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

/// Rotates each head of a row: dimensions i and `i + turn.len() / 2` by the angle whose cosine and sine are pair i of `turn`.
pub(crate) fn rotate(isa: Isa, row: &mut [f32], head_dim: usize, turn: &[f32]) {
    // SAFETY: an ISA in use is available; the kernel is plain loops over slices.
    unsafe { rotate_row(isa, row, head_dim, turn) }
}

dispatch!(rotate_row = rotate_generic(row: &mut [f32], head_dim: usize, turn: &[f32]));

/// Has no contract; unsafe only because `dispatch!` requires it.
#[inline(always)]
unsafe fn rotate_generic<S: Simd>(row: &mut [f32], head_dim: usize, turn: &[f32]) {
    for head in row.chunks_exact_mut(head_dim) {
        let (low, high) = head.split_at_mut(turn.len() / 2);
        for ((low, high), turn) in low.iter_mut().zip(high).zip(turn.as_chunks::<2>().0) {
            (*low, *high) = (*low * turn[0] - *high * turn[1], *high * turn[0] + *low * turn[1]);
        }
    }
}
