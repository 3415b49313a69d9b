//! Projection on the GPU: the product with its epilogue, see `gpu/project.rs`.

use crate::gpu::project::{Target, epilogue_of};
use crate::gpu::{Gpu, Matrix, Rows};
use crate::ops::Project;
use crate::{Epilogue, Norm, Result};

impl Project for Gpu {
    fn project(
        &mut self,
        x: &Rows,
        norm: Option<Norm<'_, Self>>,
        weight: &Matrix,
        epilogue: Epilogue,
        out: &mut Rows,
    ) -> Result<()> {
        let norms = norm.into_iter().flat_map(Norm::vectors).map(|vector| vector.len);
        self.pass.project(x.shape(), norms, weight.shape(), weight.role, epilogue, out.shape())?;
        let (sink, params) = epilogue_of(epilogue, out.stride);
        let target = Target { sink, params, output: &out.buffer, keys: None, values: None };
        self.product(x, norm, weight, &target)
    }
}
