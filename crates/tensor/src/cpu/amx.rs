//! AMX: registers of tiles, each sixteen rows of 64 bytes, and products of tiles.
//!
//! The compiler supports the registers but not the instructions, which are written in `asm!`. Of an `asm!` block only the
//! configuration of the tiles remains.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::sync::OnceLock;

/// Bytes of a tile.
pub(super) const TILE: usize = 1024;

/// Whether this processor multiplies tiles of bf16, and the system permits their use by this process.
pub(super) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| has_tiles() && permitted())
}

/// Whether the instructions are emulated, on request of a test on a processor without them.
pub(super) fn emulated() -> bool {
    #[cfg(all(feature = "reference", target_os = "linux"))]
    if !available() && std::env::var("PHI3_EMULATE").as_deref() == Ok("amx") {
        return super::emulated::install();
    }
    false
}

/// Whether there are tiles and products of bf16, and the system saves the registers; Intel's manual, volume 1, 13.3.
fn has_tiles() -> bool {
    const OSXSAVE: u32 = 1 << 27;
    const TILE_BF16: u32 = 1 << 22 | 1 << 24;
    const TILE_STATE: u64 = 3 << 17;
    if __cpuid(0).eax < 7 || __cpuid(1).ecx & OSXSAVE == 0 || __cpuid_count(7, 0).edx & TILE_BF16 != TILE_BF16 {
        return false;
    }
    let (low, high): (u32, u32);
    // SAFETY: OSXSAVE is set, so xgetbv is enabled.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack)) };
    (u64::from(high) << 32 | u64::from(low)) & TILE_STATE == TILE_STATE
}

/// Requests the registers from Linux. On other systems AMX is not used.
fn permitted() -> bool {
    if cfg!(target_os = "linux") {
        const ARCH_PRCTL: i64 = 158;
        const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
        const XTILEDATA: u64 = 18;
        let outcome: i64;
        // SAFETY: the call changes the permissions of this process only; rax, rcx and r11 are the registers that it clobbers.
        unsafe {
            asm!("syscall", inlateout("rax") ARCH_PRCTL => outcome, in("rdi") ARCH_REQ_XCOMP_PERM, in("rsi") XTILEDATA,
                out("rcx") _, out("r11") _, options(nostack));
        }
        outcome == 0
    } else {
        false
    }
}

/// The configured tiles of this thread, all of sixteen rows of 64 bytes. Dropping it releases them.
pub(super) struct Tiles(());

#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Tiles {
    /// # Safety
    ///
    /// Tiles are available.
    pub(super) unsafe fn new() -> Self {
        let mut config = Config { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        config.row_bytes[..8].fill(64);
        config.rows[..8].fill(16);
        // SAFETY: the caller guarantees that tiles are available; the operand is a valid configuration of 64 bytes.
        unsafe { asm!("ldtilecfg [{0}]", in(reg) &config, options(nostack, readonly)) };
        Self(())
    }

    /// Adds to four tiles of sums at `c` the products of two columns of tiles at `a` and two at `b`, `steps` of them:
    /// `c[0] += a[0] b[0]`, `c[1] += a[1] b[0]`, `c[2] += a[0] b[1]`, `c[3] += a[1] b[1]`. Sums begin at zero where `first`.
    ///
    /// `a` has two tiles of each step, sixteen rows of 32 bf16. `b` has two tiles of each step, of which row p holds elements 2p
    /// and 2p + 1 of sixteen columns. Sums are sixteen rows of sixteen f32.
    ///
    /// # Safety
    ///
    /// `2 * steps` readable tiles at `a` and `b`, four writable ones at `c`; `steps` is not 0.
    #[inline]
    pub(super) unsafe fn multiply(&self, a: *const u8, b: *const u8, c: *mut f32, steps: usize, first: bool) {
        // SAFETY: `self` proves that tiles are configured; the loop reads `2 * steps` tiles at `a` and `b`, and reads and writes
        // four at `c`. The caller guarantees these tiles.
        unsafe {
            asm!(
                "test {first:e}, {first:e}",
                "jnz 2f",
                "tileloadd tmm0, [{c} + {line}]",
                "tileloadd tmm1, [{c} + {line} + 1024]",
                "tileloadd tmm2, [{c} + {line} + 2048]",
                "tileloadd tmm3, [{c} + {line} + 3072]",
                "jmp 3f",
                "2:",
                "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                "3:",
                "tileloadd tmm6, [{b} + {line}]",
                "tileloadd tmm4, [{a} + {line}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{a} + {line} + 1024]",
                "tdpbf16ps tmm1, tmm5, tmm6",
                "tileloadd tmm7, [{b} + {line} + 1024]",
                "tdpbf16ps tmm2, tmm4, tmm7",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a}, 2048",
                "add {b}, 2048",
                "dec {steps}",
                "jnz 3b",
                "tilestored [{c} + {line}], tmm0",
                "tilestored [{c} + {line} + 1024], tmm1",
                "tilestored [{c} + {line} + 2048], tmm2",
                "tilestored [{c} + {line} + 3072], tmm3",
                a = inout(reg) a => _, b = inout(reg) b => _, c = in(reg) c, steps = inout(reg) steps => _,
                first = in(reg) u32::from(first), line = in(reg) 64usize,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack)
            );
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: `self` proves that tiles are configured.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}
