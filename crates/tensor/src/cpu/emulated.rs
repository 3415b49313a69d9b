//! Emulation of AMX for tests on processors without it: the handler of the trap executes the instruction.
//!
//! Semantics: Intel's manual, volume 2. Products of bf16 keep subnormal numbers, unlike the hardware.

use std::cell::UnsafeCell;
use std::sync::OnceLock;

/// State of a thread.
struct State {
    tiles: [[u8; 1024]; 8],
    configured: bool,
}

thread_local! {
    static STATE: UnsafeCell<State> = const { UnsafeCell::new(State { tiles: [[0; 1024]; 8], configured: false }) };
}

/// Installs the emulation, once for the process. Returns whether it is installed. The emulation needs Linux.
pub(super) fn install() -> bool {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    *INSTALLED.get_or_init(|| {
        // SAFETY: a zeroed action is valid; the handler has the signature of SA_SIGINFO.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = trapped;
            action.sa_sigaction = handler as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
            libc::sigaction(libc::SIGILL, &action, std::ptr::null_mut()) == 0
        }
    })
}

extern "C" fn trapped(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the system passes the context of the trapped thread, whose instruction pointer is at readable code. The state is
    // that of this thread, and the handler does not nest.
    unsafe {
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let code = registers[libc::REG_RIP as usize] as *const u8;
        match STATE.with(|state| execute(&mut *state.get(), code, registers)) {
            Some(length) => registers[libc::REG_RIP as usize] += length as i64,
            // another instruction: it traps again, and the default action ends the process
            None => {
                libc::signal(libc::SIGILL, libc::SIG_DFL);
            }
        }
    }
}

/// The general register of a number in an instruction.
fn register(registers: &[i64], number: u8) -> i64 {
    let order = [
        libc::REG_RAX,
        libc::REG_RCX,
        libc::REG_RDX,
        libc::REG_RBX,
        libc::REG_RSP,
        libc::REG_RBP,
        libc::REG_RSI,
        libc::REG_RDI,
        libc::REG_R8,
        libc::REG_R9,
        libc::REG_R10,
        libc::REG_R11,
        libc::REG_R12,
        libc::REG_R13,
        libc::REG_R14,
        libc::REG_R15,
    ];
    registers[order[number as usize] as usize]
}

/// Executes the instruction at `code`. Returns its length; `None` for instructions other than those of AMX.
///
/// # Safety
///
/// An instruction at `code`, whose memory operand is valid with the values of `registers`.
unsafe fn execute(state: &mut State, code: *const u8, registers: &[i64]) -> Option<usize> {
    // SAFETY: each byte is read only where those before it make it part of the instruction; operands are valid by the contract.
    unsafe {
        let byte = |i: usize| *code.add(i);
        // three-byte VEX, map 0F38
        if byte(0) != 0xc4 || byte(1) & 0x1f != 2 {
            return None;
        }
        let (high_x, high_b) = (!byte(1) >> 6 & 1, !byte(1) >> 5 & 1);
        let (third, prefix) = (!byte(2) >> 3 & 15, byte(2) & 3);
        let (opcode, modrm) = (byte(3), byte(4));
        let (kind, reg, rm) = (modrm >> 6, modrm >> 3 & 7, modrm & 7);
        const NONE: u8 = 0;
        const F3: u8 = 2;
        const F2: u8 = 3;
        let mut length = 5;
        let mut address = 0;
        let mut stride = 0;
        if kind != 3 {
            let (mut base, mut index) = (rm, None);
            if rm == 4 {
                let sib = byte(5);
                length += 1;
                base = sib & 7;
                let number = sib >> 3 & 7 | high_x << 3;
                index = (number != 4).then_some((number, sib >> 6));
            }
            if base == 5 && kind == 0 {
                return None; // relative to the instruction, or without a base
            }
            address = register(registers, base | high_b << 3);
            stride = index.map_or(0, |(number, scale)| register(registers, number) << scale);
            let at = code.add(length);
            match kind {
                1 => (address, length) = (address + i64::from(*at.cast::<i8>()), length + 1),
                2 => (address, length) = (address + i64::from(at.cast::<i32>().read_unaligned()), length + 4),
                _ => {}
            }
        }
        let rows = |tile: u8| (0..16).map(move |r| (tile, r));
        match (opcode, prefix, kind) {
            (0x49, NONE, 3) => state.configured = false,
            (0x49, NONE, _) => {
                let config = std::slice::from_raw_parts(address as *const u8, 64);
                // only full tiles are configured here
                let full = config[0] == 1
                    && config[16..32].chunks(2).all(|bytes| bytes == [64, 0])
                    && config[48..56].iter().all(|&rows| rows == 16);
                if !full {
                    return None;
                }
                state.tiles = [[0; 1024]; 8];
                state.configured = true;
            }
            _ if !state.configured => return None,
            (0x49, F2, 3) => state.tiles[reg as usize] = [0; 1024],
            (0x4b, F2, 0..=2) => {
                for (tile, r) in rows(reg) {
                    let from = (address + r as i64 * stride) as *const u8;
                    state.tiles[tile as usize][64 * r..][..64].copy_from_slice(std::slice::from_raw_parts(from, 64));
                }
            }
            (0x4b, F3, 0..=2) => {
                for (tile, r) in rows(reg) {
                    let to = (address + r as i64 * stride) as *mut u8;
                    std::slice::from_raw_parts_mut(to, 64).copy_from_slice(&state.tiles[tile as usize][64 * r..][..64]);
                }
            }
            (0x5c, F3, 3) => multiply(&mut state.tiles, reg as usize, rm as usize, third as usize),
            _ => return None,
        }
        Some(length)
    }
}

/// `c += a b`, of pairs of bf16.
fn multiply(tiles: &mut [[u8; 1024]; 8], c: usize, a: usize, b: usize) {
    let pair = |tile: &[u8; 1024], row: usize, column: usize| {
        let at = 64 * row + 4 * column;
        let of = |at: usize| f32::from_bits(u32::from(u16::from_le_bytes([tile[at], tile[at + 1]])) << 16);
        [of(at), of(at + 2)]
    };
    for m in 0..16 {
        for n in 0..16 {
            let at = 64 * m + 4 * n;
            let bytes = [0, 1, 2, 3].map(|i| tiles[c][at + i]);
            let mut sum = f32::from_le_bytes(bytes);
            for k in 0..16 {
                let (x, w) = (pair(&tiles[a], m, k), pair(&tiles[b], k, n));
                sum += x[0] * w[0];
                sum += x[1] * w[1];
            }
            tiles[c][at..at + 4].copy_from_slice(&sum.to_le_bytes());
        }
    }
}
