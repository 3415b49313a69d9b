//! Sums of attention over chunks of positions.
//!
//! The chunks of a sequence begin at multiples of [`CHUNK`]. Each is summed on its own, and they are merged in order, so that a row
//! has the same bits whether one task or several sum its chunks.

use crate::cpu::kernels::dispatch;
use crate::cpu::math::exp;
#[cfg(target_arch = "aarch64")]
use crate::cpu::simd::Neon;
#[cfg(target_arch = "x86_64")]
use crate::cpu::simd::{Avx2, Avx512};
use crate::cpu::simd::{Isa, Portable, Simd};
use bytemuck::{Pod, Zeroable};

/// Positions of a chunk.
pub(crate) const CHUNK: usize = 512;

/// Running softmax of one query: the maximum `max` of its scores s, and `sum(exp(s - max))`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Running {
    pub(super) max: f32,
    pub(super) sum: f32,
}

/// Sums of some queries over positions.
pub(super) struct Sums<'a> {
    pub(super) running: &'a mut [Running],
    /// `sum(exp(s - max) v)` of each query `[queries, head_dim]`.
    pub(super) values: &'a mut [f32],
}

impl<'a> Sums<'a> {
    /// Numbers that hold the sums of `queries` queries.
    pub(super) fn len(queries: usize, head_dim: usize) -> usize {
        queries * (2 + head_dim)
    }

    /// The sums in the first [`len`](Self::len) numbers.
    pub(super) fn of(numbers: &'a mut [f32], queries: usize, head_dim: usize) -> Self {
        let (running, values) = numbers[..Self::len(queries, head_dim)].split_at_mut(2 * queries);
        Self { running: bytemuck::cast_slice_mut(running), values }
    }

    /// Sums over no position.
    pub(super) fn clear(&mut self) {
        self.running.fill(Running { max: f32::NEG_INFINITY, sum: 0.0 });
        self.values.fill(0.0);
    }

    /// Adds the sums over the positions of the next chunk.
    pub(super) fn merge(&mut self, isa: Isa, next: &Sums<'_>) {
        let head_dim = self.values.len() / self.running.len();
        let values = self.values.chunks_exact_mut(head_dim).zip(next.values.chunks_exact(head_dim));
        for ((running, next), (sums, next_sums)) in self.running.iter_mut().zip(next.running.iter()).zip(values) {
            // a chunk may have no position that the query sees
            if next.max == f32::NEG_INFINITY {
                continue;
            }
            if running.max == f32::NEG_INFINITY {
                *running = *next;
                sums.copy_from_slice(next_sums);
                continue;
            }
            let max = running.max.max(next.max);
            // SAFETY: an ISA in use is available; the kernel is plain loops over slices.
            let factors = unsafe { scaled_sum(isa, [running.max - max, next.max - max], sums, next_sums) };
            *running = Running { max, sum: running.sum * factors[0] + next.sum * factors[1] };
        }
    }
}

dispatch!(scaled_sum = scaled_sum_generic(differences: [f32; 2], sums: &mut [f32], next: &[f32]) -> [f32; 2]);

/// `sums * exp(differences[0]) + next * exp(differences[1])`. Returns the factors. Has no contract; unsafe only because `dispatch!`
/// requires it.
#[inline(always)]
unsafe fn scaled_sum_generic<S: Simd>(differences: [f32; 2], sums: &mut [f32], next: &[f32]) -> [f32; 2] {
    let factors = [exp::<S>(differences[0]), exp::<S>(differences[1])];
    for (sum, next) in sums.iter_mut().zip(next) {
        *sum = *sum * factors[0] + next * factors[1];
    }
    factors
}
