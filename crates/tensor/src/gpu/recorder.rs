//! Records dispatches into one compute pass and submits them at once.

use super::device::{Buffer, Device, Submission};
use super::pipelines::{Pipelines, Slots};
use crate::Result;
use bytemuck::{Pod, bytes_of, cast_slice};
use phi3_shaders::{FOLD, Op, PARAMS_SIZE, Tier};
use std::collections::HashMap;

/// Parameters of a dispatch, as the uniform holds them.
type Block = [u32; PARAMS_SIZE as usize / 4];

/// Bytes from one block to the next: the alignment of a dynamic offset by the default limits.
const STEP: usize = 256;

/// Blocks of the uniform buffer; a pass that needs more is submitted in parts.
const BLOCKS: usize = 512;

/// Multiply-adds of a submission; a pass that needs more is submitted in parts. Systems reset a device whose submission takes
/// longer than a few seconds, Windows two.
const BUDGET: u64 = 100_000_000_000;

pub(super) struct Recorder {
    pub(super) pipelines: Pipelines,
    pub(super) dispatches: u64,
    params: Buffer,
    /// Blocks of this pass, `STEP` bytes each.
    blocks: Vec<u8>,
    places: HashMap<Block, u32>,
    /// Bytes of `blocks` that the device has.
    written: usize,
    recording: Option<Recording>,
    /// Multiply-adds that were recorded since the last submission, and how many one may have.
    work: u64,
    budget: u64,
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
    pub(super) fn new(device: &mut Device, tier: Tier, checked: bool) -> Result<Self> {
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let params = device.buffer("parameters", (BLOCKS * STEP) as u64, usage)?;
        Ok(Self {
            pipelines: Pipelines::new(tier, checked),
            dispatches: 0,
            params,
            blocks: Vec::with_capacity(BLOCKS * STEP),
            places: HashMap::with_capacity(BLOCKS),
            written: 0,
            recording: None,
            work: 0,
            budget: BUDGET,
        })
    }

    /// Begins a pass: what an earlier one recorded is submitted, and its parameters are forgotten.
    pub(super) fn begin(&mut self, device: &mut Device) -> Result<()> {
        self.flush(device)?;
        self.blocks.clear();
        self.places.clear();
        self.written = 0;
        self.pipelines.forget(&device.dropped());
        Ok(())
    }

    /// Makes room for a kernel of so many multiply-adds: submits what was recorded, where both are too much at once.
    pub(super) fn make_room(&mut self, device: &mut Device, work: u64) -> Result<()> {
        if self.work > 0 && self.work.saturating_add(work) > self.budget {
            self.flush(device)?;
        }
        self.work = self.work.saturating_add(work);
        Ok(())
    }

    /// Records a kernel over `grid` workgroups.
    pub(super) fn dispatch(
        &mut self,
        device: &mut Device,
        op: Op,
        slots: &Slots<'_>,
        params: &impl Pod,
        grid: [u32; 3],
    ) -> Result<()> {
        if grid.contains(&0) {
            return Ok(());
        }
        let offset = self.block(device, params)?;
        let place = self.pipelines.place(device, op)?;
        let group = self.pipelines.group(device, place, &self.params, slots)?.clone();
        let recording = self.recording.get_or_insert_with(|| Recording::new(device));
        if recording.pipeline != place {
            recording.pass.set_pipeline(self.pipelines.pipeline(place));
            recording.pipeline = place;
        }
        recording.pass.set_bind_group(0, &group, &[offset]);
        recording.pass.dispatch_workgroups(grid[0], grid[1], grid[2]);
        self.dispatches += 1;
        Ok(())
    }

    /// Records that the device writes a timestamp.
    pub(super) fn timestamp(&mut self, device: &Device, set: &wgpu::QuerySet, index: u32) {
        self.recording.get_or_insert_with(|| Recording::new(device)).pass.write_timestamp(set, index);
    }

    /// Submits what was recorded, if anything.
    pub(super) fn flush(&mut self, device: &mut Device) -> Result<Option<Submission>> {
        let submission = self.recording.take().map(|Recording { pass, encoder, .. }| {
            drop(pass);
            self.submit(device, encoder)
        });
        device.check()?;
        Ok(submission)
    }

    /// Submits what was recorded, and after it what `tail` records.
    pub(super) fn flush_with(
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

    /// Where the parameters stand in the uniform; equal ones stand there once.
    fn block(&mut self, device: &mut Device, params: &impl Pod) -> Result<u32> {
        let mut block = Block::default();
        let words = cast_slice::<u8, u32>(bytes_of(params));
        block[..words.len()].copy_from_slice(words);
        if let Some(place) = self.places.get(&block) {
            return Ok(*place);
        }
        if self.places.len() == BLOCKS {
            self.flush(device)?;
            self.blocks.clear();
            self.places.clear();
            self.written = 0;
        }
        let place = self.blocks.len() as u32;
        self.blocks.extend_from_slice(bytes_of(&block));
        self.blocks.resize(place as usize + STEP, 0);
        self.places.insert(block, place);
        Ok(place)
    }
}

/// A grid of `groups` workgroups, folded into x and y.
pub(super) fn folded(groups: usize) -> [u32; 3] {
    let groups = groups as u32;
    [groups.min(FOLD), groups.div_ceil(FOLD), 1]
}

#[cfg(test)]
mod tests {
    use crate::gpu::{Gpu, Options, Select};
    use crate::parity::Random;
    use crate::{Backend, Batch, DType, Epilogue, Heads, KvType, Mask, Norm, Role};

    const ROWS: usize = 40;
    const HEADS: Heads = Heads { heads: 2, kv_heads: 1, head_dim: 16, rotary_dim: 16 };

    /// A pass of four projections and attention, in submissions of so many multiply-adds: what it gives, and their number.
    fn pass(budget: u64) -> Option<(Vec<f32>, u64)> {
        let mut gpu = match Gpu::open(&Select::Any, &Options { software: true, ..Options::default() }) {
            Ok(gpu) => gpu,
            Err(error) => {
                println!("skipped: {error}");
                return None;
            }
        };
        gpu.recorder.budget = budget;
        let mut random = Random(7);
        let table = gpu.matrix(&random.weight("table", DType::F32, ROWS, 32, 1.0), Role::Embedding).unwrap();
        let qkv = gpu.matrix(&random.weight("qkv", DType::F16, HEADS.qkv_dim(), 32, 0.3), Role::Qkv(HEADS)).unwrap();
        let square = gpu.matrix(&random.weight("square", DType::Q8_0, 32, 32, 0.3), Role::Plain).unwrap();
        let gain = gpu.vector("gain", &random.vector(32, 1.0)).unwrap();
        let mut x = gpu.rows("x", ROWS, 32).unwrap();
        let mut q = gpu.rows("q", ROWS, HEADS.q_dim()).unwrap();
        let mut mixed = gpu.rows("mixed", ROWS, HEADS.q_dim()).unwrap();
        let mut cache = gpu.cache(1, HEADS, KvType::F32).unwrap();
        gpu.reserve(&mut cache, 3).unwrap();
        let mut batch = Batch::of(&(0..ROWS as u32).collect::<Vec<_>>(), 0, &[0, 1, 2]).unwrap();
        batch.rope_mut().extend(random.vector(ROWS * HEADS.rotary_dim, 1.0));
        let before = gpu.counters().submits;
        gpu.begin(&batch).unwrap();
        gpu.embed(&table, 1.0, &mut x).unwrap();
        gpu.project_qkv(&x, Some(Norm::Rms { weight: &gain, eps: 1e-5 }), &[&qkv], &mut q, &mut cache, 0).unwrap();
        gpu.attention(&q, &cache, 0, Mask::Causal, 0.25, &mut mixed).unwrap();
        for _ in 0..3 {
            gpu.project(&mixed, None, &square, Epilogue::ACCUMULATE, &mut x).unwrap();
        }
        let mut out = vec![0.0; ROWS * 32];
        gpu.read(&x, &mut out).unwrap();
        Some((out, gpu.counters().submits - before))
    }

    #[test]
    fn a_pass_of_much_work_is_several_submissions() {
        let Some((want, submits)) = pass(super::BUDGET) else { return };
        assert_eq!(submits, 1);
        let square = (ROWS * 32 * 32) as u64;
        // rows * positions * heads * head_dim, for keys and for values
        let attention = (ROWS * ROWS * 2 * 16 * 2) as u64;
        for (budget, submits) in [
            (5 * square + attention, 1),
            (5 * square + attention - 1, 2),
            // attention alone is more than that
            (2 * square, 4),
            (1, 5),
        ] {
            assert_eq!(pass(budget), Some((want.clone(), submits)), "{budget}");
        }
    }
}
