//! AVX2 and AVX-512.

use super::{Isa, Simd};
use std::arch::x86_64::*;

#[derive(Clone, Copy)]
pub(crate) struct Avx2;

// SAFETY: every function is one AVX2, FMA or F16C instruction (or a few), which the caller guarantees, by the trait.
unsafe impl Simd for Avx2 {
    type V = __m256;
    const LEVEL: Isa = Isa::Avx2;
    const LANES: usize = 8;
    const ROWS: usize = 2;
    const FMA: bool = true;

    #[inline(always)]
    unsafe fn splat(v: f32) -> __m256 {
        // SAFETY: the caller guarantees the instruction set, and LANES writable f32 for a store, by the trait.
        unsafe { _mm256_set1_ps(v) }
    }

    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m256) {
        // SAFETY: the caller guarantees the instruction set, and LANES writable f32 for a store, by the trait.
        unsafe { _mm256_storeu_ps(p, v) }
    }

    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        // SAFETY: the caller guarantees the instruction set, and LANES writable f32 for a store, by the trait.
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn zero() -> __m256 {
        // SAFETY: registers only; the caller guarantees AVX2, by the trait.
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m256 {
        // SAFETY: the caller guarantees eight readable f32 and the instruction set, by the trait.
        unsafe { _mm256_loadu_ps(p) }
    }

    #[inline(always)]
    unsafe fn load_f16(p: *const u8) -> __m256 {
        // SAFETY: the caller guarantees sixteen readable bytes and the instruction set, by the trait.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
    }

    #[inline(always)]
    unsafe fn load_bf16(p: *const u8) -> __m256 {
        // SAFETY: the caller guarantees sixteen readable bytes and the instruction set, by the trait.
        unsafe { _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast())), 16)) }
    }

    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> __m256 {
        // SAFETY: the caller guarantees eight readable bytes and the instruction set, by the trait.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast()))) }
    }

    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        // SAFETY: registers only; the caller guarantees AVX2, by the trait.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: registers only; the caller guarantees FMA, by the trait.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        // SAFETY: a prefetch does not fault.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
    }

    #[inline(always)]
    unsafe fn sum(v: __m256) -> f32 {
        // SAFETY: registers only; the caller guarantees AVX2, by the trait.
        unsafe {
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
        }
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Avx512;

// SAFETY: every function is one AVX-512 instruction (or a few), which the caller guarantees, by the trait.
unsafe impl Simd for Avx512 {
    type V = __m512;
    const LEVEL: Isa = Isa::Avx512;
    const LANES: usize = 16;
    const ROWS: usize = 6;
    const FMA: bool = true;

    #[inline(always)]
    unsafe fn splat(v: f32) -> __m512 {
        // SAFETY: the caller guarantees the instruction set, and LANES writable f32 for a store, by the trait.
        unsafe { _mm512_set1_ps(v) }
    }

    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m512) {
        // SAFETY: the caller guarantees the instruction set, and LANES writable f32 for a store, by the trait.
        unsafe { _mm512_storeu_ps(p, v) }
    }

    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        // SAFETY: the caller guarantees the instruction set, and LANES writable f32 for a store, by the trait.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn zero() -> __m512 {
        // SAFETY: registers only; the caller guarantees AVX-512, by the trait.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m512 {
        // SAFETY: the caller guarantees sixteen readable f32 and the instruction set, by the trait.
        unsafe { _mm512_loadu_ps(p) }
    }

    #[inline(always)]
    unsafe fn load_f16(p: *const u8) -> __m512 {
        // SAFETY: the caller guarantees 32 readable bytes and the instruction set, by the trait.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }

    #[inline(always)]
    unsafe fn load_bf16(p: *const u8) -> __m512 {
        // SAFETY: the caller guarantees 32 readable bytes and the instruction set, by the trait.
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast())), 16)) }
    }

    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> __m512 {
        // SAFETY: the caller guarantees sixteen readable bytes and the instruction set, by the trait.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast()))) }
    }

    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        // SAFETY: registers only; the caller guarantees AVX-512, by the trait.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: registers only; the caller guarantees AVX-512, by the trait.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        // SAFETY: a prefetch does not fault.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
    }

    #[inline(always)]
    unsafe fn sum(v: __m512) -> f32 {
        // SAFETY: registers only; the caller guarantees AVX-512, by the trait.
        unsafe { _mm512_reduce_add_ps(v) }
    }
}
