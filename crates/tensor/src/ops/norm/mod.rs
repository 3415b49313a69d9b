//! Norm: `out = norm(x)` of each row, RMSNorm or LayerNorm.
//!
//! A norm in front of a projection is an option of the projection, which may fuse it.

#[cfg(any(test, feature = "reference"))]
pub(crate) mod cases;
mod cpu;
#[cfg(feature = "gpu")]
mod gpu;
#[cfg(any(test, feature = "reference"))]
pub(crate) mod reference;

use crate::checks::{ActivePass, Shape, same};
use crate::{Device, Result, Timed};

/// A norm of rows x, in front of a projection or by itself; weight and bias are as wide as x.
pub enum Norm<'a, D: Device> {
    /// RMSNorm (Zhang and Sennrich 2019, arXiv 1910.07467): `x * weight / sqrt(mean(x²) + eps)`.
    Rms {
        /// Factor of each dimension.
        weight: &'a D::Vector,
        /// Added to the mean square.
        eps: f32,
    },
    /// LayerNorm (Ba et al. 2016, arXiv 1607.06450): `(x - mean(x)) * weight / sqrt(var(x) + eps) + bias`.
    Layer {
        /// Factor of each dimension.
        weight: &'a D::Vector,
        /// Added to each dimension.
        bias: &'a D::Vector,
        /// Added to the variance.
        eps: f32,
    },
}

impl<'a, D: Device> Norm<'a, D> {
    /// Weight, and bias where there is one.
    pub(crate) fn vectors(self) -> impl Iterator<Item = &'a D::Vector> {
        let (weight, bias) = match self {
            Norm::Rms { weight, .. } => (weight, None),
            Norm::Layer { weight, bias, .. } => (weight, Some(bias)),
        };
        [Some(weight), bias].into_iter().flatten()
    }
}

impl<D: Device> Clone for Norm<'_, D> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<D: Device> Copy for Norm<'_, D> {}

/// The operation `norm`.
pub trait Normalize: Device {
    /// `out = norm(x)`; x and out are `[rows, dim]`, the norm's vectors `[dim]`.
    ///
    /// # Errors
    ///
    /// [`Error::Mismatch`](crate::Error::Mismatch) where the widths differ or the rows of the pass do not fit.
    fn norm(&mut self, x: &Self::Rows, norm: Norm<'_, Self>, out: &mut Self::Rows) -> Result<()>;
}

impl ActivePass {
    /// Checks the arguments of [`Normalize::norm`]; `norm` has the widths of the norm's vectors.
    pub(crate) fn norm(&self, x: Shape, norm: impl IntoIterator<Item = usize>, out: Shape) -> Result<()> {
        const OP: &str = "norm";
        norm.into_iter().try_for_each(|width| same(OP, "norm width", x.cols, width))?;
        same(OP, "output width", x.cols, out.cols)?;
        self.capacity(OP, x)?;
        self.capacity(OP, out)
    }
}

impl<D: Normalize> Normalize for Timed<D> {
    fn norm(&mut self, x: &D::Rows, norm: Norm<'_, Self>, out: &mut D::Rows) -> Result<()> {
        self.inner.norm(x, untimed(norm), out)?;
        self.lap_of("norm", None)
    }
}

/// The norm for the timed backend.
pub(crate) fn untimed<D: Device>(norm: Norm<'_, Timed<D>>) -> Norm<'_, D> {
    match norm {
        Norm::Rms { weight, eps } => Norm::Rms { weight, eps },
        Norm::Layer { weight, bias, eps } => Norm::Layer { weight, bias, eps },
    }
}
