//! Experts, route by route in f64.

use super::{Experts, Route, Router, Routes};
use crate::reference::{Matrix, Reference, Rows};
use crate::{Activation, Result};

/// Product of a row and the matrix of an expert.
fn expert(weight: &Matrix, routes: &Routes, route: Route, x: &[f32]) -> Vec<f64> {
    let rows = weight.rows / routes.experts;
    let of = weight.values[route.expert * rows * weight.cols..][..rows * weight.cols].chunks_exact(weight.cols);
    of.map(|w| w.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum()).collect()
}

impl Experts for Reference {
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
        for (&(row, route), out) in routes.pairs.iter().zip(out.values.chunks_exact_mut(width)) {
            let y = expert(weight, routes, route, &x.values[row * x.dim..][..x.dim]);
            for (i, out) in out.iter_mut().enumerate() {
                *out = activation.reference(y[i], if activation.is_gated() { y[width + i] } else { 0.0 }) as f32;
            }
        }
        Ok(())
    }

    fn combine_experts(&mut self, x: &Rows, weight: &Matrix, routes: &Routes, out: &mut Rows) -> Result<()> {
        let (of, routed) = ((weight.shape(), weight.role), routes.shape());
        let width = self.pass.combine_experts(x.shape(), of, routed, out.shape())?;
        for (&(row, route), x) in routes.pairs.iter().zip(x.values.chunks_exact(x.dim)) {
            let y = expert(weight, routes, route, x);
            for (out, y) in out.values[row * width..][..width].iter_mut().zip(y) {
                *out = (f64::from(*out) + f64::from(route.weight) * y) as f32;
            }
        }
        Ok(())
    }
}
