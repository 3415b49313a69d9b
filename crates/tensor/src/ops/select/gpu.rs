//! Select on the GPU: one dispatch.

use crate::Result;
use crate::gpu::pipelines::Bindings;
use crate::gpu::recorder::folded;
use crate::gpu::{Gpu, Rows};
use crate::ops::SelectRows;
use phi3_shaders::{Op, binding};

impl SelectRows for Gpu {
    fn select(&mut self, x: &Rows, first: usize, count: usize, out: &mut Rows) -> Result<()> {
        self.pass.select(x.shape(), first, count, out.shape())?;
        let mut bindings = Bindings::default();
        bindings[binding::INPUT as usize] = Some(&x.buffer);
        bindings[binding::OUTPUT as usize] = Some(&out.buffer);
        bindings[binding::BATCH as usize] = self.metadata.buffer.as_ref();
        let params = [count as u32, (x.stride / 4) as u32, (self.metadata.outputs_at + first) as u32, 0];
        self.recorder.dispatch(&mut self.device, Op::Select, &bindings, &params, folded(count))
    }
}
