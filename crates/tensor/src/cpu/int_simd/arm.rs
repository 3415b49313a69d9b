//! NEON, with and without the dot product instructions.

use super::IntSimd;
use std::arch::aarch64::*;

/// Functions that both sets share.
macro_rules! neon {
    () => {
        #[inline(always)]
        unsafe fn load(p: *const u8) -> int32x4_t {
            // SAFETY: the caller guarantees 16 readable bytes and the instruction set, by the trait.
            unsafe { vreinterpretq_s32_u8(vld1q_u8(p)) }
        }

        #[inline(always)]
        unsafe fn bytes(p: *const u8) -> int32x4_t {
            // SAFETY: the caller guarantees 4 readable bytes and the instruction set, by the trait.
            unsafe {
                let bytes = vreinterpret_u8_u32(vdup_n_u32(p.cast::<u32>().read_unaligned()));
                vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes))))
            }
        }

        #[inline(always)]
        unsafe fn signed_bytes(p: *const u8) -> int32x4_t {
            // SAFETY: the caller guarantees 4 readable bytes and the instruction set, by the trait.
            unsafe {
                let bytes = vreinterpret_s8_u32(vdup_n_u32(p.cast::<u32>().read_unaligned()));
                vmovl_s16(vget_low_s16(vmovl_s8(bytes)))
            }
        }

        #[inline(always)]
        unsafe fn halves(p: *const u8) -> float32x4_t {
            // SAFETY: the caller guarantees 8 readable bytes and the instruction set; plain AArch64 converts halves.
            unsafe {
                let halves = vld1_u16(p.cast());
                let wide: float32x4_t;
                std::arch::asm!(
                    "fcvtl {wide:v}.4s, {h:v}.4h", wide = out(vreg) wide, h = in(vreg) halves,
                    options(pure, nomem, nostack)
                );
                wide
            }
        }

        #[inline(always)]
        unsafe fn splat(v: i32) -> int32x4_t {
            // SAFETY: NEON is part of AArch64.
            unsafe { vdupq_n_s32(v) }
        }

        #[inline(always)]
        unsafe fn splat_f32(v: f32) -> float32x4_t {
            // SAFETY: NEON is part of AArch64.
            unsafe { vdupq_n_f32(v) }
        }

        #[inline(always)]
        unsafe fn and(a: int32x4_t, mask: u8) -> int32x4_t {
            // SAFETY: NEON is part of AArch64.
            unsafe { vreinterpretq_s32_u8(vandq_u8(vreinterpretq_u8_s32(a), vdupq_n_u8(mask))) }
        }

        #[inline(always)]
        unsafe fn or(a: int32x4_t, b: int32x4_t) -> int32x4_t {
            // SAFETY: NEON is part of AArch64.
            unsafe { vorrq_s32(a, b) }
        }

        #[inline(always)]
        unsafe fn shr(a: int32x4_t, n: usize) -> int32x4_t {
            // SAFETY: NEON is part of AArch64.
            unsafe { vreinterpretq_s32_u16(vshlq_u16(vreinterpretq_u16_s32(a), vdupq_n_s16(-(n as i16)))) }
        }

        #[inline(always)]
        unsafe fn shl(a: int32x4_t, n: usize) -> int32x4_t {
            // SAFETY: NEON is part of AArch64.
            unsafe { vreinterpretq_s32_u16(vshlq_u16(vreinterpretq_u16_s32(a), vdupq_n_s16(n as i16))) }
        }

        #[inline(always)]
        unsafe fn lookup(a: int32x4_t, table: &[i8; 16]) -> int32x4_t {
            // SAFETY: NEON is part of AArch64; the table has 16 entries.
            unsafe { vreinterpretq_s32_s8(vqtbl1q_s8(vld1q_s8(table.as_ptr()), vreinterpretq_u8_s32(a))) }
        }

        #[inline(always)]
        unsafe fn biased(a: int32x4_t) -> int32x4_t {
            a
        }

        #[inline(always)]
        unsafe fn add(a: int32x4_t, b: int32x4_t) -> int32x4_t {
            // SAFETY: NEON is part of AArch64.
            unsafe { vaddq_s32(a, b) }
        }

        #[inline(always)]
        unsafe fn to_f32(a: int32x4_t) -> float32x4_t {
            // SAFETY: NEON is part of AArch64.
            unsafe { vcvtq_f32_s32(a) }
        }

        #[inline(always)]
        unsafe fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            // SAFETY: NEON is part of AArch64.
            unsafe { vmulq_f32(a, b) }
        }

        #[inline(always)]
        unsafe fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
            // SAFETY: NEON is part of AArch64.
            unsafe { vfmaq_f32(c, a, b) }
        }

        #[inline(always)]
        unsafe fn store(p: *mut f32, v: float32x4_t) {
            // SAFETY: the caller guarantees 4 writable f32 and the instruction set, by the trait.
            unsafe { vst1q_f32(p, v) }
        }

        #[inline(always)]
        unsafe fn prefetch(p: *const u8) {
            // SAFETY: a prefetch does not fault.
            unsafe { std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) p, options(nostack, readonly)) }
        }
    };
}

/// NEON alone.
#[derive(Clone, Copy)]
pub(crate) struct Neon;

// SAFETY: NEON is part of AArch64.
unsafe impl IntSimd for Neon {
    type I = int32x4_t;
    type F = float32x4_t;
    const ROWS: usize = 4;
    const BIAS: i32 = 0;

    neon!();

    #[inline(always)]
    unsafe fn dot(sum: int32x4_t, words: int32x4_t, x: i32) -> int32x4_t {
        // SAFETY: NEON is part of AArch64.
        unsafe {
            let (words, x) = (vreinterpretq_s8_s32(words), vreinterpretq_s8_s32(vdupq_n_s32(x)));
            let low = vpaddlq_s16(vmull_s8(vget_low_s8(words), vget_low_s8(x)));
            let high = vpaddlq_s16(vmull_high_s8(words, x));
            vaddq_s32(sum, vpaddq_s32(low, high))
        }
    }
}

/// NEON with the dot product instructions (`FEAT_DotProd`).
#[derive(Clone, Copy)]
pub(crate) struct NeonDot;

// SAFETY: NEON is part of AArch64; the caller guarantees the dot product instructions.
unsafe impl IntSimd for NeonDot {
    type I = int32x4_t;
    type F = float32x4_t;
    const ROWS: usize = 4;
    const BIAS: i32 = 0;

    neon!();

    #[inline(always)]
    unsafe fn dot(mut sum: int32x4_t, words: int32x4_t, x: i32) -> int32x4_t {
        // SAFETY: the caller guarantees the dot product instructions, by the trait.
        unsafe {
            let x = vdupq_n_s32(x);
            std::arch::asm!(
                "sdot {sum:v}.4s, {words:v}.16b, {x:v}.16b",
                sum = inout(vreg) sum, words = in(vreg) words, x = in(vreg) x, options(pure, nomem, nostack)
            );
        }
        sum
    }
}
