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
    unsafe fn load_i8(p: *const i8) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
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
    unsafe fn load_i8(p: *const i8) -> [f32; 8] {
        // SAFETY: the caller guarantees eight readable bytes, by the trait.
        unsafe { p.cast::<[i8; 8]>().read() }.map(f32::from)
    }

    #[inline(always)]
    unsafe fn mul(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| a[i] * b[i])
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
mod x86;

#[cfg(target_arch = "aarch64")]
pub(crate) use arm::Neon;

#[cfg(target_arch = "aarch64")]
mod arm;

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
