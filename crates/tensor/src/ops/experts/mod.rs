//! Mixture of experts: routes of rows to experts, and the two projections of a feed-forward by experts.

#[cfg(any(test, feature = "reference"))]
pub(crate) mod cases;
mod cpu;
#[cfg(feature = "gpu")]
mod gpu;
#[cfg(any(test, feature = "reference"))]
mod reference;
mod routes;
#[cfg(feature = "gpu")]
pub(crate) mod self_check;

use crate::checks::{ActivePass, RoutesShape, Shape, at_most, same};
use crate::{Activation, Device, Epilogue, Error, Result, Role, Timed};
pub(crate) use routes::Routes;
pub use routes::{Route, Router, TOP_EXPERTS};

/// The operations `route`, `project_experts` and `combine_experts`.
pub trait Experts: Device {
    /// Selects the experts of each row by its scores, `[rows, experts]`.
    ///
    /// # Errors
    ///
    /// [`Error::Mismatch`] where the number of scores is not that of the experts, or the rows do not fit.
    fn route(&mut self, scores: &Self::Rows, router: Router, routes: &mut Self::Routes) -> Result<()>;

    /// `activation(x wᵀ)` of each row by each of its experts, by a matrix of role [`Role::Experts`]. `out` has a row for each
    /// route, [`TOP_EXPERTS`] times as many as x. The order of these rows depends on the backend; they are input of
    /// [`combine_experts`](Self::combine_experts) only.
    ///
    /// # Errors
    ///
    /// [`Error::Role`] where the role does not fit the activation, [`Error::Mismatch`] where widths, rows or experts do not fit,
    /// or other rows were routed.
    fn project_experts(
        &mut self,
        x: &Self::Rows,
        weight: &Self::Matrix,
        activation: Activation,
        routes: &Self::Routes,
        out: &mut Self::Rows,
    ) -> Result<()>;

    /// `out[r] += weight * (x wᵀ)` over the routes of each row; x holds the output of
    /// [`project_experts`](Self::project_experts).
    ///
    /// # Errors
    ///
    /// Those of [`project_experts`](Self::project_experts).
    fn combine_experts(
        &mut self,
        x: &Self::Rows,
        weight: &Self::Matrix,
        routes: &Self::Routes,
        out: &mut Self::Rows,
    ) -> Result<()>;
}

impl ActivePass {
    /// Checks the arguments of [`Experts::route`].
    pub(crate) fn route(&self, scores: Shape, routes: RoutesShape) -> Result<()> {
        const OP: &str = "route";
        same(OP, "scores of a row", routes.experts, scores.cols)?;
        self.capacity(OP, scores)?;
        at_most(OP, "rows", routes.capacity, self.rows)
    }

    /// Checks the arguments of [`Experts::project_experts`]. Returns the width of the output.
    pub(crate) fn project_experts(
        &self,
        x: Shape,
        weight: (Shape, Role),
        activation: Activation,
        routes: RoutesShape,
        out: Shape,
    ) -> Result<usize> {
        const OP: &str = "project_experts";
        let rows = self.rows_of_expert(OP, weight, activation.is_gated(), routes)?;
        let width = Epilogue::of(activation).width(rows);
        same(OP, "input width", weight.0.cols, x.cols)?;
        same(OP, "output width", width, out.cols)?;
        self.capacity(OP, x)?;
        at_most(OP, "rows", out.rows, self.rows.saturating_mul(TOP_EXPERTS))?;
        Ok(width)
    }

    /// Checks the arguments of [`Experts::combine_experts`]. Returns the width of the output.
    pub(crate) fn combine_experts(
        &self,
        x: Shape,
        weight: (Shape, Role),
        routes: RoutesShape,
        out: Shape,
    ) -> Result<usize> {
        const OP: &str = "combine_experts";
        let width = self.rows_of_expert(OP, weight, false, routes)?;
        same(OP, "input width", weight.0.cols, x.cols)?;
        same(OP, "output width", width, out.cols)?;
        at_most(OP, "rows", x.rows, self.rows.saturating_mul(TOP_EXPERTS))?;
        self.capacity(OP, out)?;
        Ok(width)
    }

    /// Checks the matrix of the experts. Returns the rows of one expert.
    fn rows_of_expert(
        &self,
        op: &'static str,
        (weight, role): (Shape, Role),
        gated: bool,
        routes: RoutesShape,
    ) -> Result<usize> {
        let Role::Experts { count, .. } = role else {
            return Err(Error::Role { op, expected: Role::Experts { count: 0, gated }.name(), found: role.name() });
        };
        let wanted = Role::Experts { count, gated };
        if role != wanted {
            return Err(Error::Role { op, expected: wanted.name(), found: role.name() });
        }
        same(op, "experts", routes.experts, count)?;
        same(op, "routed rows", self.rows, routes.routed)?;
        Ok(weight.rows / count.max(1))
    }
}

impl<D: Experts> Experts for Timed<D> {
    fn route(&mut self, scores: &D::Rows, router: Router, routes: &mut D::Routes) -> Result<()> {
        self.inner.route(scores, router, routes)?;
        self.lap_of("route", None)
    }

    fn project_experts(
        &mut self,
        x: &D::Rows,
        weight: &Self::Matrix,
        activation: Activation,
        routes: &D::Routes,
        out: &mut D::Rows,
    ) -> Result<()> {
        self.inner.project_experts(x, &weight.inner, activation, routes, out)?;
        self.lap(weight.label)
    }

    fn combine_experts(
        &mut self,
        x: &D::Rows,
        weight: &Self::Matrix,
        routes: &D::Routes,
        out: &mut D::Rows,
    ) -> Result<()> {
        self.inner.combine_experts(x, &weight.inner, routes, out)?;
        self.lap(weight.label)
    }
}
