//! Norm: rows on all threads.

use crate::cpu::kernels::{self, Input, Output};
use crate::cpu::{Cpu, Rows};
use crate::ops::Normalize;
use crate::{Norm, Result};

impl Normalize for Cpu {
    fn norm(&mut self, x: &Rows, norm: Norm<'_, Self>, out: &mut Rows) -> Result<()> {
        self.pass.norm(x.shape(), norm.vectors().map(Vec::len), out.shape())?;
        self.norm_rows(x.input(self.pass.rows), norm, &mut out.values);
        Ok(())
    }
}

impl Cpu {
    /// `norm(x)` of each row, for this operation and in front of projections.
    pub(crate) fn norm_rows(&self, x: Input<'_>, norm: Norm<'_, Self>, out: &mut [f32]) {
        let out = Output::new(out, x.dim);
        self.parallel(x.rows * x.dim * 8, x.rows, |row| {
            // SAFETY: each task takes its own row, so no other reference to it exists.
            let out = unsafe { out.slice(row, 0..x.dim) };
            let x = &x.values[row * x.dim..][..x.dim];
            match norm {
                Norm::Rms { weight, eps } => kernels::rms_norm(self.isa, x, weight, eps, out),
                Norm::Layer { weight, bias, eps } => kernels::layer_norm(self.isa, x, weight, bias, eps, out),
            }
        });
    }
}
