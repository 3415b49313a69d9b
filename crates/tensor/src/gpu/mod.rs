//! Any GPU, through wgpu.
//!
//! A pass of the decoder is recorded into one compute pass and submitted once. Pipelines and bind groups are made at
//! their first use and kept; the parameters of all dispatches of a pass lie in one uniform buffer, at dynamic offsets;
//! tokens, positions, rotations and pages lie in one table. Weights stay in the file's own type.

mod adapter;
mod attention;
mod cache;
mod cached;
mod choose;
mod device;
mod experts;
#[cfg(test)]
mod faults;
mod limits;
mod marks;
mod memory;
mod pipelines;
pub(crate) mod planes;
mod project;
mod recorder;
mod selfcheck;
mod table;
mod upload;

pub use adapter::{AdapterInfo, AdapterKind, Options, Select, adapters};
pub use cache::Cache;
pub use experts::Routes;
pub use phi3_shaders::Tier;
pub use upload::Matrix;

use crate::checks::{self, ActivePass, Shape};
use crate::{
    Activation, Backend, Batch, Choice, Clock, DType, DeviceInfo, DeviceKind, Epilogue, Footprint, Heads, KvType,
    Limits, Mask, Norm, Result, Role, Router, Store, Weight,
};
use choose::Flights;
use device::{Buffer, Device, STORAGE, Submission};
use marks::Marks;
use memory::Memory;
use phi3_shaders::{Kv, Op, Sink, binding};
use pipelines::Slots;
use project::{EpilogueParams, Halves, Target, normalise};
use recorder::{Recorder, folded};
use table::Table;
use upload::GROUP;

/// A GPU.
pub struct Gpu {
    info: DeviceInfo,
    adapter: AdapterInfo,
    device: Device,
    recorder: Recorder,
    table: Table,
    pass: ActivePass,
    readback: Option<Buffer>,
    flights: Flights,
    /// What parts of attention leave for their merging.
    parts: Option<Buffer>,
    halves: Halves,
    /// Activations behind a norm that no projection computes itself.
    normed: Option<Buffer>,
    /// What experts give for their rows.
    given: Option<Buffer>,
    /// Whether products are as exact as single precision.
    exact: bool,
    /// Workgroups of a large tile for matrix units that the device wants; for less there is a smaller tile.
    enough: u32,
    read_bytes: u64,
    marks: Marks,
    /// The last pass of many rows that was submitted without waiting for it.
    under_way: Option<Submission>,
}

/// f32 weights of a norm, zero from `len` to the next multiple of eight.
pub struct Vector {
    len: usize,
    buffer: Buffer,
}

/// Activations `[capacity, dim]` f32. A row takes `stride` floats, a multiple of eight; those past `dim` stay zero.
pub struct Rows {
    capacity: usize,
    dim: usize,
    stride: usize,
    buffer: Buffer,
}

/// How much of everything was made so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Submissions to the queue.
    pub submits: u64,
    /// Kernels that were recorded.
    pub dispatches: u64,
    /// Bind groups that were made.
    pub bind_groups: u64,
    /// Pipelines that were made.
    pub pipelines: u64,
    /// Buffers that were made.
    pub buffers: u64,
    /// Bytes that came back from the device.
    pub read_bytes: u64,
}

impl Gpu {
    /// Opens an adapter.
    ///
    /// # Errors
    ///
    /// [`Error::NoAdapter`](crate::Error::NoAdapter) where none answers, [`Error::Device`](crate::Error::Device) where it cannot be opened.
    pub fn open(select: &Select, options: &Options) -> Result<Self> {
        Self::open_and(select, options, |_| {})
    }

    /// Opens an adapter, with `then` what a test does to a device before it is checked. Where the check loses the device, the
    /// adapter is opened again for the next lower tier.
    fn open_and(select: &Select, options: &Options, then: impl Fn(&mut Self)) -> Result<Self> {
        let forced = options.tier.is_some();
        let mut options = options.clone();
        let mut faults = Vec::new();
        loop {
            let mut gpu = Self::with(adapter::choose(select, &options)?, &options)?;
            then(&mut gpu);
            if !options.check {
                return Ok(gpu);
            }
            let memory = options.memory.as_ref().map(|folder| Memory::open(folder, &gpu.adapter));
            let patience = gpu.device.patience;
            // a driver that computes on the processor may take long to compile
            if gpu.info.kind != DeviceKind::SoftwareGpu {
                gpu.device.patience = patience.min(selfcheck::PATIENCE);
            }
            let Err(error) = gpu.settle(memory, forced, &mut faults) else {
                gpu.device.patience = patience;
                return Ok(gpu);
            };
            options.tier = gpu.next_lower().filter(|_| !forced && gpu.device.lost().is_some());
            if options.tier.is_none() {
                return Err(error);
            }
        }
    }

    /// Opens wgpu's device that computes nothing: what is read from it is zero. Pipelines are made and dispatches are
    /// recorded as for any other, so it shows what they cost the host.
    ///
    /// # Errors
    ///
    /// [`Error::Device`] where it cannot be opened.
    #[cfg(feature = "noop")]
    pub fn noop() -> Result<Self> {
        Self::with(adapter::noop()?, &Options::default())
    }

    fn with((adapter, found, tier): (wgpu::Adapter, AdapterInfo, Tier), options: &Options) -> Result<Self> {
        let kind = match found.kind {
            AdapterKind::Software => DeviceKind::SoftwareGpu,
            _ => DeviceKind::Gpu,
        };
        let mut device = Device::open(&adapter, &found, tier, options)?;
        let recorder = Recorder::new(&mut device, tier, options.checked)?;
        let table = Table::new(&mut device)?;
        let flights = Flights::new(&mut device)?;
        let info = DeviceInfo { kind, name: found.name.clone(), detail: String::new() };
        let mut gpu = Self {
            info,
            adapter: found,
            device,
            recorder,
            table,
            pass: ActivePass::default(),
            readback: None,
            flights,
            parts: None,
            halves: Halves::default(),
            normed: None,
            given: None,
            exact: options.exact,
            enough: project::ENOUGH,
            read_bytes: 0,
            marks: Marks::default(),
            under_way: None,
        };
        gpu.describe(&[]);
        Ok(gpu)
    }

    /// Says which kernels run, and what is wrong with better ones.
    fn describe(&mut self, faults: &[String]) {
        let tier = format!("{} kernels", self.tier().name());
        let kernels = [&[tier], faults].concat().join("; ");
        self.info.detail = format!("{kernels}, {}, {}", self.adapter.backend, self.adapter.driver);
    }

    /// The kernels that it runs.
    pub fn tier(&self) -> Tier {
        self.recorder.pipelines.tier()
    }

    /// How much of everything was made so far: in steady decoding, a token adds one submission and dispatches only.
    pub fn counters(&self) -> Counters {
        Counters {
            submits: self.device.submits,
            dispatches: self.recorder.dispatches,
            bind_groups: self.recorder.pipelines.groups_made,
            pipelines: self.recorder.pipelines.made(),
            buffers: self.device.buffers,
            read_bytes: self.read_bytes,
        }
    }
}

impl Gpu {
    /// Brings what a projection staged to a quantized cache.
    fn quantize(&mut self, cache: &Cache, layer: usize) -> Result<()> {
        const THREADS: usize = 64;
        let layer = &cache.layers[layer];
        let count = self.pass.rows * cache.heads.kv_heads * cache.blocks();
        let strides = cache.loaded();
        let params = [
            count as u32,
            cache.heads.kv_heads as u32,
            cache.head4() as u32,
            cache.blocks() as u32,
            (cache.heads.kv_heads * cache.head4()) as u32,
            strides.slot,
            strides.head,
            0,
        ];
        let mut slots = Slots::default();
        slots[binding::INPUT as usize] = cache.staged.as_ref();
        slots[binding::KEYS as usize] = layer.keys.as_ref();
        slots[binding::VALUES as usize] = layer.values.as_ref();
        slots[binding::BATCH as usize] = self.table.buffer.as_ref();
        let grid = folded(count.div_ceil(THREADS));
        self.recorder.dispatch(&mut self.device, Op::Quantize, &slots, &params, grid)
    }
}

/// The text of an epilogue, and its parameters; `stride` counts floats of a row of the output.
fn epilogue_of(epilogue: Epilogue, stride: usize) -> (Sink, EpilogueParams) {
    let (activation, limit) = epilogue.activation.shader();
    let store = match epilogue.store {
        Store::Overwrite => phi3_shaders::Store::Overwrite,
        Store::Accumulate => phi3_shaders::Store::Accumulate,
    };
    let stride = if epilogue.activation.is_gated() { stride / 2 } else { stride / 4 };
    let params = [stride as u32, epilogue.scale.to_bits(), limit.to_bits(), 0, 0, 0, 0, 0];
    (Sink::Rows(activation, store), params)
}

impl Backend for Gpu {
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
        self.new_routes(rows, experts)
    }

    fn cache(&mut self, layers: usize, heads: Heads, kv: KvType) -> Result<Cache> {
        Cache::new(&self.device, layers, heads, kv)
    }

    fn reserve(&mut self, cache: &mut Cache, pages: usize) -> Result<()> {
        cache.reserve(&mut self.device, &mut self.recorder, pages)
    }

    fn prepare(&mut self, cache: &mut Cache, pages: usize) -> Result<()> {
        self.reserve(cache, pages)
    }

    fn page_bytes(&self, cache: &Cache) -> u64 {
        cache.page_bytes()
    }

    fn begin(&mut self, batch: &Batch) -> Result<()> {
        self.pass.rows = 0;
        self.recorder.begin(&mut self.device)?;
        self.table.write(&mut self.device, batch)?;
        self.pass.begin(batch);
        Ok(())
    }

    fn embed(&mut self, table: &Matrix, scale: f32, out: &mut Rows) -> Result<()> {
        self.pass.embed(table.shape(), table.role, self.flights.rows, out.shape())?;
        let mut slots = Slots::default();
        slots[binding::OUTPUT as usize] = Some(&out.buffer);
        slots[binding::BATCH as usize] = self.table.buffer.as_ref();
        slots[binding::CHOSEN as usize] = Some(&self.flights.chosen);
        for piece in &table.pieces {
            slots[binding::WEIGHT as usize] = Some(&piece.weight);
            slots[binding::SCALES as usize] = piece.scales.as_ref();
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
            self.recorder.dispatch(&mut self.device, op, &slots, &params, folded(self.pass.rows))?;
        }
        Ok(())
    }

    fn write(&mut self, x: &mut Rows, first: usize, values: &[f32]) -> Result<()> {
        self.pass.write(x.shape(), first, values.len())?;
        self.write_rows(x, first, values)
    }

    fn norm(&mut self, x: &Rows, norm: Norm<'_, Self>, out: &mut Rows) -> Result<()> {
        self.pass.norm(x.shape(), norm.vectors().map(|vector| vector.len), out.shape())?;
        let (recorder, device) = (&mut self.recorder, &mut self.device);
        normalise(recorder, device, self.pass.rows, x, norm, &out.buffer)
    }

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

    fn route(&mut self, scores: &Rows, router: Router, routes: &mut Routes) -> Result<()> {
        self.pass.route(scores.shape(), routes.shape())?;
        self.record_route(scores, router, routes)
    }

    fn project_experts(
        &mut self,
        x: &Rows,
        weight: &Matrix,
        activation: Activation,
        routes: &Routes,
        out: &mut Rows,
    ) -> Result<()> {
        let (of, routed) = ((weight.shape(), weight.role), routes.shape());
        self.pass.project_experts(x.shape(), of, activation, routed, out.shape())?;
        self.up_experts(x, weight, activation, routes, out)
    }

    fn combine_experts(&mut self, x: &Rows, weight: &Matrix, routes: &Routes, out: &mut Rows) -> Result<()> {
        let (of, routed) = ((weight.shape(), weight.role), routes.shape());
        self.pass.combine_experts(x.shape(), of, routed, out.shape())?;
        self.down_experts(x, weight, routes, out)
    }

    fn project_qkv(
        &mut self,
        x: &Rows,
        norm: Option<Norm<'_, Self>>,
        weights: &[&Matrix],
        q: &mut Rows,
        cache: &mut Cache,
        layer: usize,
    ) -> Result<()> {
        let cached = (cache.shape(), layer);
        let norms = norm.into_iter().flat_map(Norm::vectors).map(|vector| vector.len);
        self.pass.project_qkv(x.shape(), norms, weights.iter().map(|w| (w.shape(), w.role)), q.shape(), cached)?;
        let heads = cache.heads;
        let strides = cache.stored();
        let params = [
            heads.q_dim() as u32,
            heads.kv_dim() as u32,
            heads.head_dim as u32,
            heads.rotary_dim as u32,
            (q.stride / 2) as u32,
            strides.slot,
            strides.head,
            self.table.rope_at as u32,
        ];
        if cache.kv == Kv::Q8_0 {
            cache.stage(&mut self.device, self.pass.rows)?;
        }
        let (keys, values) = match cache.kv {
            Kv::F32 | Kv::F16 => (cache.layers[layer].keys.as_ref(), cache.layers[layer].values.as_ref()),
            Kv::Q8_0 => (cache.staged.as_ref(), None),
        };
        let sink = Sink::Qkv(cache.kv);
        let target = Target { sink, params, output: &q.buffer, keys, values };
        for weight in weights {
            self.product(x, norm, weight, &target)?;
        }
        if cache.kv == Kv::Q8_0 { self.quantize(cache, layer) } else { Ok(()) }
    }

    fn attention(
        &mut self,
        q: &Rows,
        cache: &Cache,
        layer: usize,
        mask: Mask,
        scale: f32,
        out: &mut Rows,
    ) -> Result<()> {
        self.pass.attention(q.shape(), (cache.shape(), layer), mask, out.shape())?;
        self.attend(q, cache, layer, mask, scale, out)
    }

    fn select(&mut self, x: &Rows, first: usize, count: usize, out: &mut Rows) -> Result<()> {
        self.pass.select(x.shape(), first, count, out.shape())?;
        let mut slots = Slots::default();
        slots[binding::INPUT as usize] = Some(&x.buffer);
        slots[binding::OUTPUT as usize] = Some(&out.buffer);
        slots[binding::BATCH as usize] = self.table.buffer.as_ref();
        let params = [count as u32, (x.stride / 4) as u32, (self.table.outputs_at + first) as u32, 0];
        self.recorder.dispatch(&mut self.device, Op::Select, &slots, &params, folded(count))
    }

    fn read(&mut self, x: &Rows, out: &mut [f32]) -> Result<()> {
        let rows = checks::read(x.shape(), out.len())?;
        if rows == 0 {
            return self.finish();
        }
        let size = (rows * x.stride * size_of::<f32>()) as u64;
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        self.device.grow(&mut self.readback, "readback", size, usage)?;
        let Some(readback) = &self.readback else { return Ok(()) };
        let copied = self.recorder.flush_with(&mut self.device, |encoder| {
            encoder.copy_buffer_to_buffer(&x.buffer.raw, 0, &readback.raw, 0, size);
        })?;
        self.device.read(&mut self.readback, size, copied, |bytes| {
            for (out, row) in out.chunks_exact_mut(x.dim).zip(bytes.chunks_exact(x.stride * size_of::<f32>())) {
                bytemuck::cast_slice_mut(out).copy_from_slice(&row[..x.dim * size_of::<f32>()]);
            }
        })?;
        self.read_bytes += size;
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        let submission = self.recorder.flush(&mut self.device)?;
        if !self.table.many_rows || submission.is_none() {
            return Ok(());
        }
        // two passes keep the device busy; more would only be waited for when somebody wants to stop
        match std::mem::replace(&mut self.under_way, submission) {
            Some(before) => self.device.wait(before),
            None => Ok(()),
        }
    }

    fn mark(&mut self) -> Result<()> {
        self.marks.mark(&mut self.device, &mut self.recorder)
    }

    fn marked(&mut self) -> Result<Vec<f64>> {
        self.marks.marked(&mut self.device, &mut self.recorder)
    }

    fn clock(&self) -> Clock {
        Marks::clock(&self.device)
    }

    fn limits(&mut self) -> Result<Limits> {
        self.measure_limits()
    }

    fn ahead(&self) -> usize {
        choose::AHEAD
    }

    fn choose(&mut self, logits: &mut Rows, choices: &[Choice]) -> Result<()> {
        Gpu::choose(self, logits, choices)
    }

    fn chosen(&mut self, tokens: &mut [u32]) -> Result<()> {
        Gpu::chosen(self, tokens)
    }
}

impl Rows {
    fn shape(&self) -> Shape {
        Shape { rows: self.capacity, cols: self.dim }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;
    use crate::parity::Random;

    /// Where nothing is read, a pass of many rows is waited for when the next one is submitted; one of few rows is not.
    #[test]
    fn passes_of_many_rows_do_not_queue_up() {
        let options = Options { software: true, ..Options::default() };
        let Ok(mut gpu) = Gpu::open(&Select::Any, &options) else {
            println!("skipped: no adapter");
            return;
        };
        let table = gpu.matrix(&Random(3).weight("table", DType::F16, 16, 24, 1.0), Role::Plain).unwrap();
        let mut x = gpu.rows("x", 16, 24).unwrap();
        for (rows, waits) in [(1, 0), (16, 5), (4, 5)] {
            let batch = Batch::of(&(0..rows).collect::<Vec<_>>(), 0, &[0]).unwrap();
            for _ in 0..6 {
                gpu.begin(&batch).unwrap();
                gpu.embed(&table, 1.0, &mut x).unwrap();
                gpu.finish().unwrap();
            }
            assert_eq!(gpu.device.waits, waits, "{rows} rows");
        }
    }

    #[test]
    fn bind_groups_of_dropped_buffers_are_let_go() {
        let options = Options { software: true, ..Options::default() };
        let Ok(mut gpu) = Gpu::open(&Select::Any, &options) else {
            println!("skipped: no adapter");
            return;
        };
        let mut x = gpu.rows("x", 1, 24).unwrap();
        let batch = Batch::of(&[5], 0, &[0]).unwrap();
        for _ in 0..3 {
            let table = gpu.matrix(&Random(3).weight("table", DType::F16, 8, 24, 1.0), Role::Plain).unwrap();
            gpu.begin(&batch).unwrap();
            gpu.embed(&table, 1.0, &mut x).unwrap();
            gpu.finish().unwrap();
            assert_eq!(gpu.recorder.pipelines.kept(), 1);
        }
        assert_eq!(gpu.counters().bind_groups, 3);
    }
}
