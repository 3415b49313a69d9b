//! Products of a prompt's activation rows: AMX tiles or 14-bit integers, where the processor has them.
//!
//! They round activations otherwise than the kernels of new tokens do, so the phase decides, not the number of rows: a prompt has the
//! same bits in chunks of any length.

use super::Cpu;
use super::kernels::{Finish, Input, Output};
use super::matrix::Matrix;
use crate::{Phase, Result};

/// Activations in the formats of these kernels, in buffers that are kept for the next product.
#[cfg(target_arch = "x86_64")]
#[derive(Default)]
pub(super) struct Scratch {
    q14: Vec<super::vnni_i16::BlockQ14>,
    tiles: Vec<super::amx_gemm::Line>,
}

#[cfg(not(target_arch = "x86_64"))]
impl Cpu {
    /// Returns false: new tokens and prompts have the same kernels.
    pub(crate) fn has_prompt_kernel(&self, _: &Matrix) -> bool {
        false
    }

    /// Returns false: no kernel for many rows on this architecture.
    pub(super) fn gemm(
        &mut self,
        _: Input<'_>,
        _: Phase,
        _: &Matrix,
        _: Finish<'_>,
        _: usize,
        _: Output<'_>,
    ) -> Result<bool> {
        Ok(false)
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::field::PANEL;
    use super::super::matrix::Store;
    use super::super::plain::Weights;
    use super::super::project::Shares;
    use super::super::{Activations, amx_gemm, vnni_i16, zeros};
    use super::{Cpu, Finish, Input, Matrix, Output, Phase, Result};

    impl Cpu {
        /// Whether the rows of a prompt have another kernel than those of new tokens.
        pub(crate) fn has_prompt_kernel(&self, w: &Matrix) -> bool {
            let suits = amx_gemm::suits(self.isa, w.dtype) || vnni_i16::suits(self.isa, w.dtype);
            suits && self.activations != Activations::F32
        }

        /// Computes the product where a kernel of this module suits the type and the phase. Returns whether one does.
        pub(in super::super) fn gemm(
            &mut self,
            x: Input<'_>,
            phase: Phase,
            w: &Matrix,
            finish: Finish<'_>,
            width: usize,
            out: Output<'_>,
        ) -> Result<bool> {
            if phase == Phase::Decode || !self.has_prompt_kernel(w) || x.dim == 0 {
                return Ok(false);
            }
            match &w.store {
                _ if amx_gemm::suits(self.isa, w.dtype) => self.amx_gemm(x, w, finish, width, out)?,
                Store::Rows(rows) if vnni_i16::suits(self.isa, w.dtype) => {
                    self.vnni_i16(x, Weights(rows), finish, width, out)?;
                }
                _ => return Ok(false),
            }
            Ok(true)
        }

        fn amx_gemm(
            &mut self,
            x: Input<'_>,
            w: &Matrix,
            finish: Finish<'_>,
            width: usize,
            out: Output<'_>,
        ) -> Result<()> {
            let len = amx_gemm::lines(x.rows, x.dim);
            if self.scratch.tiles.len() < len {
                self.scratch.tiles = zeros(&self.info.name, "activations in tiles", len)?;
            }
            let mut lines = std::mem::take(&mut self.scratch.tiles);
            let blocks = x.rows.div_ceil(amx_gemm::ROWS);
            let shares = Shares::new(&mut lines[..len], len / blocks);
            self.parallel(x.rows * x.dim * 8, blocks, |block| {
                // SAFETY: `suits` has checked that the ISA is AMX, and an ISA in use is available. Task `block` is the only
                // one that takes share `block`.
                unsafe { amx_gemm::round(x, block, shares.take(block)) }
            });
            let plan = amx_gemm::Plan::of(w, self.pool.threads());
            let task = amx_gemm::Task { tiles: &lines[..len], rows: x.rows, weight: w, plan, finish, width };
            self.parallel(x.rows * w.rows * w.cols, plan.tasks(), |share| {
                // SAFETY: the ISA is AMX, as above. Shares of the plan write disjoint columns.
                unsafe { amx_gemm::project(task, share, out) }
            });
            self.scratch.tiles = lines;
            Ok(())
        }

        fn vnni_i16(
            &mut self,
            x: Input<'_>,
            w: Weights<'_>,
            finish: Finish<'_>,
            width: usize,
            out: Output<'_>,
        ) -> Result<()> {
            let count = x.dim.div_ceil(vnni_i16::Q14_LEN);
            let len = x.rows.next_multiple_of(vnni_i16::TILE) * count;
            if self.scratch.q14.len() < len {
                self.scratch.q14 = zeros(&self.info.name, "activations in 14 bits", len)?;
            }
            let mut blocks = std::mem::take(&mut self.scratch.q14);
            let tiles = Shares::new(&mut blocks[..len], vnni_i16::TILE * count);
            self.parallel(x.rows * x.dim * 8, x.rows.div_ceil(vnni_i16::TILE), |tile| {
                // SAFETY: task `tile` is the only one that takes share `tile`.
                let blocks = unsafe { tiles.take(tile) };
                for (i, row) in (tile * vnni_i16::TILE..((tile + 1) * vnni_i16::TILE).min(x.rows)).enumerate() {
                    vnni_i16::quantize(self.isa, &x.values[row * x.dim..][..x.dim], &mut blocks[i..]);
                }
            });
            let rows = vnni_i16::RowsQ14 { blocks: &blocks[..len], count, rows: x.rows };
            let columns = width.div_ceil(PANEL);
            let task = columns.div_ceil(self.pool.threads() * 8).max(1);
            self.parallel(x.rows * w.0.rows * w.0.cols, columns.div_ceil(task), |i| {
                let columns = i * task..((i + 1) * task).min(columns);
                vnni_i16::project(self.isa, rows, w, finish, columns, out, width);
            });
            self.scratch.q14 = blocks;
            Ok(())
        }
    }
}
