//! The non-linear values of IQ4_NL and IQ4_XS: four bits choose from a table.

use super::fit::{inverse, scale};
use crate::cpu::quants::IntSimd;

/// Values of the sixteen indices (`kvalues_iq4nl`).
pub(crate) const IQ4_VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Values of sixteen bytes of indices, ordered as in [`nibbles`](super::nibbles).
#[inline(always)]
pub(super) fn decode(d: f32, quants: &[u8; 16], out: &mut [f32; 32]) {
    for i in 0..16 {
        out[i] = d * f32::from(IQ4_VALUES[usize::from(quants[i] & 15)]);
        out[i + 16] = d * f32::from(IQ4_VALUES[usize::from(quants[i] >> 4)]);
    }
}

/// The values of indices, biased.
///
/// # Safety
///
/// The instruction set of `L` is available; every byte is below 16.
#[inline(always)]
pub(super) unsafe fn lookup<L: IntSimd>(mut indices: [L::I; 8]) -> [L::I; 8] {
    // SAFETY: registers only; the caller guarantees the instruction set, and bytes are below 16.
    unsafe {
        for word in &mut indices {
            *word = L::biased(L::lookup(*word, &IQ4_VALUES));
        }
    }
    indices
}

/// Index of the table's value nearest to x.
pub(super) fn nearest(x: f32) -> u8 {
    let above = IQ4_VALUES.partition_point(|&v| f32::from(v) < x);
    match above {
        0 => 0,
        16 => 15,
        _ => {
            let (low, high) = (f32::from(IQ4_VALUES[above - 1]), f32::from(IQ4_VALUES[above]));
            (if x - low < high - x { above - 1 } else { above }) as u8
        }
    }
}

/// The scale of least error for values of the table.
pub(super) fn fitted_scale(x: &[f32]) -> f32 {
    let choose = |v: f32| f32::from(IQ4_VALUES[usize::from(nearest(v))]);
    // the table is not symmetric: the extreme value may get the index at either end, or the one next to it
    let by = |end: f32| {
        let d = scale(x, end, choose);
        let error: f32 = x.iter().map(|&v| (v - d * choose(v * inverse(d))).powi(2)).sum();
        (d, error)
    };
    let ends = [-127.0, -113.0, 113.0, 100.0];
    let best = ends.map(by).into_iter().reduce(|best, next| if next.1 < best.1 { next } else { best });
    best.map_or(0.0, |best| best.0)
}
