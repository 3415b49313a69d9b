//! Integer SIMD: registers of several rows of a weight side by side, with four quants of each row in a 32-bit lane.

use super::activations::BlockQ8;

/// Registers and operations of an instruction set for the integer kernels. A *word* is four consecutive quants of a row: a lane.
///
/// Sums of products are exact, so every implementation gives the same integers.
///
/// # Safety
///
/// Every function needs the instruction set at run time. A pointer points to as many readable (or writable) bytes as the function
/// loads (or stores), of any alignment.
pub(crate) unsafe trait IntSimd: Copy + 'static {
    /// A word, or a 32-bit integer, of each row.
    type I: Copy;
    /// One f32 of each row.
    type F: Copy;
    /// Rows in a register; divides [`PANEL`](super::field::PANEL).
    const ROWS: usize;
    /// Rows of activations whose sums are held in registers beside eight words: 1, 4 or 8.
    const GROUP: usize = 8;
    /// Bias that [`biased`](Self::biased) adds to signed quants.
    const BIAS: i32;

    /// Words at `p`: `4 * ROWS` bytes.
    unsafe fn load(p: *const u8) -> Self::I;
    /// `ROWS` unsigned bytes, each widened to a lane.
    unsafe fn bytes(p: *const u8) -> Self::I;
    /// `ROWS` signed bytes, each widened to a lane.
    unsafe fn signed_bytes(p: *const u8) -> Self::I;
    /// `ROWS` halves.
    unsafe fn halves(p: *const u8) -> Self::F;
    unsafe fn splat(v: i32) -> Self::I;
    unsafe fn splat_f32(v: f32) -> Self::F;
    /// Bitwise and of every byte with `mask`.
    unsafe fn and(a: Self::I, mask: u8) -> Self::I;
    unsafe fn or(a: Self::I, b: Self::I) -> Self::I;
    /// Shifts right within each pair of bytes. The result has bits of the neighbouring byte, so it must be masked.
    unsafe fn shr(a: Self::I, n: usize) -> Self::I;
    /// Shifts left within each pair of bytes, like [`shr`](Self::shr).
    unsafe fn shl(a: Self::I, n: usize) -> Self::I;
    /// Table entries of every byte; bytes are below 16.
    unsafe fn lookup(a: Self::I, table: &[i8; 16]) -> Self::I;
    /// Signed quants as operands of [`dot`](Self::dot).
    unsafe fn biased(a: Self::I) -> Self::I;
    /// `sum` plus the dot product of each word, of quants from [`biased`](Self::biased) or of unsigned quants below 64, with the four
    /// signed bytes x: `x * (quant + BIAS)`, without the bias of unsigned quants.
    unsafe fn dot(sum: Self::I, words: Self::I, x: i32) -> Self::I;
    /// `sums` plus the [`dot`](Self::dot) products of N of `words`, from FIRST on, with the words of the blocks of M rows at `x`.
    #[inline(always)]
    #[allow(clippy::needless_range_loop, reason = "two-dimensional accumulators, unrolled by constant bounds")]
    unsafe fn dots<const FIRST: usize, const N: usize, const M: usize>(
        sums: [Self::I; M],
        words: &[Self::I; 8],
        x: *const BlockQ8,
    ) -> [Self::I; M] {
        // SAFETY: `m < M`; the caller guarantees the instruction set and M blocks at `x`.
        unsafe {
            // two chains for a single row hide the latency of the additions
            let mut chains = [sums, [Self::splat(0); M]];
            for i in FIRST..FIRST + N {
                let chain = if M == 1 { i % 2 } else { 0 };
                for m in 0..M {
                    chains[chain][m] = Self::dot(chains[chain][m], words[i], (*x.add(m)).word(i));
                }
            }
            let [mut sums, others] = chains;
            if M == 1 {
                sums[0] = Self::add(sums[0], others[0]);
            }
            sums
        }
    }
    /// As [`dots`](Self::dots), of unsigned quants that are at most `largest`.
    #[inline(always)]
    unsafe fn dots_unsigned<const FIRST: usize, const N: usize, const M: usize>(
        sums: [Self::I; M],
        words: &[Self::I; 8],
        x: *const BlockQ8,
        _largest: i32,
    ) -> [Self::I; M] {
        // SAFETY: the caller guarantees the instruction set and M blocks at `x`.
        unsafe { Self::dots::<FIRST, N, M>(sums, words, x) }
    }
    unsafe fn add(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn to_f32(a: Self::I) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    /// Product with the scale of a block, a power of two. A zero may give a number below 1e-26, an infinity or NaN any number.
    #[inline(always)]
    unsafe fn scaled(a: Self::F, block: &BlockQ8) -> Self::F {
        // SAFETY: registers only; the caller guarantees the instruction set.
        unsafe { Self::mul(a, Self::splat_f32(block.scale)) }
    }
    /// `a * b + c`
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// Writes `ROWS` f32.
    unsafe fn store(p: *mut f32, v: Self::F);
    /// Prefetches a cache line; the address may be invalid.
    unsafe fn prefetch(p: *const u8);
}

#[derive(Clone, Copy)]
pub(super) struct Portable;

#[inline(always)]
fn each_byte(a: [i32; 16], f: impl Fn(u8) -> u8) -> [i32; 16] {
    a.map(|lane| i32::from_le_bytes(lane.to_le_bytes().map(&f)))
}

// SAFETY: needs no instruction set; loads are unaligned and of the stated length.
unsafe impl IntSimd for Portable {
    type I = [i32; 16];
    type F = [f32; 16];
    const ROWS: usize = 16;
    const GROUP: usize = 1;
    const BIAS: i32 = 0;

    #[inline(always)]
    unsafe fn load(p: *const u8) -> [i32; 16] {
        // SAFETY: the caller guarantees 64 readable bytes, by the trait.
        unsafe { p.cast::<[[u8; 4]; 16]>().read() }.map(i32::from_le_bytes)
    }

    #[inline(always)]
    unsafe fn bytes(p: *const u8) -> [i32; 16] {
        // SAFETY: the caller guarantees 16 readable bytes, by the trait.
        unsafe { p.cast::<[u8; 16]>().read() }.map(i32::from)
    }

    #[inline(always)]
    unsafe fn signed_bytes(p: *const u8) -> [i32; 16] {
        // SAFETY: the caller guarantees 16 readable bytes, by the trait.
        unsafe { p.cast::<[i8; 16]>().read() }.map(i32::from)
    }

    #[inline(always)]
    unsafe fn halves(p: *const u8) -> [f32; 16] {
        // SAFETY: the caller guarantees 32 readable bytes, by the trait.
        unsafe { p.cast::<[[u8; 2]; 16]>().read() }.map(|h| half::f16::from_le_bytes(h).to_f32())
    }

    #[inline(always)]
    unsafe fn splat(v: i32) -> [i32; 16] {
        [v; 16]
    }

    #[inline(always)]
    unsafe fn splat_f32(v: f32) -> [f32; 16] {
        [v; 16]
    }

    #[inline(always)]
    unsafe fn and(a: [i32; 16], mask: u8) -> [i32; 16] {
        a.map(|lane| lane & i32::from_le_bytes([mask; 4]))
    }

    #[inline(always)]
    unsafe fn or(a: [i32; 16], b: [i32; 16]) -> [i32; 16] {
        std::array::from_fn(|i| a[i] | b[i])
    }

    #[inline(always)]
    unsafe fn shr(a: [i32; 16], n: usize) -> [i32; 16] {
        a.map(|lane| (lane as u32 >> n) as i32)
    }

    #[inline(always)]
    unsafe fn shl(a: [i32; 16], n: usize) -> [i32; 16] {
        a.map(|lane| lane << n)
    }

    #[inline(always)]
    unsafe fn lookup(a: [i32; 16], table: &[i8; 16]) -> [i32; 16] {
        each_byte(a, |b| table[usize::from(b & 15)] as u8)
    }

    #[inline(always)]
    unsafe fn biased(a: [i32; 16]) -> [i32; 16] {
        a
    }

    #[inline(always)]
    unsafe fn dot(sum: [i32; 16], words: [i32; 16], x: i32) -> [i32; 16] {
        let x = x.to_le_bytes();
        std::array::from_fn(|i| {
            let word = words[i].to_le_bytes();
            (0..4).fold(sum[i], |sum, b| sum + i32::from(word[b] as i8) * i32::from(x[b] as i8))
        })
    }

    #[inline(always)]
    unsafe fn add(a: [i32; 16], b: [i32; 16]) -> [i32; 16] {
        std::array::from_fn(|i| a[i] + b[i])
    }

    #[inline(always)]
    unsafe fn to_f32(a: [i32; 16]) -> [f32; 16] {
        a.map(|v| v as f32)
    }

    #[inline(always)]
    unsafe fn mul(a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        std::array::from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    unsafe fn fma(a: [f32; 16], b: [f32; 16], c: [f32; 16]) -> [f32; 16] {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }

    #[inline(always)]
    unsafe fn store(p: *mut f32, v: [f32; 16]) {
        // SAFETY: the caller guarantees 16 writable f32, by the trait.
        unsafe { p.cast::<[f32; 16]>().write_unaligned(v) }
    }

    #[inline(always)]
    unsafe fn prefetch(_p: *const u8) {}
}

#[cfg(target_arch = "x86_64")]
mod x86;
#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512, Vnni};

#[cfg(target_arch = "aarch64")]
mod arm;
#[cfg(target_arch = "aarch64")]
pub(super) use arm::{Neon, NeonDot};
