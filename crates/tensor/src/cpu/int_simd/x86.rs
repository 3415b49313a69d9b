//! AVX2, AVX-512 and AVX-512 VNNI.

use super::{BlockQ8, IntSimd};
use std::arch::x86_64::*;

/// Functions that both AVX-512 sets share.
macro_rules! avx512 {
    () => {
        #[inline(always)]
        unsafe fn load(p: *const u8) -> __m512i {
            // SAFETY: the caller guarantees 64 readable bytes and the instruction set, by the trait.
            unsafe { _mm512_loadu_si512(p.cast()) }
        }

        #[inline(always)]
        unsafe fn bytes(p: *const u8) -> __m512i {
            // SAFETY: the caller guarantees 16 readable bytes and the instruction set, by the trait.
            unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast())) }
        }

        #[inline(always)]
        unsafe fn signed_bytes(p: *const u8) -> __m512i {
            // SAFETY: the caller guarantees 16 readable bytes and the instruction set, by the trait.
            unsafe { _mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast())) }
        }

        #[inline(always)]
        unsafe fn halves(p: *const u8) -> __m512 {
            // SAFETY: the caller guarantees 32 readable bytes and the instruction set, by the trait.
            unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
        }

        #[inline(always)]
        unsafe fn splat(v: i32) -> __m512i {
            // SAFETY: registers only; the caller guarantees the instruction set, by the trait.
            unsafe { _mm512_set1_epi32(v) }
        }

        #[inline(always)]
        unsafe fn splat_f32(v: f32) -> __m512 {
            // SAFETY: registers only; the caller guarantees the instruction set, by the trait.
            unsafe { _mm512_set1_ps(v) }
        }

        #[inline(always)]
        unsafe fn and(a: __m512i, mask: u8) -> __m512i {
            // SAFETY: registers only; the caller guarantees the instruction set, by the trait.
            unsafe { _mm512_and_si512(a, _mm512_set1_epi8(mask as i8)) }
        }

        #[inline(always)]
        unsafe fn or(a: __m512i, b: __m512i) -> __m512i {
            // SAFETY: registers only; the caller guarantees the instruction set, by the trait.
            unsafe { _mm512_or_si512(a, b) }
        }

        #[inline(always)]
        unsafe fn shr(a: __m512i, n: usize) -> __m512i {
            // SAFETY: registers only; the caller guarantees the instruction set, by the trait.
            unsafe { _mm512_srl_epi16(a, _mm_cvtsi32_si128(n as i32)) }
        }

        #[inline(always)]
        unsafe fn shl(a: __m512i, n: usize) -> __m512i {
            // SAFETY: registers only; the caller guarantees the instruction set, by the trait.
            unsafe { _mm512_sll_epi16(a, _mm_cvtsi32_si128(n as i32)) }
        }

        #[inline(always)]
        unsafe fn lookup(a: __m512i, table: &[i8; 16]) -> __m512i {
            // SAFETY: registers only; the caller guarantees the instruction set, by the trait.
            unsafe { _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast())), a) }
        }

        #[inline(always)]
        unsafe fn add(a: __m512i, b: __m512i) -> __m512i {
            // SAFETY: registers only; the caller guarantees the instruction set, by the trait.
            unsafe { _mm512_add_epi32(a, b) }
        }

        #[inline(always)]
        unsafe fn to_f32(a: __m512i) -> __m512 {
            // SAFETY: registers only; the caller guarantees the instruction set, by the trait.
            unsafe { _mm512_cvtepi32_ps(a) }
        }

        #[inline(always)]
        unsafe fn mul(a: __m512, b: __m512) -> __m512 {
            // SAFETY: registers only; the caller guarantees the instruction set, by the trait.
            unsafe { _mm512_mul_ps(a, b) }
        }

        #[inline(always)]
        unsafe fn scaled(a: __m512, block: &BlockQ8) -> __m512 {
            // SAFETY: registers only; the caller guarantees the instruction set, by the trait.
            unsafe {
                // an integer addition, which some processors execute beside the products
                _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), _mm512_set1_epi32(block.power)))
            }
        }

        #[inline(always)]
        unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
            // SAFETY: registers only; the caller guarantees the instruction set, by the trait.
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }

        #[inline(always)]
        unsafe fn store(p: *mut f32, v: __m512) {
            // SAFETY: the caller guarantees 16 writable f32 and the instruction set, by the trait.
            unsafe { _mm512_storeu_ps(p, v) }
        }

        #[inline(always)]
        unsafe fn prefetch(p: *const u8) {
            // SAFETY: a prefetch does not fault.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
        }
    };
}

/// [`IntSimd::dots_unsigned`] without VNNI: products of several words are added in 16 bits before they are widened.
macro_rules! dots_unsigned {
    ($products:ident, $pairs:ident, $add_16:ident, $add_32:ident, $splat_32:ident, $splat_16:ident) => {
        #[inline(always)]
        unsafe fn dots_unsigned<const FIRST: usize, const N: usize, const M: usize>(
            mut sums: [Self::I; M],
            words: &[Self::I; 8],
            x: *const BlockQ8,
            largest: i32,
        ) -> [Self::I; M] {
            // words whose products fit in 16 bits together: of each, two products of a quant and a byte
            let run = (i32::from(i16::MAX) / (2 * 128 * largest)) as usize;
            // SAFETY: `m < M`; the caller guarantees M blocks at `x` and the instruction set, by the trait.
            unsafe {
                for (m, sum) in sums.iter_mut().enumerate() {
                    let x = &*x.add(m);
                    for first in (FIRST..FIRST + N).step_by(run) {
                        let mut products = $products(words[first], $splat_32(x.word(first)));
                        for i in first + 1..(first + run).min(FIRST + N) {
                            products = $add_16(products, $products(words[i], $splat_32(x.word(i))));
                        }
                        *sum = $add_32(*sum, $pairs(products, $splat_16(1)));
                    }
                }
            }
            sums
        }
    };
}

/// AVX-512 F, BW and VL.
#[derive(Clone, Copy)]
pub(crate) struct Avx512;

// SAFETY: every function is an AVX-512 F, BW or VL instruction (or a few), which the caller guarantees, by the trait.
unsafe impl IntSimd for Avx512 {
    type I = __m512i;
    type F = __m512;
    const ROWS: usize = 16;
    const BIAS: i32 = 0;

    avx512!();

    #[inline(always)]
    unsafe fn biased(a: __m512i) -> __m512i {
        a
    }

    dots_unsigned!(
        _mm512_maddubs_epi16,
        _mm512_madd_epi16,
        _mm512_add_epi16,
        _mm512_add_epi32,
        _mm512_set1_epi32,
        _mm512_set1_epi16
    );

    #[inline(always)]
    unsafe fn dot(sum: __m512i, words: __m512i, x: i32) -> __m512i {
        // SAFETY: registers only; the caller guarantees the instruction set, by the trait.
        unsafe {
            // the sign of the words is applied to x, so that two products of at most 128 * 127 fit in 16 bits
            let x = _mm512_set1_epi32(x);
            let x = _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(words), _mm512_setzero_si512(), x);
            let pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(words), x);
            _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))
        }
    }
}

/// AVX-512 with VNNI.
#[derive(Clone, Copy)]
pub(crate) struct Vnni;

// SAFETY: every function is an AVX-512 F, BW, VL or VNNI instruction (or a few), which the caller guarantees, by the trait.
unsafe impl IntSimd for Vnni {
    type I = __m512i;
    type F = __m512;
    const ROWS: usize = 16;
    const BIAS: i32 = 128;

    avx512!();

    #[inline(always)]
    unsafe fn biased(a: __m512i) -> __m512i {
        // SAFETY: registers only; the caller guarantees the instruction set, by the trait.
        unsafe { _mm512_xor_si512(a, _mm512_set1_epi8(-128)) }
    }

    #[inline(always)]
    unsafe fn dot(sum: __m512i, words: __m512i, x: i32) -> __m512i {
        // SAFETY: registers only; the caller guarantees the instruction set, by the trait.
        unsafe { _mm512_dpbusd_epi32(sum, words, _mm512_set1_epi32(x)) }
    }
}

/// AVX2 with FMA and F16C.
#[derive(Clone, Copy)]
pub(crate) struct Avx2;

// SAFETY: every function is an AVX2, FMA or F16C instruction (or a few), which the caller guarantees, by the trait.
unsafe impl IntSimd for Avx2 {
    type I = __m256i;
    type F = __m256;
    const ROWS: usize = 8;
    const GROUP: usize = 4;
    const BIAS: i32 = 0;

    #[inline(always)]
    unsafe fn load(p: *const u8) -> __m256i {
        // SAFETY: the caller guarantees 32 readable bytes and the instruction set, by the trait.
        unsafe { _mm256_loadu_si256(p.cast()) }
    }

    #[inline(always)]
    unsafe fn bytes(p: *const u8) -> __m256i {
        // SAFETY: the caller guarantees 8 readable bytes and the instruction set, by the trait.
        unsafe { _mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast())) }
    }

    #[inline(always)]
    unsafe fn signed_bytes(p: *const u8) -> __m256i {
        // SAFETY: the caller guarantees 8 readable bytes and the instruction set, by the trait.
        unsafe { _mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast())) }
    }

    #[inline(always)]
    unsafe fn halves(p: *const u8) -> __m256 {
        // SAFETY: the caller guarantees 16 readable bytes and the instruction set, by the trait.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
    }

    #[inline(always)]
    unsafe fn splat(v: i32) -> __m256i {
        // SAFETY: registers only; the caller guarantees the instruction set, by the trait.
        unsafe { _mm256_set1_epi32(v) }
    }

    #[inline(always)]
    unsafe fn splat_f32(v: f32) -> __m256 {
        // SAFETY: registers only; the caller guarantees the instruction set, by the trait.
        unsafe { _mm256_set1_ps(v) }
    }

    #[inline(always)]
    unsafe fn and(a: __m256i, mask: u8) -> __m256i {
        // SAFETY: registers only; the caller guarantees the instruction set, by the trait.
        unsafe { _mm256_and_si256(a, _mm256_set1_epi8(mask as i8)) }
    }

    #[inline(always)]
    unsafe fn or(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: registers only; the caller guarantees the instruction set, by the trait.
        unsafe { _mm256_or_si256(a, b) }
    }

    #[inline(always)]
    unsafe fn shr(a: __m256i, n: usize) -> __m256i {
        // SAFETY: registers only; the caller guarantees the instruction set, by the trait.
        unsafe { _mm256_srl_epi16(a, _mm_cvtsi32_si128(n as i32)) }
    }

    #[inline(always)]
    unsafe fn shl(a: __m256i, n: usize) -> __m256i {
        // SAFETY: registers only; the caller guarantees the instruction set, by the trait.
        unsafe { _mm256_sll_epi16(a, _mm_cvtsi32_si128(n as i32)) }
    }

    #[inline(always)]
    unsafe fn lookup(a: __m256i, table: &[i8; 16]) -> __m256i {
        // SAFETY: registers only; the caller guarantees the instruction set, by the trait.
        unsafe { _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast())), a) }
    }

    #[inline(always)]
    unsafe fn biased(a: __m256i) -> __m256i {
        a
    }

    dots_unsigned!(
        _mm256_maddubs_epi16,
        _mm256_madd_epi16,
        _mm256_add_epi16,
        _mm256_add_epi32,
        _mm256_set1_epi32,
        _mm256_set1_epi16
    );

    #[inline(always)]
    unsafe fn dot(sum: __m256i, words: __m256i, x: i32) -> __m256i {
        // SAFETY: registers only; the caller guarantees the instruction set, by the trait.
        unsafe {
            // the sign of the words is applied to x, so that two products of at most 128 * 127 fit in 16 bits
            let x = _mm256_sign_epi8(_mm256_set1_epi32(x), words);
            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(words), x);
            _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }

    #[inline(always)]
    unsafe fn add(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: registers only; the caller guarantees the instruction set, by the trait.
        unsafe { _mm256_add_epi32(a, b) }
    }

    #[inline(always)]
    unsafe fn to_f32(a: __m256i) -> __m256 {
        // SAFETY: registers only; the caller guarantees the instruction set, by the trait.
        unsafe { _mm256_cvtepi32_ps(a) }
    }

    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        // SAFETY: registers only; the caller guarantees the instruction set, by the trait.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: registers only; the caller guarantees the instruction set, by the trait.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m256) {
        // SAFETY: the caller guarantees 8 writable f32 and the instruction set, by the trait.
        unsafe { _mm256_storeu_ps(p, v) }
    }

    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        // SAFETY: a prefetch does not fault.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
}
