//! Select: the rows of a pass that are outputs.

#[cfg(any(test, feature = "reference"))]
pub(crate) mod cases;
mod cpu;
#[cfg(feature = "gpu")]
mod gpu;
#[cfg(any(test, feature = "reference"))]
mod reference;

use crate::checks::{ActivePass, Shape, at_most, same};
use crate::{Device, Result, Timed};

/// The operation `select`.
pub trait SelectRows: Device {
    /// `out[i] = x[outputs[first + i]]` for i in `0 .. count`, with [`Batch::outputs`](crate::Batch::outputs); x and out are
    /// `[rows, dim]`. The operations that follow in the pass work on `count` rows.
    ///
    /// # Errors
    ///
    /// [`Error::Mismatch`](crate::Error::Mismatch) where the widths differ, or there are fewer outputs or rows.
    fn select(&mut self, x: &Self::Rows, first: usize, count: usize, out: &mut Self::Rows) -> Result<()>;
}

impl ActivePass {
    /// Checks the arguments of [`SelectRows::select`], and sets the rows of the pass to `count`.
    pub(crate) fn select(&mut self, x: Shape, first: usize, count: usize, out: Shape) -> Result<()> {
        const OP: &str = "select";
        same(OP, "output width", x.cols, out.cols)?;
        at_most(OP, "outputs", self.batch.outputs().len(), first.saturating_add(count))?;
        at_most(OP, "rows", x.rows, self.batch.rows())?;
        at_most(OP, "rows", out.rows, count)?;
        self.rows = count;
        self.runs.clear();
        for i in first..first + count {
            self.run(self.batch.output_phases()[i], 1);
        }
        Ok(())
    }
}

impl<D: SelectRows> SelectRows for Timed<D> {
    fn select(&mut self, x: &D::Rows, first: usize, count: usize, out: &mut D::Rows) -> Result<()> {
        self.inner.select(x, first, count, out)?;
        self.lap_of("select", None)
    }
}
