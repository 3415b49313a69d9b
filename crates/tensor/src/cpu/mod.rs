//! The processor: weights straight from the memory map, all threads, SIMD chosen at run time.

mod activations;
#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod amx_gemm;
mod attention;
mod cache;
#[cfg(all(feature = "reference", target_os = "linux", target_arch = "x86_64"))]
mod emulated;
mod experts;
mod gemm;
mod int_simd;
mod integer;
mod kernels;
mod limits;
mod matrix;
mod plain;
mod pool;
mod project;
pub(crate) mod quants;
mod repack;
mod simd;
#[cfg(target_arch = "x86_64")]
mod transpose;
#[cfg(target_arch = "x86_64")]
mod vnni_i16;

use activations::BlockQ8;
use attention::Attend;
pub use cache::Cache;
use cache::Target;
use kernels::{Input, Output};
pub use matrix::Matrix;
use pool::Pool;
use project::Shares;
pub use simd::Isa;

use crate::checks::{self, ActivePass, Shape};
use crate::experts::Routes;
use crate::measure::{self, Limits};
use crate::{
    Activation, Backend, Batch, DType, DeviceInfo, DeviceKind, Epilogue, Error, Footprint, Heads, KvType, Mask, Norm,
    Result, Role, Router, Weight,
};
use std::time::Instant;

/// How the CPU backend runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Threads; as many as the process may use where absent.
    pub threads: Option<usize>,
    /// Instruction set; the widest that the processor has where absent.
    pub isa: Option<Isa>,
    /// Type of the activations that quantized weights are multiplied with.
    pub activations: Activations,
    /// When quantized weights are interleaved.
    pub repack: Repack,
}

/// Type of the activations that weights are multiplied with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Activations {
    /// Whole numbers of eight bits, with a scale for every 32, for quantized weights. For many rows of weights in half precision
    /// whole numbers of fourteen bits, where the processor has AVX-512 VNNI. For many rows of either kind bf16, where it has AMX.
    /// Single precision otherwise.
    #[default]
    Int8,
    /// Single precision: as exact as the weights, and slow.
    F32,
}

impl Activations {
    /// Every type, for tests that walk them.
    pub const ALL: [Activations; 2] = [Activations::Int8, Activations::F32];

    /// Lower-case name, as command lines take it.
    pub fn name(self) -> &'static str {
        match self {
            Activations::Int8 => "int8",
            Activations::F32 => "f32",
        }
    }
}

/// When quantized weights are interleaved for multiplication with activations of eight bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Repack {
    /// Once, at load, into memory of their own.
    #[default]
    AtLoad,
    /// Whenever they are used: the file stays mapped, loading is instant, each token slower.
    Never,
}

impl Repack {
    /// Every choice, for tests that walk them.
    pub const ALL: [Repack; 2] = [Repack::AtLoad, Repack::Never];

    /// Lower-case name, as command lines take it.
    pub fn name(self) -> &'static str {
        match self {
            Repack::AtLoad => "load",
            Repack::Never => "never",
        }
    }
}

/// The processor as a [`Backend`].
pub struct Cpu {
    info: DeviceInfo,
    isa: Isa,
    activations: Activations,
    repack: Repack,
    pool: Pool,
    pass: ActivePass,
    /// Where the keys and values of the pass go.
    targets: Vec<Target>,
    normed: Vec<f32>,
    projected: Vec<f32>,
    /// Rows of an expert, and what it gives for them.
    gathered: [Vec<f32>; 2],
    q8: Vec<BlockQ8>,
    #[cfg(target_arch = "x86_64")]
    scratch: gemm::Scratch,
    /// A row of an embedding in panels.
    row: Vec<u8>,
    marks: Vec<Instant>,
}

/// Activations `[rows, dim]`.
pub struct Rows {
    dim: usize,
    values: Vec<f32>,
}

impl Rows {
    /// The first rows.
    fn input(&self, rows: usize) -> Input<'_> {
        Input { values: &self.values, rows, dim: self.dim }
    }

    fn shape(&self) -> Shape {
        Shape { rows: self.values.len() / self.dim, cols: self.dim }
    }
}

/// Work, in multiply-adds, below which a region is not worth a second thread.
const SERIAL: usize = 200_000;

/// Room for `len` zeros, or an error where the memory is not to be had.
pub(crate) fn zeros<T: bytemuck::Zeroable + Clone>(device: &str, what: &str, len: usize) -> Result<Vec<T>> {
    let mut values = Vec::new();
    values.try_reserve_exact(len).map_err(|e| Error::OutOfMemory {
        device: device.to_owned(),
        what: what.to_owned(),
        bytes: (len as u64).saturating_mul(size_of::<T>() as u64),
        detail: format!(" ({e})"),
    })?;
    values.resize(len, T::zeroed());
    Ok(values)
}

impl Cpu {
    /// Starts the threads.
    pub fn new(options: Options) -> Result<Self> {
        let threads = match options.threads {
            Some(threads) => threads.max(1),
            None => std::thread::available_parallelism().map_or(1, usize::from),
        };
        let isa = options.isa.filter(|isa| isa.available()).unwrap_or_else(Isa::best);
        let plural = if threads == 1 { "" } else { "s" };
        let info = DeviceInfo {
            kind: DeviceKind::Cpu,
            name: "CPU".into(),
            detail: format!("{isa}, {threads} thread{plural}"),
        };
        Ok(Self {
            info,
            isa,
            activations: options.activations,
            repack: options.repack,
            pool: Pool::new(threads)?,
            pass: ActivePass::default(),
            targets: Vec::new(),
            normed: Vec::new(),
            projected: Vec::new(),
            gathered: Default::default(),
            q8: Vec::new(),
            #[cfg(target_arch = "x86_64")]
            scratch: gemm::Scratch::default(),
            row: Vec::new(),
            marks: Vec::new(),
        })
    }

    /// Whether a matrix is interleaved at load.
    fn repacks(&self, dtype: DType, role: Role) -> bool {
        dtype.is_quantized()
            && role != Role::Embedding
            && self.activations == Activations::Int8
            && self.repack == Repack::AtLoad
    }

    /// Runs `0 .. tasks` on the pool, or here where `work` is small.
    fn parallel(&self, work: usize, tasks: usize, task: impl Fn(usize) + Sync) {
        if work < SERIAL { (0..tasks).for_each(task) } else { self.pool.run(tasks, &task) }
    }

    fn norm_rows(&self, x: Input<'_>, norm: Norm<'_, Self>, out: &mut [f32]) {
        let out = Output::new(out, x.dim);
        self.parallel(x.rows * x.dim * 8, x.rows, |row| {
            // SAFETY: a task takes its own row.
            let out = unsafe { out.slice(row, 0..x.dim) };
            let x = &x.values[row * x.dim..][..x.dim];
            match norm {
                Norm::Rms { weight, eps } => kernels::rms_norm(self.isa, x, weight, eps, out),
                Norm::Layer { weight, bias, eps } => kernels::layer_norm(self.isa, x, weight, bias, eps, out),
            }
        });
    }

    /// Rotates the queries and keys in `projected`, leaves the queries in `q`.
    fn rotate(&mut self, heads: Heads, q: &mut Rows) {
        let (width, q_dim, turn) = (heads.qkv_dim(), heads.q_dim(), heads.rotary_dim / 2 * 2);
        let mut projected = std::mem::take(&mut self.projected);
        let (rows, queries) = (Shares::new(&mut projected, width), Shares::new(&mut q.values, q_dim));
        self.parallel(self.pass.rows * width * 8, self.pass.rows, |row| {
            // SAFETY: a task takes its own row.
            let (y, q) = unsafe { (rows.take(row), queries.take(row)) };
            let turned = &mut y[..q_dim + heads.kv_dim()];
            kernels::rotate(self.isa, turned, heads.head_dim, &self.pass.batch.rope()[row * turn..][..turn]);
            q.copy_from_slice(&y[..q_dim]);
        });
        self.projected = projected;
    }
}

impl Backend for Cpu {
    type Matrix = Matrix;
    type Vector = Vec<f32>;
    type Rows = Rows;
    type Routes = Routes;
    type Cache = Cache;

    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn matrix(&mut self, weight: &Weight, role: Role) -> Result<Matrix> {
        checks::matrix(weight, role)?;
        let matrix = Matrix::new(weight, role)?;
        if self.repacks(weight.dtype, role) { matrix.repacked(&self.pool) } else { Ok(matrix) }
    }

    fn footprint(&self, _name: &str, dtype: DType, rows: usize, cols: usize, role: Role) -> Result<Footprint> {
        let pack = self.repacks(dtype, role);
        let rows = if pack { Matrix::panel_rows(rows, role) } else { rows };
        let row = dtype.bytes(cols).unwrap_or(usize::MAX);
        Ok(Footprint { bytes: (row as u64).saturating_mul(rows as u64), in_place: !pack })
    }

    fn vector(&mut self, _name: &str, values: &[f32]) -> Result<Vec<f32>> {
        Ok(values.to_vec())
    }

    fn rows(&mut self, name: &'static str, rows: usize, dim: usize) -> Result<Rows> {
        checks::rows(dim)?;
        Ok(Rows { dim, values: zeros(&self.info.name, name, rows.saturating_mul(dim))? })
    }

    fn routes(&mut self, rows: usize, experts: usize) -> Result<Routes> {
        Ok(Routes::new(rows, experts))
    }

    fn cache(&mut self, layers: usize, heads: Heads, kv: KvType) -> Result<Cache> {
        checks::heads("cache", heads)?;
        Ok(Cache::new(layers, heads, kv))
    }

    fn reserve(&mut self, cache: &mut Cache, pages: usize) -> Result<()> {
        cache.reserve(&self.info.name, pages)
    }

    fn page_bytes(&self, cache: &Cache) -> u64 {
        cache.page_bytes()
    }

    fn begin(&mut self, batch: &Batch) -> Result<()> {
        self.pass.begin(batch);
        cache::targets(batch, &mut self.targets);
        Ok(())
    }

    fn embed(&mut self, table: &Matrix, scale: f32, out: &mut Rows) -> Result<()> {
        self.pass.embed(table.shape(), table.role, 0, out.shape())?;
        for (out, &token) in out.values.chunks_exact_mut(table.cols).zip(self.pass.batch.tokens()) {
            table.widen(token as usize, &mut self.row, out)?;
            if scale != 1.0 {
                out.iter_mut().for_each(|v| *v *= scale);
            }
        }
        Ok(())
    }

    fn write(&mut self, x: &mut Rows, first: usize, values: &[f32]) -> Result<()> {
        self.pass.write(x.shape(), first, values.len())?;
        x.values[first * x.dim..][..values.len()].copy_from_slice(values);
        Ok(())
    }

    fn norm(&mut self, x: &Rows, norm: Norm<'_, Self>, out: &mut Rows) -> Result<()> {
        self.pass.norm(x.shape(), norm.vectors().map(Vec::len), out.shape())?;
        self.norm_rows(x.input(self.pass.rows), norm, &mut out.values);
        Ok(())
    }

    fn project(
        &mut self,
        x: &Rows,
        norm: Option<Norm<'_, Self>>,
        weight: &Matrix,
        epilogue: Epilogue,
        out: &mut Rows,
    ) -> Result<()> {
        let norms = norm.into_iter().flat_map(Norm::vectors).map(Vec::len);
        let width = self.pass.project(x.shape(), norms, weight.shape(), weight.role, epilogue, out.shape())?;
        self.product(x.input(self.pass.rows), norm, weight, epilogue, width, Output::new(&mut out.values, width))
    }

    fn route(&mut self, scores: &Rows, router: Router, routes: &mut Routes) -> Result<()> {
        self.pass.route(scores.shape(), routes.shape())?;
        routes.route(&scores.values[..self.pass.rows * scores.dim], router);
        Ok(())
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
        let width = self.pass.project_experts(x.shape(), of, activation, routed, out.shape())?;
        self.up_experts(x, weight, activation, routes, width, &mut out.values)
    }

    fn combine_experts(&mut self, x: &Rows, weight: &Matrix, routes: &Routes, out: &mut Rows) -> Result<()> {
        let (of, routed) = ((weight.shape(), weight.role), routes.shape());
        let width = self.pass.combine_experts(x.shape(), of, routed, out.shape())?;
        self.down_experts(x, weight, routes, width, &mut out.values)
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
        let target = (cache.shape(), layer);
        let norms = norm.into_iter().flat_map(Norm::vectors).map(Vec::len);
        self.pass.project_qkv(x.shape(), norms, weights.iter().map(|w| (w.shape(), w.role)), q.shape(), target)?;
        let heads = cache.heads();
        let width = heads.qkv_dim();
        let mut projected = std::mem::take(&mut self.projected);
        if projected.len() < self.pass.rows * width {
            projected = zeros(&self.info.name, "queries, keys and values", self.pass.rows * width)?;
        }
        let mut first = 0;
        for weight in weights {
            let out = Output::new(&mut projected[first..], width);
            self.product(x.input(self.pass.rows), norm, weight, Epilogue::OVERWRITE, weight.rows, out)?;
            first += weight.rows;
        }
        self.projected = projected;
        self.rotate(heads, q);
        cache.append(self.isa, layer, &self.targets, &self.projected, &self.pool);
        Ok(())
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
        let heads = cache.heads();
        let group = heads.heads / heads.kv_heads;
        // rows of a task, which a page of keys serves all
        let rows = (32 / group).max(8);
        let output = Output::new(&mut out.values, out.dim);
        let batch = &self.pass.batch;
        let tasks: usize = batch.segments().iter().map(|s| s.rows.len().div_ceil(rows)).sum();
        let seen: usize = batch.segments().iter().map(|s| (s.position + s.rows.len()) * s.rows.len()).sum();
        self.parallel(2 * seen * heads.q_dim(), tasks * heads.kv_heads, |i| {
            let (mut block, kv) = (i / heads.kv_heads, i % heads.kv_heads);
            for segment in batch.segments() {
                let blocks = segment.rows.len().div_ceil(rows);
                if block >= blocks {
                    block -= blocks;
                    continue;
                }
                let first = segment.rows.start + block * rows;
                let pages = &batch.pages()[segment.pages.clone()];
                let task = Attend {
                    q: &q.values,
                    width: q.dim,
                    rows: first..(first + rows).min(segment.rows.end),
                    position: segment.position + block * rows,
                    heads: kv * group..(kv + 1) * group,
                    head_dim: heads.head_dim,
                    panels: &|page| cache.panels(layer, pages[page], kv),
                    mask,
                    end: Batch::end(segment),
                    scale,
                };
                return attention::attend(self.isa, &task, output);
            }
        });
        Ok(())
    }

    fn select(&mut self, x: &Rows, first: usize, count: usize, out: &mut Rows) -> Result<()> {
        self.pass.select(x.shape(), first, count, out.shape())?;
        for (i, &row) in self.pass.batch.outputs()[first..first + count].iter().enumerate() {
            out.values[i * x.dim..][..x.dim].copy_from_slice(&x.values[row as usize * x.dim..][..x.dim]);
        }
        Ok(())
    }

    fn read(&mut self, x: &Rows, out: &mut [f32]) -> Result<()> {
        checks::read(x.shape(), out.len())?;
        out.copy_from_slice(&x.values[..out.len()]);
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        Ok(())
    }

    fn mark(&mut self) -> Result<()> {
        self.marks.push(Instant::now());
        Ok(())
    }

    fn marked(&mut self) -> Result<Vec<f64>> {
        Ok(measure::intervals(&mut self.marks))
    }

    fn limits(&mut self) -> Result<Limits> {
        limits::limits(self.isa, &self.pool)
    }
}
