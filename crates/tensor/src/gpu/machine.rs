//! The GPU backend: its state, and its implementation of [`Device`](crate::Device).

use super::adapter::{AdapterInfo, AdapterKind, Options};
use super::batch_metadata::BatchMetadata;
use super::cache::Cache;
use super::device::{self, Buffer, STORAGE};
use super::recorder::Recorder;
use super::routes::Routes;
use super::sampling::Sampling;
use super::staging::Staging;
use super::timestamps::Timestamps;
use super::upload::{self, GROUP, Matrix};
use crate::checks::{self, ActivePass, Shape};
use crate::{
    Batch, Clock, DType, Device, DeviceInfo, DeviceKind, Footprint, Heads, KvType, Limits, Readback, Result, Role,
    Weight,
};
use phi3_shaders::Tier;
use std::ops::Range;

/// Workgroups that keep a large device busy.
const ENOUGH: u32 = 128;

/// A GPU.
pub struct Gpu {
    pub(crate) info: DeviceInfo,
    pub(crate) adapter: AdapterInfo,
    pub(crate) device: device::Device,
    pub(crate) recorder: Recorder,
    pub(crate) metadata: BatchMetadata,
    pub(crate) pass: ActivePass,
    pub(crate) staging: Staging,
    pub(crate) sampling: Sampling,
    /// Partial results of attention, before they are combined.
    pub(crate) partials: Option<Buffer>,
    pub(crate) halves: Halves,
    /// Normed activations, for projections whose kernels do not compute the norm.
    pub(crate) normed: Option<Buffer>,
    /// Outputs of experts, a row for each route.
    pub(crate) expert_outputs: Option<Buffer>,
    /// Whether products are as exact as single precision.
    pub(crate) exact: bool,
    /// Workgroups of large tiles of cooperative matrices that keep the device busy; with fewer, smaller tiles are used.
    pub(crate) enough: u32,
    pub(crate) read_bytes: u64,
    pub(crate) timestamps: Timestamps,
}

/// f32 weights of a norm, zero from `len` to the next multiple of eight.
pub struct Vector {
    pub(crate) len: usize,
    pub(crate) buffer: Buffer,
}

/// Activations `[capacity, dim]` f32. A row takes `stride` floats, a multiple of eight; those past `dim` stay zero.
pub struct Rows {
    pub(crate) capacity: usize,
    pub(crate) dim: usize,
    pub(crate) stride: usize,
    pub(crate) buffer: Buffer,
}

/// Activations in half precision, and the divisors of their rows.
#[derive(Default)]
pub(crate) struct Halves {
    pub(crate) values: Option<Buffer>,
    pub(crate) row_scales: Option<Buffer>,
}

/// Counters of submissions, dispatches and objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Submissions to the queue.
    pub submits: u64,
    /// Dispatches recorded.
    pub dispatches: u64,
    /// Bind groups created.
    pub bind_groups: u64,
    /// Pipelines compiled.
    pub pipelines: u64,
    /// Buffers created.
    pub buffers: u64,
    /// Bytes read from the device.
    pub read_bytes: u64,
}

impl Gpu {
    /// The backend on an open adapter, before the check of its kernels.
    pub(super) fn with((adapter, found, tier): (wgpu::Adapter, AdapterInfo, Tier), options: &Options) -> Result<Self> {
        let kind = match found.kind {
            AdapterKind::Software => DeviceKind::SoftwareGpu,
            _ => DeviceKind::Gpu,
        };
        let mut device = device::Device::open(&adapter, &found, tier, options)?;
        let recorder = Recorder::new(&mut device, tier, options.checked)?;
        let metadata = BatchMetadata::new(&mut device)?;
        let sampling = Sampling::new(&mut device)?;
        let info = DeviceInfo { kind, name: found.name.clone(), detail: String::new() };
        let mut gpu = Self {
            info,
            adapter: found,
            device,
            recorder,
            metadata,
            pass: ActivePass::default(),
            staging: Staging::default(),
            sampling,
            partials: None,
            halves: Halves::default(),
            normed: None,
            expert_outputs: None,
            exact: options.exact,
            enough: ENOUGH,
            read_bytes: 0,
            timestamps: Timestamps::default(),
        };
        gpu.describe(&[]);
        Ok(gpu)
    }

    /// Describes the kernels in use, and the faults of better ones.
    pub(super) fn describe(&mut self, faults: &[String]) {
        let tier = format!("{} kernels", self.tier().name());
        let kernels = [&[tier], faults].concat().join("; ");
        self.info.detail = format!("{kernels}, {}, {}", self.adapter.backend, self.adapter.driver);
    }

    /// Tier of the kernels in use.
    pub fn tier(&self) -> Tier {
        self.recorder.pipelines.tier()
    }

    /// Counters since the device was opened. In steady decoding a token adds one submission and dispatches only.
    pub fn counters(&self) -> Counters {
        Counters {
            submits: self.device.submits,
            dispatches: self.recorder.dispatches,
            bind_groups: self.recorder.pipelines.groups_made,
            pipelines: self.recorder.pipelines.made(),
            buffers: self.device.buffers,
            read_bytes: self.read_bytes + self.staging.read_bytes,
        }
    }
}

impl Device for Gpu {
    type Matrix = Matrix;
    type Vector = Vector;
    type Rows = Rows;
    type Routes = Routes;
    type Cache = Cache;

    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn matrix(&mut self, weight: &Weight, role: Role) -> Result<Matrix> {
        upload::matrix(&mut self.device, weight, role)
    }

    fn footprint(&self, name: &str, dtype: DType, rows: usize, cols: usize, role: Role) -> Result<Footprint> {
        upload::footprint(&self.device, name, dtype, rows, cols, role)
    }

    fn vector(&mut self, name: &str, values: &[f32]) -> Result<Vector> {
        let mut padded = values.to_vec();
        padded.resize(values.len().next_multiple_of(GROUP), 0.0);
        let buffer = self.device.buffer(name, (padded.len() * size_of::<f32>()) as u64, STORAGE)?;
        self.device.queue.write_buffer(&buffer.raw, 0, bytemuck::cast_slice(&padded));
        self.device.check()?;
        Ok(Vector { len: values.len(), buffer })
    }

    fn rows(&mut self, name: &'static str, rows: usize, dim: usize) -> Result<Rows> {
        checks::rows(dim)?;
        let stride = dim.checked_next_multiple_of(GROUP).unwrap_or(usize::MAX);
        let size = (rows as u64).saturating_mul(stride as u64).saturating_mul(size_of::<f32>() as u64);
        Ok(Rows { capacity: rows, dim, stride, buffer: self.device.buffer(name, size, STORAGE)? })
    }

    fn routes(&mut self, rows: usize, experts: usize) -> Result<Routes> {
        Routes::new(&mut self.device, rows, experts)
    }

    fn cache(&mut self, layers: usize, heads: Heads, kv: KvType) -> Result<Cache> {
        Cache::new(&self.device, layers, heads, kv)
    }

    fn reserve(&mut self, cache: &mut Cache, pages: usize) -> Result<()> {
        cache.reserve(&mut self.device, &mut self.recorder, pages)
    }

    fn reserve_hint(&mut self, cache: &mut Cache, pages: usize) -> Result<()> {
        self.reserve(cache, pages)
    }

    fn copy_pages(&mut self, cache: &mut Cache, pairs: &[(u32, u32)]) -> Result<()> {
        checks::copy_pages(cache.shape(), pairs)?;
        cache.copy_pages(&mut self.device, &mut self.recorder, pairs)
    }

    fn max_pages(&self, cache: &Cache) -> usize {
        cache.max_pages(&self.device)
    }

    fn page_bytes(&self, cache: &Cache) -> u64 {
        cache.page_bytes()
    }

    fn begin(&mut self, batch: &Batch) -> Result<()> {
        self.pass.rows = 0;
        self.recorder.begin(&mut self.device)?;
        self.metadata.write(&mut self.device, batch)?;
        self.pass.begin(batch);
        Ok(())
    }

    fn read(&mut self, x: &Rows, out: &mut [f32]) -> Result<()> {
        let rows = checks::read(x.shape(), out.len())?;
        out.copy_from_slice(&self.read_back(x, 0..rows)?.wait()?);
        Ok(())
    }

    fn read_back(&mut self, x: &Rows, rows: Range<usize>) -> Result<Readback<Vec<f32>>> {
        checks::read_back(x.shape(), &rows)?;
        if rows.is_empty() {
            self.submit()?;
            return Ok(Readback::complete(Vec::new()));
        }
        let row = (x.stride * size_of::<f32>()) as u64;
        let (from, size) = (rows.start as u64 * row, rows.len() as u64 * row);
        let staged = self.staging.take(&mut self.device, size)?;
        let submission = self.recorder.flush_with(&mut self.device, |encoder| {
            encoder.copy_buffer_to_buffer(&x.buffer.raw, from, &staged.buffer.raw, 0, size);
        })?;
        let (dim, stride) = (x.dim, x.stride);
        Ok(self.staging.read(&self.device, staged, submission, move |bytes| {
            let mut values = vec![0.0; bytes.len() / size_of::<f32>() / stride * dim];
            for (out, row) in values.chunks_exact_mut(dim).zip(bytes.chunks_exact(stride * size_of::<f32>())) {
                bytemuck::cast_slice_mut(out).copy_from_slice(&row[..dim * size_of::<f32>()]);
            }
            values
        }))
    }

    fn compile_only(&mut self, on: bool) -> bool {
        self.recorder.compile_only = on;
        true
    }

    fn submit(&mut self) -> Result<()> {
        self.recorder.flush(&mut self.device).map(drop)
    }

    fn timestamp(&mut self) -> Result<()> {
        self.timestamps.take(&mut self.device, &mut self.recorder)
    }

    fn elapsed(&mut self) -> Result<Vec<f64>> {
        self.timestamps.elapsed(&mut self.device, &mut self.recorder)
    }

    fn clock(&self) -> Clock {
        Timestamps::clock(&self.device)
    }

    fn limits(&mut self) -> Result<Limits> {
        self.measure_limits()
    }
}

impl Rows {
    pub(crate) fn shape(&self) -> Shape {
        Shape { rows: self.capacity, cols: self.dim }
    }
}
