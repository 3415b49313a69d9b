//! Rows from the host on the GPU: a write to the buffer after the operations recorded so far.

use crate::Result;
use crate::gpu::{Gpu, Rows};
use crate::ops::WriteRows;

impl WriteRows for Gpu {
    fn write(&mut self, x: &mut Rows, first: usize, values: &[f32]) -> Result<()> {
        self.pass.write(x.shape(), first, values.len())?;
        // the padding of a row is zero
        if values.is_empty() {
            return Ok(());
        }
        self.recorder.flush(&mut self.device)?;
        let mut padded = vec![0.0f32; values.len() / x.dim * x.stride];
        for (padded, row) in padded.chunks_exact_mut(x.stride).zip(values.chunks_exact(x.dim)) {
            padded[..x.dim].copy_from_slice(row);
        }
        let offset = (first * x.stride * size_of::<f32>()) as u64;
        self.device.queue.write_buffer(&x.buffer.raw, offset, bytemuck::cast_slice(&padded));
        self.device.check()
    }
}
