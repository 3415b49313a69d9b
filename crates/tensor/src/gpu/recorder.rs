//! Records dispatches into one compute pass and submits them at once.

use super::device::{Buffer, Device};
use super::driver::Submission;
use super::pipelines::{Bindings, Pipelines};
use crate::Result;
use bytemuck::{Pod, bytes_of, cast_slice};
use phi3_shaders::{FOLD, Op, PARAMS_SIZE, Tier};
use std::collections::HashMap;

/// Parameters of a dispatch in the uniform buffer.
type Block = [u32; PARAMS_SIZE as usize / 4];

/// Bytes from one block to the next: the alignment of a dynamic offset by the default limits.
const STEP: usize = 256;

/// Blocks of the uniform buffer; a pass that needs more is submitted in parts.
const BLOCKS: usize = 512;

/// Multiply-adds of a submission; a pass that needs more is submitted in parts. Systems reset a device whose submission takes
/// longer than a few seconds, Windows two.
pub(super) const BUDGET: u64 = 100_000_000_000;

pub(crate) struct Recorder {
    pub(crate) pipelines: Pipelines,
    pub(crate) dispatches: u64,
    /// Whether kernels are compiled instead of recorded.
    pub(crate) compile_only: bool,
    params: Buffer,
    /// Blocks of this pass, `STEP` bytes each.
    blocks: Vec<u8>,
    /// Offset of each block.
    offsets: HashMap<Block, u32>,
    /// Bytes of `blocks` that are uploaded.
    written: usize,
    recording: Option<Recording>,
    /// Multiply-adds recorded since the last submission. `budget` is the limit of a submission.
    work: u64,
    pub(super) budget: u64,
}

struct Recording {
    pass: wgpu::ComputePass<'static>,
    encoder: wgpu::CommandEncoder,
    pipeline: usize,
}

impl Recording {
    fn new(device: &Device) -> Self {
        let mut encoder = device.raw.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("pass") });
        let pass = encoder
            .begin_compute_pass(&wgpu::ComputePassDescriptor { label: Some("pass"), timestamp_writes: None })
            .forget_lifetime();
        Recording { pass, encoder, pipeline: usize::MAX }
    }
}

impl Recorder {
    pub(crate) fn new(device: &mut Device, tier: Tier, checked: bool) -> Result<Self> {
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let params = device.buffer("parameters", (BLOCKS * STEP) as u64, usage)?;
        Ok(Self {
            pipelines: Pipelines::new(tier, checked),
            dispatches: 0,
            compile_only: false,
            params,
            blocks: Vec::with_capacity(BLOCKS * STEP),
            offsets: HashMap::with_capacity(BLOCKS),
            written: 0,
            recording: None,
            work: 0,
            budget: BUDGET,
        })
    }

    /// Begins a pass: recordings of an earlier pass are submitted, and its parameters are dropped.
    pub(crate) fn begin(&mut self, device: &mut Device) -> Result<()> {
        self.flush(device)?;
        self.blocks.clear();
        self.offsets.clear();
        self.written = 0;
        self.pipelines.forget(&device.dropped());
        Ok(())
    }

    /// Adds the work of a kernel, in multiply-adds; first submits the recording if both are too much for one submission.
    pub(crate) fn reserve_work(&mut self, device: &mut Device, work: u64) -> Result<()> {
        if self.work > 0 && self.work.saturating_add(work) > self.budget {
            self.flush(device)?;
        }
        self.work = self.work.saturating_add(work);
        Ok(())
    }

    /// Records a kernel over `grid` workgroups; or compiles it, and those that take its place in other passes.
    pub(crate) fn dispatch(
        &mut self,
        device: &mut Device,
        op: Op,
        bindings: &Bindings<'_>,
        params: &impl Pod,
        grid: [u32; 3],
    ) -> Result<()> {
        if grid.contains(&0) {
            return Ok(());
        }
        if self.compile_only {
            return op.siblings().into_iter().try_for_each(|op| self.pipelines.index(device, op).map(drop));
        }
        let offset = self.block(device, params)?;
        let index = self.pipelines.index(device, op)?;
        let group = self.pipelines.group(device, index, &self.params, bindings)?.clone();
        let recording = self.recording.get_or_insert_with(|| Recording::new(device));
        if recording.pipeline != index {
            recording.pass.set_pipeline(self.pipelines.pipeline(index));
            recording.pipeline = index;
        }
        recording.pass.set_bind_group(0, &group, &[offset]);
        recording.pass.dispatch_workgroups(grid[0], grid[1], grid[2]);
        self.dispatches += 1;
        Ok(())
    }

    /// Records that the device writes a timestamp.
    pub(crate) fn timestamp(&mut self, device: &Device, set: &wgpu::QuerySet, index: u32) {
        self.recording.get_or_insert_with(|| Recording::new(device)).pass.write_timestamp(set, index);
    }

    /// Submits the recording, if there is any.
    pub(crate) fn flush(&mut self, device: &mut Device) -> Result<Option<Submission>> {
        let submission = self.recording.take().map(|Recording { pass, encoder, .. }| {
            drop(pass);
            self.submit(device, encoder)
        });
        device.check()?;
        Ok(submission)
    }

    /// Submits the recording, with the commands of `tail` at its end.
    pub(crate) fn flush_with(
        &mut self,
        device: &mut Device,
        tail: impl FnOnce(&mut wgpu::CommandEncoder),
    ) -> Result<Submission> {
        let mut encoder = match self.recording.take() {
            Some(Recording { pass, encoder, .. }) => {
                drop(pass);
                encoder
            }
            None => device.raw.create_command_encoder(&Default::default()),
        };
        tail(&mut encoder);
        let submission = self.submit(device, encoder);
        device.check()?;
        Ok(submission)
    }

    fn submit(&mut self, device: &mut Device, encoder: wgpu::CommandEncoder) -> Submission {
        if self.written < self.blocks.len() {
            device.queue.write_buffer(&self.params.raw, self.written as u64, &self.blocks[self.written..]);
            self.written = self.blocks.len();
        }
        self.work = 0;
        device.submit(Some(encoder.finish()))
    }

    /// Offset of the parameters in the uniform buffer; equal parameters are stored once.
    fn block(&mut self, device: &mut Device, params: &impl Pod) -> Result<u32> {
        let mut block = Block::default();
        let words = cast_slice::<u8, u32>(bytes_of(params));
        block[..words.len()].copy_from_slice(words);
        if let Some(offset) = self.offsets.get(&block) {
            return Ok(*offset);
        }
        if self.offsets.len() == BLOCKS {
            self.flush(device)?;
            self.blocks.clear();
            self.offsets.clear();
            self.written = 0;
        }
        let offset = self.blocks.len() as u32;
        self.blocks.extend_from_slice(bytes_of(&block));
        self.blocks.resize(offset as usize + STEP, 0);
        self.offsets.insert(block, offset);
        Ok(offset)
    }
}

/// A grid of `groups` workgroups, folded into x and y.
pub(crate) fn folded(groups: usize) -> [u32; 3] {
    let groups = groups as u32;
    [groups.min(FOLD), groups.div_ceil(FOLD), 1]
}
