//! Mixtures of experts: the rows of each expert are gathered, so that its weights are read once.

use super::kernels::{Input, Output};
use super::matrix::{Matrix, Store};
use super::{Cpu, Rows, zeros};
use crate::experts::Routes;
use crate::{Activation, Epilogue, Result, Store as Stored};

impl Cpu {
    /// What each expert gives for its rows, in the order of the routes' pairs.
    pub(super) fn up_experts(
        &mut self,
        x: &Rows,
        weight: &Matrix,
        activation: Activation,
        routes: &Routes,
        width: usize,
        out: &mut [f32],
    ) -> Result<()> {
        let Store::Experts(experts) = &weight.store else { return Ok(()) };
        let mut gathered = std::mem::take(&mut self.gathered[0]);
        for (expert, range) in routes.groups() {
            let pairs = &routes.pairs[range.clone()];
            if gathered.len() < pairs.len() * x.dim {
                gathered = zeros(&self.info.name, "rows of an expert", routes.capacity * x.dim)?;
            }
            for ((row, _), to) in pairs.iter().zip(gathered.chunks_exact_mut(x.dim)) {
                to.copy_from_slice(&x.values[row * x.dim..][..x.dim]);
            }
            let input = Input { values: &gathered, rows: pairs.len(), dim: x.dim };
            let out = Output::new(&mut out[range.start * width..range.end * width], width);
            self.product(input, None, &experts[expert], Epilogue::of(activation), width, out)?;
        }
        self.gathered[0] = gathered;
        Ok(())
    }

    /// Adds what each expert gives for its rows to theirs, by their weights.
    pub(super) fn down_experts(
        &mut self,
        x: &Rows,
        weight: &Matrix,
        routes: &Routes,
        width: usize,
        out: &mut [f32],
    ) -> Result<()> {
        let Store::Experts(experts) = &weight.store else { return Ok(()) };
        let mut given = std::mem::take(&mut self.gathered[1]);
        for (expert, range) in routes.groups() {
            let pairs = &routes.pairs[range.clone()];
            let input = Input { values: &x.values[range.start * x.dim..], rows: pairs.len(), dim: x.dim };
            if let [(row, route)] = pairs {
                let out = Output::new(&mut out[row * width..][..width], width);
                let epilogue = Epilogue { scale: route.weight, store: Stored::Accumulate, ..Epilogue::OVERWRITE };
                self.product(input, None, &experts[expert], epilogue, width, out)?;
                continue;
            }
            if given.len() < pairs.len() * width {
                given = zeros(&self.info.name, "what an expert gives", routes.capacity * width)?;
            }
            let to = Output::new(&mut given, width);
            self.product(input, None, &experts[expert], Epilogue::OVERWRITE, width, to)?;
            // an expert has a row once
            for ((row, route), given) in pairs.iter().zip(given.chunks_exact(width)) {
                let out = &mut out[row * width..][..width];
                out.iter_mut().zip(given).for_each(|(out, y)| *out += route.weight * y);
            }
        }
        self.gathered[1] = given;
        Ok(())
    }
}
