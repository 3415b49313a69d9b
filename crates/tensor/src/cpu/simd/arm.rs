//! NEON.

use super::{Isa, Simd};
use std::arch::aarch64::*;

#[derive(Clone, Copy)]
pub(crate) struct Neon;

// SAFETY: NEON is part of AArch64.
unsafe impl Simd for Neon {
    type V = [float32x4_t; 2];
    const LEVEL: Isa = Isa::Neon;
    const LANES: usize = 8;
    const ROWS: usize = 2;
    const FMA: bool = true;

    #[inline(always)]
    unsafe fn splat(v: f32) -> Self::V {
        // SAFETY: the caller guarantees the instruction set, and LANES writable f32 for a store, by the trait.
        unsafe { [vdupq_n_f32(v); 2] }
    }

    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Self::V) {
        // SAFETY: the caller guarantees the instruction set, and LANES writable f32 for a store, by the trait.
        unsafe {
            vst1q_f32(p, v[0]);
            vst1q_f32(p.add(4), v[1]);
        }
    }

    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the caller guarantees the instruction set, and LANES writable f32 for a store, by the trait.
        unsafe { [vaddq_f32(a[0], b[0]), vaddq_f32(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn zero() -> Self::V {
        // SAFETY: registers only; the caller guarantees NEON, by the trait.
        unsafe { [vdupq_n_f32(0.0); 2] }
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::V {
        // SAFETY: the caller guarantees eight readable f32 and the instruction set, by the trait.
        unsafe { [vld1q_f32(p), vld1q_f32(p.add(4))] }
    }

    #[inline(always)]
    unsafe fn load_f16(p: *const u8) -> Self::V {
        // SAFETY: the caller guarantees sixteen readable bytes, by the trait; plain AArch64 converts halves.
        unsafe {
            let halves = vld1q_u16(p.cast());
            let (low, high): (float32x4_t, float32x4_t);
            std::arch::asm!(
                "fcvtl {low:v}.4s, {h:v}.4h", "fcvtl2 {high:v}.4s, {h:v}.8h",
                low = out(vreg) low, high = out(vreg) high, h = in(vreg) halves,
                options(pure, nomem, nostack)
            );
            [low, high]
        }
    }

    #[inline(always)]
    unsafe fn load_bf16(p: *const u8) -> Self::V {
        // SAFETY: the caller guarantees sixteen readable bytes and the instruction set, by the trait.
        unsafe {
            let halves = vld1q_u16(p.cast());
            let low = vshll_n_u16::<16>(vget_low_u16(halves));
            [vreinterpretq_f32_u32(low), vreinterpretq_f32_u32(vshll_high_n_u16::<16>(halves))]
        }
    }

    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> Self::V {
        // SAFETY: the caller guarantees eight readable bytes and the instruction set, by the trait.
        unsafe {
            let wide = vmovl_s8(vld1_s8(p));
            [vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide))), vcvtq_f32_s32(vmovl_high_s16(wide))]
        }
    }

    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: registers only; the caller guarantees NEON, by the trait.
        unsafe { [vmulq_f32(a[0], b[0]), vmulq_f32(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: registers only; the caller guarantees NEON, by the trait.
        unsafe { [vfmaq_f32(c[0], a[0], b[0]), vfmaq_f32(c[1], a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn sum(v: Self::V) -> f32 {
        // SAFETY: registers only; the caller guarantees NEON, by the trait.
        unsafe { vaddvq_f32(vaddq_f32(v[0], v[1])) }
    }
}
