//! Embedding on the GPU: one dispatch for each piece of the table.

use crate::Result;
use crate::gpu::pipelines::Bindings;
use crate::gpu::recorder::folded;
use crate::gpu::{Gpu, Matrix, Rows};
use crate::ops::Embed;
use phi3_shaders::{Op, binding};

impl Embed for Gpu {
    fn embed(&mut self, table: &Matrix, scale: f32, out: &mut Rows) -> Result<()> {
        self.pass.embed(table.shape(), table.role, self.sampling.slots, out.shape())?;
        let mut bindings = Bindings::default();
        bindings[binding::OUTPUT as usize] = Some(&out.buffer);
        bindings[binding::BATCH as usize] = self.metadata.buffer.as_ref();
        bindings[binding::SAMPLED as usize] = Some(&self.sampling.sampled);
        for piece in &table.pieces {
            bindings[binding::WEIGHT as usize] = Some(&piece.weight);
            bindings[binding::SCALES as usize] = piece.scales.as_ref();
            let (first, count) = (piece.rows.start as u32, piece.rows.len() as u32);
            let params = [
                self.pass.rows as u32,
                table.groups() as u32,
                first,
                count,
                (out.stride / 4) as u32,
                scale.to_bits(),
                0,
                0,
            ];
            let op = Op::Embed(table.format);
            self.recorder.dispatch(&mut self.device, op, &bindings, &params, folded(self.pass.rows))?;
        }
        Ok(())
    }
}
