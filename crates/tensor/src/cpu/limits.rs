//! Peak rates of the processor: bytes read and f32 multiplications and additions per second, on all threads.

use super::kernels::dispatch;
use super::pool::Pool;
#[cfg(target_arch = "aarch64")]
use super::simd::Neon;
#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2, Avx512};
use super::simd::{Isa, Portable, Simd};
use super::zeros;
use crate::Result;
use crate::measure::Limits;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Bytes that are read: more than the caches hold.
const BYTES: usize = 512 << 20;

/// Bytes of a task.
const SHARE: usize = 4 << 20;

/// Multiply-add instructions of a task, for each of [`CHAINS`] independent sums.
const STEPS: usize = 1 << 18;

/// Independent sums: enough to hide the latency of two execution units.
const CHAINS: usize = 10;

/// Time of each measurement; the fastest run counts.
const TIME: Duration = Duration::from_millis(400);

pub(super) fn limits(isa: Isa, pool: &Pool) -> Result<Limits> {
    let memory: Vec<u64> = zeros("CPU", "memory to be read", BYTES / size_of::<u64>())?;
    let read = best(|| {
        pool.run(BYTES / SHARE, &|task| {
            let words = SHARE / size_of::<u64>();
            let share = &memory[task * words..][..words];
            black_box(share.iter().fold(0, |all: u64, word| all.wrapping_add(*word)));
        });
    });
    let tasks = 4 * pool.threads();
    let multiplied = best(|| {
        pool.run(tasks, &|_| {
            let (mut sum, mut lanes) = (0.0, 0);
            // SAFETY: an ISA in use is available.
            unsafe { multiply(isa, black_box(0.5), &mut sum, &mut lanes) };
            black_box(sum);
        });
    });
    let mut lanes = 0;
    // SAFETY: an ISA in use is available.
    unsafe { multiply(isa, 0.0, &mut 0.0, &mut lanes) };
    let per_task = (STEPS * CHAINS * 2 * lanes) as f64;
    Ok(Limits {
        bandwidth: BYTES as f64 / read,
        access: "read",
        rate: per_task * tasks as f64 / multiplied,
        numbers: "f32",
    })
}

/// Seconds of the fastest of some runs.
fn best(mut run: impl FnMut()) -> f64 {
    let (start, mut best) = (Instant::now(), f64::INFINITY);
    while start.elapsed() < TIME || best.is_infinite() {
        let from = Instant::now();
        run();
        best = best.min(from.elapsed().as_secs_f64());
    }
    best
}

dispatch!(multiply = multiply_generic(x: f32, sum: &mut f32, lanes: &mut usize));

/// Multiply-adds of independent chains.
///
/// # Safety
///
/// The instruction set of S is available.
#[inline(always)]
unsafe fn multiply_generic<S: Simd>(x: f32, all: &mut f32, lanes: &mut usize) {
    *lanes = S::LANES;
    // SAFETY: registers only; the instruction set of S is available, by the contract.
    unsafe {
        let factor = S::splat(x);
        let mut sums = [S::splat(1.0); CHAINS];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = S::fma(*sum, factor, factor);
            }
        }
        *all = 0.0;
        for sum in sums {
            *all += S::sum(sum);
        }
    }
}
