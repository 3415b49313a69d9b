//! Sampling on the GPU: one dispatch of one workgroup for each row, and a copy of the tokens to the host.

use super::{Sample, Sampling};
use crate::checks::{at_most, same};
use crate::gpu::device::STORAGE;
use crate::gpu::in_flight::{Flight, PIPELINE_DEPTH};
use crate::gpu::pipelines::Bindings;
use crate::gpu::{Gpu, Rows};
use crate::{Batch, Expected, Result};
use phi3_shaders::{NO_TOKEN, Op, SAMPLED, binding};

const _: () = assert!(Batch::SAMPLED == SAMPLED && Batch::NO_TOKEN == NO_TOKEN);

impl Sample for Gpu {
    fn pipeline_depth(&self) -> usize {
        PIPELINE_DEPTH
    }

    fn sample(&mut self, logits: &mut Rows, samplings: &[Sampling]) -> Result<()> {
        at_most("sample", "passes in flight", PIPELINE_DEPTH - 1, self.in_flight.pending.len())?;
        Expected::AtLeast(1).check("sample", "rows", self.pass.rows)?;
        same("sample", "samplings", self.pass.rows, samplings.len())?;
        at_most("sample", "rows", logits.capacity, samplings.len())?;
        let bytes = (size_of::<u32>() * samplings.len()) as u64;
        if self.in_flight.sampled.size < bytes {
            self.in_flight.sampled = self.device.buffer("sampled tokens", bytes, STORAGE)?;
        }
        for (row, sampling) in samplings.iter().enumerate() {
            let mut bindings = Bindings::default();
            bindings[binding::INPUT as usize] = Some(&logits.buffer);
            bindings[binding::SAMPLED as usize] = Some(&self.in_flight.sampled);
            let (op, params) = kernel(logits, row, sampling);
            self.recorder.dispatch(&mut self.device, op, &bindings, &params, [1, 1, 1])?;
        }

        let index = self.in_flight.next;
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        self.device.grow(&mut self.in_flight.ring[index], "sampled tokens on their way", bytes, usage)?;
        let Some(to) = &self.in_flight.ring[index] else { return Ok(()) };
        let sampled = &self.in_flight.sampled;
        let submission = self.recorder.flush_with(&mut self.device, |encoder| {
            encoder.copy_buffer_to_buffer(&sampled.raw, 0, &to.raw, 0, bytes);
        })?;
        self.in_flight.next = (index + 1) % PIPELINE_DEPTH;
        self.in_flight.rows = samplings.len();
        self.in_flight.pending.push_back(Flight { index, rows: samplings.len(), submission });
        Ok(())
    }

    fn sampled(&mut self, tokens: &mut [u32]) -> Result<()> {
        Expected::AtLeast(1).check("sampled", "passes in flight", self.in_flight.pending.len())?;
        let Some(flight) = self.in_flight.pending.pop_front() else { return Ok(()) };
        same("sampled", "rows", flight.rows, tokens.len())?;
        let size = (size_of::<u32>() * flight.rows) as u64;
        self.device.read(&mut self.in_flight.ring[flight.index], size, flight.submission, |bytes| {
            for (token, bytes) in tokens.iter_mut().zip(bytes.chunks_exact(size_of::<u32>())) {
                *token = bytemuck::pod_read_unaligned(bytes);
            }
        })?;
        self.read_bytes += size;
        Ok(())
    }
}

/// The kernel of a sampling, and its parameters.
fn kernel(logits: &Rows, row: usize, sampling: &Sampling) -> (Op, [u32; 8]) {
    let (vocab, stride, row) = (logits.dim as u32, logits.stride as u32, row as u32);
    match *sampling {
        Sampling::Greedy => (Op::Argmax, [vocab, stride, row, 0, 0, 0, 0, 0]),
        Sampling::Random { temperature, top_k, top_p, min_p, draw } => {
            let temperature = temperature.max(f32::MIN_POSITIVE);
            // a cast of a number out of range gives the nearest number in range
            let drop = ((1.0 - f64::from(top_p)) * 4_294_967_296.0) as u32;
            let floor = (f64::from(min_p).min(1.0) * 2_147_483_648.0).ceil() as u32;
            (Op::Sample, [vocab, stride, row, top_k, temperature.to_bits(), drop, floor, draw])
        }
    }
}
