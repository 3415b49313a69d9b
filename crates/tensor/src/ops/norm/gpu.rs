//! Norm on the GPU: one dispatch, a workgroup a row.

use crate::gpu::device::Buffer;
use crate::gpu::pipelines::Bindings;
use crate::gpu::recorder::folded;
use crate::gpu::{Gpu, Rows};
use crate::ops::Normalize;
use crate::{Norm, Result};
use phi3_shaders::{Op, binding};

impl Normalize for Gpu {
    fn norm(&mut self, x: &Rows, norm: Norm<'_, Self>, out: &mut Rows) -> Result<()> {
        self.pass.norm(x.shape(), norm.vectors().map(|vector| vector.len), out.shape())?;
        self.record_norm(x, norm, &out.buffer)
    }
}

impl Gpu {
    /// Records `out = norm(x)`, for this operation and in front of projections whose kernels do not compute the norm.
    pub(crate) fn record_norm(&mut self, x: &Rows, norm: Norm<'_, Self>, out: &Buffer) -> Result<()> {
        let (op, weight, bias, eps) = match norm {
            Norm::Rms { weight, eps } => (Op::RmsNorm, weight, None, eps),
            Norm::Layer { weight, bias, eps } => (Op::LayerNorm, weight, Some(&bias.buffer), eps),
        };
        let mut bindings = Bindings::default();
        bindings[binding::INPUT as usize] = Some(&x.buffer);
        bindings[binding::GAIN as usize] = Some(&weight.buffer);
        bindings[binding::NORM_BIAS as usize] = bias;
        bindings[binding::OUTPUT as usize] = Some(out);
        let params = [self.pass.rows as u32, x.dim as u32, (x.stride / 4) as u32, eps.to_bits()];
        self.recorder.dispatch(&mut self.device, op, &bindings, &params, folded(self.pass.rows))
    }
}
