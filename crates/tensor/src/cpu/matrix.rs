//! Weight matrices of the CPU.

use super::field::PANEL;
use super::interleaver::Interleaver;
use super::pool::Pool;
use super::repack::{self, Order, Panels};
use super::zeros;
use crate::checks::Shape;
use crate::{DType, Result, Role, Weight};
use std::sync::Arc;

/// Storage of the weights.
pub(super) enum Store {
    /// Rows in the layout of the checkpoint.
    Rows(Weight),
    /// Interleaved panels, some of which may not be filled yet.
    Panels(Arc<Panels>),
    /// A matrix for each expert.
    Experts(Vec<Matrix>),
}

/// A weight matrix of the CPU.
pub struct Matrix {
    pub(crate) role: Role,
    pub(crate) dtype: DType,
    /// Rows of the matrix, and elements of a row.
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) bias: Option<Vec<f32>>,
    pub(super) order: Order,
    pub(super) store: Store,
}

impl Matrix {
    /// A matrix in the layout of the checkpoint.
    pub(super) fn new(weight: &Weight, role: Role) -> Result<Self> {
        let Role::Experts { count, gated } = role else { return Ok(Self::of(weight, role)) };
        let of_one = if gated { Role::GateUp } else { Role::Plain };
        let rows = weight.rows / count;
        let experts = (0..count).map(|i| Ok(Self::of(&weight.slice(i * rows..(i + 1) * rows)?, of_one)));
        let store = Store::Experts(experts.collect::<Result<_>>()?);
        Ok(Self { store, ..Self::of(weight, role) })
    }

    fn of(weight: &Weight, role: Role) -> Self {
        let order = Order { rows: weight.rows, gated: role == Role::GateUp };
        let store = Store::Rows(weight.clone());
        let bias = weight.bias().map(<[f32]>::to_vec);
        Self { role, dtype: weight.dtype, rows: weight.rows, cols: weight.cols, bias, order, store }
    }

    pub(crate) fn shape(&self) -> Shape {
        Shape { rows: self.rows, cols: self.cols }
    }

    /// The matrices of the experts; `None` for a matrix without experts.
    pub(crate) fn experts(&self) -> Option<&[Matrix]> {
        match &self.store {
            Store::Experts(experts) => Some(experts),
            Store::Rows(_) | Store::Panels(_) => None,
        }
    }

    /// Rows of a matrix in panels, padding included.
    pub(super) fn panel_rows(rows: usize, role: Role) -> usize {
        let (count, gated) = match role {
            Role::Experts { count, gated } => (count.max(1), gated),
            role => (1, role == Role::GateUp),
        };
        count * PANEL * Order { rows: rows / count, gated }.panels()
    }

    /// Interleaves the rows, on all threads.
    pub(super) fn repacked(self, pool: &Pool) -> Result<Self> {
        self.in_panels(&mut |panels| {
            pool.run(panels.len(), &|i| panels.fill(i));
            Arc::new(panels.without_source())
        })
    }

    /// Has the rows interleaved in the background.
    pub(super) fn repacked_by(self, interleaver: &mut Interleaver) -> Result<Self> {
        self.in_panels(&mut |panels| {
            let panels = Arc::new(panels);
            interleaver.add(panels.clone());
            panels
        })
    }

    fn in_panels(mut self, fill: &mut dyn FnMut(Panels) -> Arc<Panels>) -> Result<Self> {
        self.store = match self.store {
            Store::Rows(weight) => Store::Panels(fill(Panels::new(weight, self.order)?)),
            Store::Experts(experts) => {
                Store::Experts(experts.into_iter().map(|expert| expert.in_panels(fill)).collect::<Result<_>>()?)
            }
            panels @ Store::Panels(_) => panels,
        };
        Ok(self)
    }

    /// Bytes of a row.
    pub(super) fn row_bytes(&self) -> usize {
        self.dtype.bytes(self.cols).unwrap_or(0)
    }

    /// Panel i, interleaved into `scratch` where the matrix is not repacked.
    pub(super) fn panel<'a>(&'a self, i: usize, scratch: &'a mut Vec<u8>) -> &'a [u8] {
        match &self.store {
            Store::Panels(panels) => panels.panel(i, scratch),
            // the matrix of each expert has its own panels
            Store::Experts(_) => &[],
            Store::Rows(weight) => {
                let (row, range) = (self.row_bytes(), self.order.of(i));
                scratch.resize(PANEL * row, 0);
                repack::pack(self.dtype, |i| weight.row(i), range, scratch);
                scratch
            }
        }
    }

    /// Widens row `row`.
    pub(crate) fn widen(&self, row: usize, scratch: &mut Vec<u8>, out: &mut [f32]) -> Result<()> {
        match &self.store {
            Store::Rows(weight) => self.dtype.widen(weight.row(row), out),
            // an embedding has no experts
            Store::Experts(_) => {}
            Store::Panels(panels) => {
                if scratch.len() < self.row_bytes() {
                    *scratch = zeros("CPU", "a row of the embedding", self.row_bytes())?;
                }
                let bytes = &mut scratch[..self.row_bytes()];
                panels.row(row, bytes);
                self.dtype.widen(bytes, out);
            }
        }
        Ok(())
    }
}
