//! Keys and values of a page as registers, by type of the cache.

use crate::cpu::cache::Panels;
use crate::cpu::simd::{Format, Simd};
use crate::{KvType, PAGE};
use half::f16;
use std::marker::PhantomData;

/// Keys `[head_dim][PAGE]` and values `[PAGE][head_dim]` of a head on a page.
///
/// # Safety
///
/// Callers guarantee the instruction set of S, that the panels still exist, that the page is that of a head of width `d`, and that the numbers exist: keys of
/// dimension `i` from position `at` on, values of position `j` from dimension `at` on, LANES of them. `at` is a multiple of LANES.
pub(super) unsafe trait Numbers: Copy {
    /// Bytes of a number.
    const BYTES: usize;
    /// The numbers of panels, which are of this type.
    fn of(panels: Panels<'_>) -> Self;
    unsafe fn keys<S: Simd>(self, i: usize, at: usize) -> S::V;
    unsafe fn values<S: Simd>(self, d: usize, j: usize, at: usize) -> S::V;
    /// Dimension i of the value of position j.
    unsafe fn value(self, d: usize, j: usize, i: usize) -> f32;
    /// Addresses of the first key and the first value.
    fn first(self) -> [*const u8; 2];
}

/// Numbers of a plain type.
pub(super) struct Plain<F> {
    keys: *const u8,
    values: *const u8,
    format: PhantomData<F>,
}

impl<F> Clone for Plain<F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F> Copy for Plain<F> {}

// SAFETY: reads the numbers of the contract.
unsafe impl<F: Format> Numbers for Plain<F> {
    const BYTES: usize = F::BYTES;

    #[inline(always)]
    fn of(panels: Panels<'_>) -> Self {
        let (keys, values): (*const u8, *const u8) = match panels {
            Panels::F32 { keys, values } => (keys.as_ptr().cast(), values.as_ptr().cast()),
            Panels::F16 { keys, values } => (keys.as_ptr().cast(), values.as_ptr().cast()),
            Panels::Q8_0 { keys, values, .. } => (keys.as_ptr().cast(), values.as_ptr().cast()),
        };
        Self { keys, values, format: PhantomData }
    }

    #[inline(always)]
    unsafe fn keys<S: Simd>(self, i: usize, at: usize) -> S::V {
        // SAFETY: the caller guarantees that the keys exist.
        unsafe { F::load::<S>(self.keys.add((i * PAGE + at) * F::BYTES)) }
    }

    #[inline(always)]
    unsafe fn values<S: Simd>(self, d: usize, j: usize, at: usize) -> S::V {
        // SAFETY: the caller guarantees that the values exist.
        unsafe { F::load::<S>(self.values.add((j * d + at) * F::BYTES)) }
    }

    #[inline(always)]
    unsafe fn value(self, d: usize, j: usize, i: usize) -> f32 {
        // SAFETY: the caller guarantees that the value exists.
        unsafe { F::one(self.values.add((j * d + i) * F::BYTES)) }
    }

    fn first(self) -> [*const u8; 2] {
        [self.keys, self.values]
    }
}

/// Numbers of a q8_0 cache: a level times the scale of its block.
#[derive(Clone, Copy)]
pub(super) struct Levels {
    keys: *const i8,
    values: *const i8,
    key_scales: *const f32,
    value_scales: *const f32,
    first_scale: *const usize,
}

// SAFETY: reads the numbers of the contract and their scales. LANES divides a block, so the values of a register share a scale.
unsafe impl Numbers for Levels {
    const BYTES: usize = 1;

    #[inline(always)]
    fn of(panels: Panels<'_>) -> Self {
        match panels {
            Panels::Q8_0 { keys, values, key_scales, value_scales, first_scale } => Self {
                keys: keys.as_ptr(),
                values: values.as_ptr(),
                key_scales: key_scales.as_ptr(),
                value_scales: value_scales.as_ptr(),
                first_scale: first_scale.as_ptr(),
            },
            Panels::F32 { .. } | Panels::F16 { .. } => unreachable!("the pages of a cache are of one type"),
        }
    }

    #[inline(always)]
    unsafe fn keys<S: Simd>(self, i: usize, at: usize) -> S::V {
        // SAFETY: the caller guarantees that the keys exist; a page has scales of each of its positions for a block.
        unsafe {
            let scale = S::load(self.key_scales.add(*self.first_scale.add(i) + at));
            S::mul(S::load_i8(self.keys.add(i * PAGE + at)), scale)
        }
    }

    #[inline(always)]
    unsafe fn values<S: Simd>(self, d: usize, j: usize, at: usize) -> S::V {
        // SAFETY: the caller guarantees that the values exist; each block of them has a scale.
        unsafe {
            let scale = *self.value_scales.add(j * d.div_ceil(KvType::BLOCK) + at / KvType::BLOCK);
            S::mul(S::load_i8(self.values.add(j * d + at)), S::splat(scale))
        }
    }

    #[inline(always)]
    unsafe fn value(self, d: usize, j: usize, i: usize) -> f32 {
        // SAFETY: the caller guarantees that the value exists; its block has a scale.
        unsafe {
            let scale = *self.value_scales.add(j * d.div_ceil(KvType::BLOCK) + i / KvType::BLOCK);
            f32::from(*self.values.add(j * d + i)) * scale
        }
    }

    fn first(self) -> [*const u8; 2] {
        [self.keys.cast(), self.values.cast()]
    }
}

/// Writes the numbers of a page in single precision: keys to the first half of `out`, values to the second.
///
/// # Safety
///
/// The instruction set of S is available.
#[inline(always)]
pub(super) unsafe fn widen<S: Simd>(panels: &Panels<'_>, d: usize, out: &mut [f32]) {
    let (to_keys, to_values) = out.split_at_mut(PAGE * d);
    match *panels {
        Panels::F32 { keys, values } => {
            to_keys.copy_from_slice(keys);
            to_values.copy_from_slice(values);
        }
        Panels::F16 { keys, values } => {
            // SAFETY: the caller guarantees the instruction set.
            unsafe {
                widen_halves::<S>(keys, to_keys);
                widen_halves::<S>(values, to_values);
            }
        }
        Panels::Q8_0 { keys, values, key_scales, value_scales, first_scale } => {
            widen_keys(first_scale, keys, key_scales, to_keys);
            widen_values(d, values, value_scales, to_values);
        }
    }
}

#[inline(always)]
unsafe fn widen_halves<S: Simd>(halves: &[u16], out: &mut [f32]) {
    assert_eq!(halves.len(), out.len());
    let whole = halves.len() / S::LANES * S::LANES;
    for at in (0..whole).step_by(S::LANES) {
        // SAFETY: LANES elements are left in both; the caller guarantees the instruction set.
        unsafe { S::store(out.as_mut_ptr().add(at), S::load_f16(halves.as_ptr().add(at).cast())) };
    }
    for (out, half) in out[whole..].iter_mut().zip(&halves[whole..]) {
        *out = f16::from_bits(*half).to_f32();
    }
}

#[inline(always)]
fn widen_keys(first_scale: &[usize], keys: &[i8], scales: &[f32], out: &mut [f32]) {
    for ((out, levels), first) in out.chunks_exact_mut(PAGE).zip(keys.chunks_exact(PAGE)).zip(first_scale) {
        for ((out, &level), scale) in out.iter_mut().zip(levels).zip(&scales[*first..][..PAGE]) {
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
