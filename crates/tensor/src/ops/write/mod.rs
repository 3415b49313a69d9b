//! Write: rows of activations from the host.

#[cfg(any(test, feature = "reference"))]
pub(crate) mod cases;
mod cpu;
#[cfg(feature = "gpu")]
mod gpu;
#[cfg(any(test, feature = "reference"))]
mod reference;

use crate::checks::{ActivePass, Shape, at_most};
use crate::{Device, Expected, Result, Timed};

/// The operation `write`.
pub trait WriteRows: Device {
    /// Writes `values`, `[rows, dim]` on the host, to the rows of x from row `first` on, which are rows of the pass.
    ///
    /// # Errors
    ///
    /// [`Error::Mismatch`](crate::Error::Mismatch) where `values` is no whole number of rows, or has rows beyond the pass.
    fn write(&mut self, x: &mut Self::Rows, first: usize, values: &[f32]) -> Result<()>;
}

impl ActivePass {
    /// Checks the arguments of [`WriteRows::write`]: `len` numbers from row `first` on.
    pub(crate) fn write(&self, x: Shape, first: usize, len: usize) -> Result<()> {
        const OP: &str = "write";
        Expected::MultipleOf(x.cols).check(OP, "elements", len)?;
        self.capacity(OP, x)?;
        at_most(OP, "rows", self.rows, first.saturating_add(len / x.cols))
    }
}

impl<D: WriteRows> WriteRows for Timed<D> {
    fn write(&mut self, x: &mut D::Rows, first: usize, values: &[f32]) -> Result<()> {
        self.inner.write(x, first, values)?;
        self.lap_of("write", None)
    }
}
