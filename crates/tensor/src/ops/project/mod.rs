//! Projection: `y = norm(x) wᵀ + bias`, then the epilogue.

#[cfg(any(test, feature = "reference"))]
pub(crate) mod cases;
mod cpu;
#[cfg(feature = "gpu")]
mod gpu;
#[cfg(any(test, feature = "reference"))]
mod reference;
#[cfg(feature = "gpu")]
pub(crate) mod self_check;

use crate::checks::{ActivePass, Shape, same};
use crate::ops::norm::untimed;
use crate::{Device, Epilogue, Error, Norm, Result, Role, Timed};

/// The operation `project`.
pub trait Project: Device {
    /// Whether rows of prompts and of new tokens are different products, so that a pass of both reads the weight twice.
    fn phases_differ(&self, weight: &Self::Matrix) -> bool {
        let _ = weight;
        true
    }

    /// `y = norm(x) wᵀ + bias`, then the epilogue; without a norm x is used directly. x is `[rows, cols]`, the weight
    /// `[outputs, cols]` of role [`Role::Plain`], or [`Role::GateUp`] for a gated activation, which halves the width of out.
    ///
    /// # Errors
    ///
    /// [`Error::Role`] where the role does not fit the activation, [`Error::Mismatch`] where widths or rows do not fit.
    fn project(
        &mut self,
        x: &Self::Rows,
        norm: Option<Norm<'_, Self>>,
        weight: &Self::Matrix,
        epilogue: Epilogue,
        out: &mut Self::Rows,
    ) -> Result<()>;
}

impl ActivePass {
    /// Checks the arguments of [`Project::project`]; `norm` has the widths of the norm's vectors. Returns the width of the
    /// output.
    pub(crate) fn project(
        &self,
        x: Shape,
        norm: impl IntoIterator<Item = usize>,
        weight: Shape,
        role: Role,
        epilogue: Epilogue,
        out: Shape,
    ) -> Result<usize> {
        const OP: &str = "project";
        let wanted = if epilogue.activation.is_gated() { Role::GateUp } else { Role::Plain };
        let width = epilogue.width(weight.rows);
        if role != wanted {
            return Err(Error::Role { op: OP, expected: wanted.name(), found: role.name() });
        }
        same(OP, "output width", width, out.cols)?;
        self.capacity(OP, out)?;
        self.input(OP, x, norm, weight)?;
        Ok(width)
    }
}

impl<D: Project> Project for Timed<D> {
    fn phases_differ(&self, weight: &Self::Matrix) -> bool {
        self.inner.phases_differ(&weight.inner)
    }

    fn project(
        &mut self,
        x: &D::Rows,
        norm: Option<Norm<'_, Self>>,
        weight: &Self::Matrix,
        epilogue: Epilogue,
        out: &mut D::Rows,
    ) -> Result<()> {
        self.inner.project(x, norm.map(untimed), &weight.inner, epilogue, out)?;
        self.lap(weight.label)
    }
}
