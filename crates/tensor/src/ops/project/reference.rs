//! Projection with sums in f64, and the epilogue.

use crate::ops::Project;
use crate::reference::{Matrix, Reference, Rows};
use crate::{Epilogue, Norm, Result, Store};

impl Project for Reference {
    fn project(
        &mut self,
        x: &Rows,
        norm: Option<Norm<'_, Self>>,
        weight: &Matrix,
        epilogue: Epilogue,
        out: &mut Rows,
    ) -> Result<()> {
        let norms = norm.into_iter().flat_map(Norm::vectors).map(Vec::len);
        let width = self.pass.project(x.shape(), norms, weight.shape(), weight.role, epilogue, out.shape())?;
        let y = self.product(x, norm, weight);
        for (y, out) in y.chunks_exact(weight.rows).zip(out.values.chunks_exact_mut(width)) {
            for (i, out) in out.iter_mut().enumerate() {
                let up = if epilogue.activation.is_gated() { y[width + i] } else { 0.0 };
                let result = f64::from(epilogue.scale) * epilogue.activation.reference(y[i], up);
                *out = match epilogue.store {
                    Store::Overwrite => result as f32,
                    Store::Accumulate => (f64::from(*out) + result) as f32,
                };
            }
        }
        Ok(())
    }
}
