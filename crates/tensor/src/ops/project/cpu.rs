//! Projection: the product with its epilogue, see `cpu/project.rs`.

use crate::cpu::kernels::Output;
use crate::cpu::{Cpu, Matrix, Rows};
use crate::ops::Project;
use crate::{Epilogue, Norm, Result};

impl Project for Cpu {
    fn phases_differ(&self, weight: &Matrix) -> bool {
        self.has_prompt_kernel(weight)
    }

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
        let mut run = 0;
        while let Some((phase, rows)) = self.run(weight, run) {
            run += 1;
            let to = Output::new(&mut out.values[rows.start * width..], width);
            self.product(x.input_of(rows), phase, norm, weight, epilogue, width, to)?;
        }
        Ok(())
    }
}
