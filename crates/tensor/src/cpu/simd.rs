//! Instruction sets, their f32 registers, and the plain weight types that load into them.

use std::fmt;

/// An instruction set with kernels of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Isa {
    /// Portable code, vectorized by the compiler.
    Portable,
    /// AVX2 with FMA and F16C, 256 bits.
    Avx2,
    /// AVX-512 F, BW and VL, 512 bits.
    Avx512,
    /// AVX-512 with DQ and VNNI, the dot products of bytes.
    Avx512Vnni,
    /// AVX-512 with DQ, VNNI and BF16, and AMX, the products of tiles.
    Amx,
    /// AArch64's NEON, 128 bits.
    Neon,
    /// NEON with the dot products of bytes.
    NeonDot,
}

impl Isa {
    /// Every instruction set, widest last.
    pub const ALL: [Isa; 7] =
        [Isa::Portable, Isa::Neon, Isa::NeonDot, Isa::Avx2, Isa::Avx512, Isa::Avx512Vnni, Isa::Amx];

    /// Lower-case name, as command lines take it.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Vnni => "avx512-vnni",
            Isa::Amx => "amx",
            Isa::Neon => "neon",
            Isa::NeonDot => "neon-dot",
        }
    }

    /// The instruction set with this [`name`](Self::name).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|isa| isa.name() == name)
    }

    /// The widest instruction set of this processor.
    pub fn best() -> Self {
        Self::ALL.into_iter().rev().find(|isa| isa.native()).unwrap_or(Isa::Portable)
    }

    /// Whether the instruction set can be used: this processor has it, or a test emulates the missing instructions.
    pub fn available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        if self == Isa::Amx {
            return self.has_features() && (super::amx::available() || super::amx::emulated());
        }
        self.native()
    }

    fn native(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        if self == Isa::Amx && !super::amx::available() {
            return false;
        }
        self.has_features()
    }
}

/// The one list of the features of each ISA. Kernels are compiled for exactly these (a test compares the attributes), and the
/// processor is checked for them. `amx.rs` checks for AMX, which the compiler does not support.
macro_rules! features {
    ($($arch:literal $detected:ident { $($isa:ident: $($feature:tt),+;)+ })+) => {
        impl Isa {
            /// Whether this processor has the features of the ISA.
            fn has_features(self) -> bool {
                match self {
                    Isa::Portable => true,
                    $($(
                        #[cfg(target_arch = $arch)]
                        Isa::$isa => $(std::arch::$detected!($feature))&&+,
                    )+)+
                    _ => false,
                }
            }
        }

        #[cfg(test)]
        const FEATURES: &[(Isa, &[&str])] = &[$($((Isa::$isa, &[$($feature),+])),+),+];
    };
}

features! {
    "x86_64" is_x86_feature_detected {
        Avx2: "avx2", "fma", "f16c";
        Avx512: "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl";
        Avx512Vnni: "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni";
        Amx: "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni", "avx512bf16";
    }
    "aarch64" is_aarch64_feature_detected {
        Neon: "neon";
        NeonDot: "neon", "dotprod";
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "AVX2",
            Isa::Avx512 => "AVX-512",
            Isa::Avx512Vnni => "AVX-512 VNNI",
            Isa::Amx => "AMX",
            Isa::Neon => "NEON",
            Isa::NeonDot => "NEON dot product",
        })
    }
}

/// Registers of one instruction set.
///
/// # Safety
///
/// Every function needs the instruction set at run time. A pointer points to as many readable (or writable) elements as the
/// function loads (or stores), of any alignment.
pub(crate) unsafe trait Simd: Copy + 'static {
    /// A register of f32.
    type V: Copy;
    /// The instruction set.
    const LEVEL: Isa;
    /// f32 in a register.
    const LANES: usize;
    /// Activation rows of a tile of the projection kernel, limited by the register file.
    const ROWS: usize;
    /// Whether `f32::mul_add` is one instruction.
    const FMA: bool;

    unsafe fn zero() -> Self::V;
    unsafe fn splat(v: f32) -> Self::V;
    unsafe fn load(p: *const f32) -> Self::V;
    unsafe fn store(p: *mut f32, v: Self::V);
    unsafe fn load_f16(p: *const u8) -> Self::V;
    unsafe fn load_bf16(p: *const u8) -> Self::V;
    /// `a * b + c`
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sum(v: Self::V) -> f32;
    /// Prefetches a cache line; the address may be invalid.
    #[inline(always)]
    unsafe fn prefetch(_: *const u8) {}
}

/// A plain weight type of the projection kernel.
///
/// # Safety
///
/// `load` needs `S::LANES * BYTES` readable bytes and the instruction set of S; `one` needs `BYTES` readable bytes.
pub(crate) unsafe trait Format: 'static {
    /// Bytes of an element.
    const BYTES: usize;
    unsafe fn load<S: Simd>(p: *const u8) -> S::V;
    /// A single element, widened.
    unsafe fn one(p: *const u8) -> f32;
}

pub(crate) struct F32;
pub(crate) struct F16;
pub(super) struct Bf16;

// SAFETY: each reads LANES elements of BYTES bytes.
unsafe impl Format for F32 {
    const BYTES: usize = 4;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const u8) -> S::V {
        // SAFETY: the caller guarantees LANES readable f32 and the instruction set; `Simd::load` takes any alignment.
        unsafe { S::load(p.cast()) }
    }

    #[inline(always)]
    unsafe fn one(p: *const u8) -> f32 {
        // SAFETY: the caller guarantees an element's bytes, by the trait.
        unsafe { p.cast::<f32>().read_unaligned() }
    }
}

// SAFETY: each reads LANES elements of BYTES bytes.
unsafe impl Format for F16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const u8) -> S::V {
        // SAFETY: the caller guarantees LANES readable elements and the instruction set, by the trait.
        unsafe { S::load_f16(p) }
    }

    #[inline(always)]
    unsafe fn one(p: *const u8) -> f32 {
        // SAFETY: the caller guarantees an element's bytes, by the trait.
        unsafe { half::f16::from_bits(u16::from_le(p.cast::<u16>().read_unaligned())).to_f32() }
    }
}

// SAFETY: each reads LANES elements of BYTES bytes.
unsafe impl Format for Bf16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const u8) -> S::V {
        // SAFETY: the caller guarantees LANES readable elements and the instruction set, by the trait.
        unsafe { S::load_bf16(p) }
    }

    #[inline(always)]
    unsafe fn one(p: *const u8) -> f32 {
        // SAFETY: the caller guarantees an element's bytes, by the trait.
        unsafe { f32::from_bits(u32::from(u16::from_le(p.cast::<u16>().read_unaligned())) << 16) }
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Portable;

// SAFETY: needs no instruction set; loads are unaligned and of LANES elements.
unsafe impl Simd for Portable {
    type V = [f32; 8];
    const LEVEL: Isa = Isa::Portable;
    const LANES: usize = 8;
    const ROWS: usize = 2;
    const FMA: bool = false;

    #[inline(always)]
    unsafe fn splat(v: f32) -> [f32; 8] {
        [v; 8]
    }

    #[inline(always)]
    unsafe fn store(p: *mut f32, v: [f32; 8]) {
        // SAFETY: the caller guarantees eight writable f32, by the trait.
        unsafe { p.cast::<[f32; 8]>().write_unaligned(v) }
    }

    #[inline(always)]
    unsafe fn add(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| a[i] + b[i])
    }

    #[inline(always)]
    unsafe fn zero() -> [f32; 8] {
        [0.0; 8]
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> [f32; 8] {
        // SAFETY: the caller guarantees eight readable f32, by the trait.
        unsafe { p.cast::<[f32; 8]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_f16(p: *const u8) -> [f32; 8] {
        // SAFETY: the caller guarantees sixteen readable bytes, by the trait.
        let halves = unsafe { p.cast::<[u16; 8]>().read_unaligned() };
        halves.map(|h| half::f16::from_bits(u16::from_le(h)).to_f32())
    }

    #[inline(always)]
    unsafe fn load_bf16(p: *const u8) -> [f32; 8] {
        // SAFETY: the caller guarantees sixteen readable bytes, by the trait.
        let halves = unsafe { p.cast::<[u16; 8]>().read_unaligned() };
        halves.map(|h| f32::from_bits(u32::from(u16::from_le(h)) << 16))
    }

    #[inline(always)]
    unsafe fn fma(a: [f32; 8], b: [f32; 8], mut c: [f32; 8]) -> [f32; 8] {
        for i in 0..8 {
            c[i] += a[i] * b[i];
        }
        c
    }

    #[inline(always)]
    unsafe fn sum(v: [f32; 8]) -> f32 {
        ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]))
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
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
}

#[cfg(target_arch = "aarch64")]
pub(crate) use arm::Neon;

#[cfg(target_arch = "aarch64")]
mod arm {
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
}

#[cfg(test)]
mod tests {
    use super::{FEATURES, Isa};
    use std::path::{Path, PathBuf};

    fn sources(folder: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
    }

    /// Every attribute that lets the compiler use instructions has the list of an ISA.
    #[test]
    fn kernels_are_compiled_for_what_is_detected() {
        let lists: Vec<String> = FEATURES.iter().map(|(_, features)| features.join(",")).collect();
        let (attribute, detection) = (["target", "feature("].join("_"), ["feature", "detected!"].join("_"));
        let mut found = vec![0; lists.len()];
        for path in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
            let text = std::fs::read_to_string(&path).unwrap();
            for (line, text) in text.lines().enumerate() {
                let place = format!("{}:{}", path.display(), line + 1);
                assert!(!text.contains(&detection), "{place}: Isa::available is the only detection");
                let Some((_, inside)) = text.split_once(&attribute) else { continue };
                let wanted = inside.split('"').nth(1).unwrap_or_default();
                let list = lists.iter().position(|list| list == wanted);
                found[list.unwrap_or_else(|| panic!("{place}: {wanted:?} is no isa's list: {lists:#?}"))] += 1;
            }
        }
        // NEON is part of AArch64, so nothing needs the attribute
        for ((isa, _), found) in FEATURES.iter().zip(found) {
            assert!((found > 0) == (*isa != Isa::Neon), "{isa}: {found} attributes");
        }
    }

    /// An ISA runs the kernels of narrower ISAs too.
    #[test]
    fn a_level_has_what_the_ones_below_it_have() {
        let of = |isa: Isa| FEATURES.iter().find(|(of, _)| *of == isa).map(|(_, features)| *features).unwrap();
        for order in [&[Isa::Avx2, Isa::Avx512, Isa::Avx512Vnni, Isa::Amx][..], &[Isa::Neon, Isa::NeonDot]] {
            for pair in order.windows(2) {
                assert!(of(pair[0]).iter().all(|feature| of(pair[1]).contains(feature)), "{pair:?}");
            }
        }
        for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
            assert!(isa.has_features(), "{isa}");
        }
        assert!(Isa::best().available());
    }
}
