//! Experts: the rows of each expert are gathered, so that its weights are read once.

use super::{Experts, Route, Router, Routes};
use crate::cpu::kernels::{Input, Output};
use crate::cpu::{Cpu, Matrix, Rows, zeros};
use crate::{Activation, Epilogue, Phase, Result};

impl Experts for Cpu {
    fn route(&mut self, scores: &Rows, router: Router, routes: &mut Routes) -> Result<()> {
        self.pass.route(scores.shape(), routes.shape())?;
        routes.route(&scores.values[..self.pass.rows * scores.dim], router);
        Ok(())
    }

    fn project_experts(
        &mut self,
        x: &Rows,
        weight: &Matrix,
        activation: Activation,
        routes: &Routes,
        out: &mut Rows,
    ) -> Result<()> {
        let (of, routed) = ((weight.shape(), weight.role), routes.shape());
        let width = self.pass.project_experts(x.shape(), of, activation, routed, out.shape())?;
        self.up_experts(x, weight, activation, routes, width, &mut out.values)
    }

    fn combine_experts(&mut self, x: &Rows, weight: &Matrix, routes: &Routes, out: &mut Rows) -> Result<()> {
        let (of, routed) = ((weight.shape(), weight.role), routes.shape());
        let width = self.pass.combine_experts(x.shape(), of, routed, out.shape())?;
        self.down_experts(x, weight, routes, width, &mut out.values)
    }
}

impl Cpu {
    /// Phase of an expert's first rows, and their number; `None` without rows.
    fn run_of(&self, expert: &Matrix, pairs: &[(usize, Route)]) -> Option<(Phase, usize)> {
        let phase = self.pass.phase(pairs.first()?.0);
        if !self.has_prompt_kernel(expert) {
            return Some((phase, pairs.len()));
        }
        Some((phase, pairs.iter().take_while(|(row, _)| self.pass.phase(*row) == phase).count()))
    }

    /// Outputs of each expert for its rows, in the order of the routes' pairs.
    fn up_experts(
        &mut self,
        x: &Rows,
        weight: &Matrix,
        activation: Activation,
        routes: &Routes,
        width: usize,
        out: &mut [f32],
    ) -> Result<()> {
        let Some(experts) = weight.experts() else { return Ok(()) };
        let mut gathered = std::mem::take(&mut self.gathered[0]);
        for (expert, range) in routes.groups() {
            let pairs = &routes.pairs[range.clone()];
            if gathered.len() < pairs.len() * x.dim {
                gathered = zeros(&self.info.name, "rows of an expert", routes.capacity * x.dim)?;
            }
            for ((row, _), to) in pairs.iter().zip(gathered.chunks_exact_mut(x.dim)) {
                to.copy_from_slice(&x.values[row * x.dim..][..x.dim]);
            }
            let out = &mut out[range.start * width..range.end * width];
            let mut first = 0;
            while let Some((phase, count)) = self.run_of(&experts[expert], &pairs[first..]) {
                let input = Input { values: &gathered[first * x.dim..], rows: count, dim: x.dim };
                let out = Output::new(&mut out[first * width..], width);
                first += count;
                self.product(input, phase, None, &experts[expert], Epilogue::of(activation), width, out)?;
            }
        }
        self.gathered[0] = gathered;
        Ok(())
    }

    /// Adds the outputs of each expert to its rows, times the weights of the routes.
    fn down_experts(
        &mut self,
        x: &Rows,
        weight: &Matrix,
        routes: &Routes,
        width: usize,
        out: &mut [f32],
    ) -> Result<()> {
        let Some(experts) = weight.experts() else { return Ok(()) };
        let mut outputs = std::mem::take(&mut self.gathered[1]);
        for (expert, range) in routes.groups() {
            let pairs = &routes.pairs[range.clone()];
            if outputs.len() < pairs.len() * width {
                outputs = zeros(&self.info.name, "outputs of an expert", routes.capacity * width)?;
            }
            let mut first = 0;
            while let Some((phase, count)) = self.run_of(&experts[expert], &pairs[first..]) {
                let input = Input { values: &x.values[(range.start + first) * x.dim..], rows: count, dim: x.dim };
                let to = Output::new(&mut outputs[first * width..], width);
                first += count;
                self.product(input, phase, None, &experts[expert], Epilogue::OVERWRITE, width, to)?;
            }
            // an expert has a row once
            for ((row, route), outputs) in pairs.iter().zip(outputs.chunks_exact(width)) {
                let out = &mut out[row * width..][..width];
                out.iter_mut().zip(outputs).for_each(|(out, y)| *out += route.weight * y);
            }
        }
        self.gathered[1] = outputs;
        Ok(())
    }
}
