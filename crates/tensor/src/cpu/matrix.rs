//! Weight matrices of the CPU.

use super::field::PANEL;
use super::pool::Pool;
use super::repack::{self, Order, Panels};
use super::zeros;
use crate::checks::Shape;
use crate::{DType, Result, Role, Weight};
use std::sync::Mutex;

/// Storage of the weights.
pub(super) enum Store {
    /// Rows in the layout of the checkpoint.
    Rows(Weight),
    /// Interleaved panels.
    Panels(Panels),
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
    pub(super) fn repacked(mut self, pool: &Pool) -> Result<Self> {
        let weight = match self.store {
            Store::Panels(_) => return Ok(self),
            Store::Experts(experts) => {
                let repacked = experts.into_iter().map(|expert| expert.repacked(pool));
                self.store = Store::Experts(repacked.collect::<Result<_>>()?);
                return Ok(self);
            }
            Store::Rows(ref weight) => weight,
        };
        let row = weight.row_bytes();
        let mut panels = Panels::new(self.dtype, self.order, row, &weight.name)?;
        let targets: Vec<_> = panels.panels_mut().map(Mutex::new).collect();
        pool.run(targets.len(), &|i| {
            // each task has its own lock, which only hands over the target
            if let Ok(mut target) = targets[i].lock() {
                let (range, panel) = &mut *target;
                repack::pack(weight.dtype, |i| weight.row(i), range.clone(), panel);
            }
        });
        drop(targets);
        self.store = Store::Panels(panels);
        Ok(self)
    }

    /// Bytes of a row.
    pub(super) fn row_bytes(&self) -> usize {
        self.dtype.bytes(self.cols).unwrap_or(0)
    }

    /// Panel i, interleaved into `scratch` where the matrix is not repacked.
    pub(super) fn panel<'a>(&'a self, i: usize, scratch: &'a mut Vec<u8>) -> &'a [u8] {
        match &self.store {
            Store::Panels(panels) => panels.panel(i),
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
