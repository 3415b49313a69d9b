//! Products of many rows, where the processor has something faster for them than for few.

use super::Cpu;
use super::kernels::{Finish, Input, Output};
use super::matrix::Matrix;
use crate::Result;

/// Activations as such products take them, kept from one to the next.
#[cfg(target_arch = "x86_64")]
#[derive(Default)]
pub(super) struct Room {
    words: Vec<super::words::Word>,
    tiles: Vec<super::tiles::Line>,
}

#[cfg(not(target_arch = "x86_64"))]
impl Cpu {
    /// Whether it has computed the product.
    pub(super) fn many(&mut self, _: Input<'_>, _: &Matrix, _: Finish<'_>, _: usize, _: Output<'_>) -> Result<bool> {
        Ok(false)
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::matrix::Store;
    use super::super::panel::PANEL;
    use super::super::plain::Weights;
    use super::super::project::Shares;
    use super::super::{Activations, tiles, words, zeros};
    use super::{Cpu, Finish, Input, Matrix, Output, Result};

    impl Cpu {
        /// Whether it has computed the product.
        pub(in super::super) fn many(
            &mut self,
            x: Input<'_>,
            w: &Matrix,
            finish: Finish<'_>,
            width: usize,
            out: Output<'_>,
        ) -> Result<bool> {
            if self.activations == Activations::F32 || x.dim == 0 {
                return Ok(false);
            }
            match &w.store {
                _ if tiles::suits(self.level, w.dtype, x.rows) => self.tiles(x, w, finish, width, out)?,
                Store::Rows(rows) if words::suits(self.level, w.dtype, x.rows) => {
                    self.words(x, Weights(rows), finish, width, out)?;
                }
                _ => return Ok(false),
            }
            Ok(true)
        }

        fn tiles(&mut self, x: Input<'_>, w: &Matrix, finish: Finish<'_>, width: usize, out: Output<'_>) -> Result<()> {
            let len = tiles::lines(x.rows, x.dim);
            if self.room.tiles.len() < len {
                self.room.tiles = zeros(&self.info.name, "activations in tiles", len)?;
            }
            let mut lines = std::mem::take(&mut self.room.tiles);
            let blocks = x.rows.div_ceil(tiles::ROWS);
            let shares = Shares::new(&mut lines[..len], len / blocks);
            self.parallel(x.rows * x.dim * 8, blocks, |block| {
                // SAFETY: a task takes its own block; the level was asked for.
                unsafe { tiles::round(x, block, shares.take(block)) }
            });
            let plan = tiles::Plan::of(w, self.pool.threads());
            let task = tiles::Task { tiles: &lines[..len], rows: x.rows, weight: w, plan, finish, width };
            self.parallel(x.rows * w.rows * w.cols, plan.tasks(), |share| {
                // SAFETY: the level was asked for; a task takes its own share.
                unsafe { tiles::project(task, share, out) }
            });
            self.room.tiles = lines;
            Ok(())
        }

        fn words(
            &mut self,
            x: Input<'_>,
            w: Weights<'_>,
            finish: Finish<'_>,
            width: usize,
            out: Output<'_>,
        ) -> Result<()> {
            let count = x.dim.div_ceil(words::UNIT);
            let len = x.rows.next_multiple_of(words::TILE) * count;
            if self.room.words.len() < len {
                self.room.words = zeros(&self.info.name, "activations in words", len)?;
            }
            let mut units = std::mem::take(&mut self.room.words);
            let tiles = Shares::new(&mut units[..len], words::TILE * count);
            self.parallel(x.rows * x.dim * 8, x.rows.div_ceil(words::TILE), |tile| {
                // SAFETY: a task takes its own tile.
                let units = unsafe { tiles.take(tile) };
                for (i, row) in (tile * words::TILE..((tile + 1) * words::TILE).min(x.rows)).enumerate() {
                    words::quantise(self.level, &x.values[row * x.dim..][..x.dim], &mut units[i..]);
                }
            });
            let words = words::Words { units: &units[..len], count, rows: x.rows };
            let columns = width.div_ceil(PANEL);
            let task = columns.div_ceil(self.pool.threads() * 8).max(1);
            self.parallel(x.rows * w.0.rows * w.0.cols, columns.div_ceil(task), |i| {
                let columns = i * task..((i + 1) * task).min(columns);
                words::project(self.level, words, w, finish, columns, out, width);
            });
            self.room.words = units;
            Ok(())
        }
    }
}
