//! Products of activations and weights: the kernel, and the tasks.

use super::activations::BlockQ8;
use super::field::PANEL;
use super::kernels::{self, Finish, Input, Output};
use super::matrix::{Matrix, Store};
use super::plain::{self, Weights};
use super::{Activations, Cpu, integer, zeros};
use crate::{Epilogue, Error, Norm, Phase, Result};
use std::cell::Cell;
use std::ops::Range;

/// Rows of activations of a call of the kernel.
const TILE: usize = 16;

/// Rows of activations whose sums a task holds.
const ROWS: usize = 8 * TILE;

/// Bytes of activations that stay in the second-level cache while a task reads its weights.
const RESIDENT: usize = 768 << 10;

impl Cpu {
    /// Run `i` of the rows that a kernel takes at once; `None` after the last. There is one where the phases have the same kernel, which
    /// reads the weights once for all rows.
    pub(crate) fn run(&self, weight: &Matrix, i: usize) -> Option<(Phase, Range<usize>)> {
        if self.has_prompt_kernel(weight) {
            return self.pass.runs.get(i).cloned();
        }
        (i == 0 && self.pass.rows > 0).then_some((Phase::Decode, 0..self.pass.rows))
    }

    /// Computes `norm(x) wᵀ + bias` and applies the epilogue.
    #[allow(clippy::too_many_arguments, reason = "the operands of a product")]
    pub(crate) fn product(
        &mut self,
        x: Input<'_>,
        phase: Phase,
        norm: Option<Norm<'_, Self>>,
        weight: &Matrix,
        epilogue: Epilogue,
        width: usize,
        out: Output<'_>,
    ) -> Result<()> {
        let mut normed = std::mem::take(&mut self.normed);
        let values = match norm {
            Some(norm) => {
                if normed.len() < x.rows * x.dim {
                    normed = zeros(&self.info.name, "normed activations", x.rows * x.dim)?;
                }
                self.norm_rows(x, norm, &mut normed);
                &normed[..]
            }
            None => x.values,
        };
        let x = Input { values, ..x };
        let finish = Finish { bias: weight.bias.as_deref(), epilogue };
        match &weight.store {
            _ if self.gemm(x, phase, weight, finish, width, out)? => {}
            Store::Rows(rows) if !weight.dtype.is_quantized() || self.activations == Activations::F32 => {
                self.plain(x, Weights(rows), finish, width, out);
            }
            _ => self.integers(x, weight, finish, width, out)?,
        }
        self.normed = normed;
        Ok(())
    }

    /// The product with activations in single precision.
    fn plain(&self, x: Input<'_>, w: Weights<'_>, finish: Finish<'_>, width: usize, out: Output<'_>) {
        let (task, tasks) = self.split(width, w.0.cols, x.rows);
        self.parallel(x.rows * w.0.rows * w.0.cols, tasks, |i| {
            let columns = i * task..((i + 1) * task).min(width);
            plain::project(self.isa, x, w, finish, columns, out);
        });
    }

    /// Outputs of a task, and the number of tasks: about eight for each thread. Outputs are a multiple of four; for several rows
    /// a task has about 256 KiB of weights at most.
    fn split(&self, width: usize, cols: usize, rows: usize) -> (usize, usize) {
        let even = width.div_ceil(self.pool.threads() * 8).next_multiple_of(4);
        let fits = if rows > 1 { ((256 << 10) / (2 * cols.max(1))).next_multiple_of(4) } else { usize::MAX };
        let task = even.min(fits).max(4);
        (task, width.div_ceil(task))
    }

    /// The product with activations in eight bits and weights in panels.
    fn integers(&mut self, x: Input<'_>, w: &Matrix, finish: Finish<'_>, width: usize, out: Output<'_>) -> Result<()> {
        let count = integer::q8_blocks(x.dim);
        if self.q8.len() < x.rows * count {
            let what = "activations in eight bits";
            let bytes = (x.rows * count * size_of::<BlockQ8>()) as u64;
            self.q8 = bytemuck::allocation::try_zeroed_vec(x.rows * count).map_err(|()| Error::OutOfMemory {
                device: self.info.name.clone(),
                what: what.into(),
                bytes,
                detail: String::new(),
            })?;
        }
        let mut units = std::mem::take(&mut self.q8);
        self.quantize(x, w, &mut units);
        let columns = width.div_ceil(PANEL);
        let task = columns.div_ceil(self.pool.threads() * 8).max(1);
        self.parallel(x.rows * w.rows * w.cols, columns.div_ceil(task), |i| {
            let columns = i * task..((i + 1) * task).min(columns);
            panels(self.isa, &units, count, x.rows, w, finish, columns, width, out);
        });
        self.q8 = units;
        Ok(())
    }

    /// Quantizes the rows in tiles of [`TILE`]: a tile holds block 0 of its rows, then block 1, and so on.
    fn quantize(&self, x: Input<'_>, w: &Matrix, units: &mut [BlockQ8]) {
        let count = integer::q8_blocks(x.dim);
        let tiles = Shares::new(&mut units[..x.rows * count], TILE * count);
        self.parallel(x.rows * x.dim * 8, x.rows.div_ceil(TILE), |tile| {
            let rows = tile * TILE..((tile + 1) * TILE).min(x.rows);
            // SAFETY: each task takes its own tile, so no other reference to it exists.
            let units = unsafe { tiles.take(tile) };
            for (i, row) in rows.clone().enumerate() {
                let x = &x.values[row * x.dim..][..x.dim];
                integer::quantize(self.isa, w.dtype, x, &mut units[i..], rows.len());
            }
        });
    }
}

/// A slice in equal shares, one for each task; the last share may be smaller.
pub(crate) struct Shares<'a, T> {
    first: *mut T,
    len: usize,
    share: usize,
    lifetime: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: tasks take different shares, by the contract of `take`.
unsafe impl<T: Send> Sync for Shares<'_, T> {}

impl<'a, T> Shares<'a, T> {
    pub(crate) fn new(values: &'a mut [T], share: usize) -> Self {
        Self { first: values.as_mut_ptr(), len: values.len(), share, lifetime: std::marker::PhantomData }
    }

    /// Share i.
    ///
    /// # Safety
    ///
    /// No other reference to the share exists.
    pub(crate) unsafe fn take(&self, i: usize) -> &'a mut [T] {
        let at = i * self.share;
        assert!(at < self.len);
        // SAFETY: inside the slice (asserted above); the caller guarantees that no other reference to the share exists.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(at), self.share.min(self.len - at)) }
    }
}

thread_local! {
    /// A panel that is interleaved on use.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Computes output panels `columns` of all rows.
#[allow(clippy::too_many_arguments, reason = "one call; a struct would only be taken apart again")]
fn panels(
    isa: super::Isa,
    units: &[BlockQ8],
    count: usize,
    rows: usize,
    w: &Matrix,
    finish: Finish<'_>,
    columns: Range<usize>,
    width: usize,
    out: Output<'_>,
) {
    let mut scratch = SCRATCH.take();
    let resident = (RESIDENT / (count * size_of::<BlockQ8>()).max(1)).clamp(TILE, ROWS) / TILE * TILE;
    let mut sums = [[[0.0; PANEL]; ROWS]; 2];
    for first in (0..rows).step_by(resident) {
        let taken = resident.min(rows - first);
        for column in columns.clone() {
            let sides = if finish.is_gated() { 2 } else { 1 };
            for (side, sums) in sums.iter_mut().enumerate().take(sides) {
                let panel = w.panel(column * sides + side, &mut scratch);
                for (tile, sums) in sums[..taken].chunks_mut(TILE).enumerate() {
                    let units = &units[(first + tile * TILE) * count..][..sums.len() * count];
                    integer::product(isa, w.dtype, panel, units, count, tile == 0, sums);
                }
            }
            let cells = column * PANEL..((column + 1) * PANEL).min(width);
            let [sums, ups] = &sums;
            kernels::finish(isa, finish, &sums[..taken], &ups[..taken], first, cells, out);
        }
    }
    SCRATCH.set(scratch);
}
