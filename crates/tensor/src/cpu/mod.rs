//! The CPU backend: weights in the memory map or repacked, all threads, SIMD chosen at run time.

mod activations;
#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod amx_gemm;
pub(crate) mod cache;
#[cfg(all(feature = "reference", target_os = "linux", target_arch = "x86_64"))]
mod emulated;
mod field;
mod gemm;
mod int_simd;
mod integer;
mod interleaver;
pub(crate) mod kernels;
mod limits;
pub(crate) mod math;
pub(crate) mod matrix;
mod memory;
mod plain;
mod pool;
pub(crate) mod project;
pub(crate) mod quants;
mod repack;
pub(crate) mod simd;
#[cfg(target_arch = "x86_64")]
mod transpose;
#[cfg(target_arch = "x86_64")]
mod vnni_i16;

use activations::BlockQ8;
pub use cache::Cache;
use cache::Target;
use interleaver::Interleaver;
use kernels::Input;
pub use matrix::Matrix;
use pool::Pool;
pub use simd::Isa;

use crate::checks::{self, ActivePass, Shape};
use crate::measure::{self, Limits};
use crate::ops::experts::Routes;
use crate::{
    Batch, DType, Device, DeviceInfo, DeviceKind, Error, Footprint, Heads, KvType, Phase, Readback, Result, Role,
    Weight,
};
use std::ops::Range;
use std::time::Instant;

/// Options of the CPU backend.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Number of threads; `None` is as many as the process may use.
    pub threads: Option<usize>,
    /// Instruction set; `None`, or one that is not available, is the widest of the processor.
    pub isa: Option<Isa>,
    /// Type of the activations in products with quantized weights.
    pub activations: Activations,
    /// Time at which quantized weights are interleaved.
    pub repack: Repack,
}

/// Type of the activations in products.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Activations {
    /// Integers of eight bits, with a scale for every 32, for quantized weights. For rows of a prompt and weights in half
    /// precision integers of fourteen bits, where the processor has AVX-512 VNNI. For rows of a prompt and either kind of weight
    /// bf16, where the processor has AMX. Single precision otherwise.
    #[default]
    Int8,
    /// Single precision, which does not round the activations, and is slow.
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

/// Time at which quantized weights are interleaved for multiplication with activations of eight bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Repack {
    /// Once, into separate memory, by the first passes and a thread beside them. At load where the weights are not in a mapped file.
    #[default]
    InBackground,
    /// Once, at load, into separate memory.
    AtLoad,
    /// At every use: the file stays mapped, loading is instant, each token slower.
    Never,
}

impl Repack {
    /// Every choice, for tests that walk them.
    pub const ALL: [Repack; 3] = [Repack::InBackground, Repack::AtLoad, Repack::Never];

    /// Lower-case name, as command lines take it.
    pub fn name(self) -> &'static str {
        match self {
            Repack::InBackground => "background",
            Repack::AtLoad => "load",
            Repack::Never => "never",
        }
    }
}

/// The processor as a [`Backend`](crate::Backend).
pub struct Cpu {
    pub(crate) info: DeviceInfo,
    pub(crate) isa: Isa,
    activations: Activations,
    repack: Repack,
    pub(crate) pool: Pool,
    interleaver: Interleaver,
    pub(crate) pass: ActivePass,
    /// Slots of the cache for the keys and values of the pass.
    pub(crate) targets: Vec<Target>,
    normed: Vec<f32>,
    pub(crate) projected: Vec<f32>,
    /// Rows of an expert, and the outputs for them.
    pub(crate) gathered: [Vec<f32>; 2],
    q8: Vec<BlockQ8>,
    #[cfg(target_arch = "x86_64")]
    scratch: gemm::Scratch,
    /// Sums of chunks of positions, where the tasks of attention are split.
    pub(crate) partials: Vec<f32>,
    /// A row of an embedding in panels.
    pub(crate) row: Vec<u8>,
    /// Sampled tokens, by slot.
    pub(crate) sampled: Vec<u32>,
    timestamps: Vec<Instant>,
}

/// Activations `[rows, dim]`.
pub struct Rows {
    pub(crate) dim: usize,
    pub(crate) values: Vec<f32>,
}

impl Rows {
    /// A range of rows.
    pub(crate) fn input_of(&self, rows: Range<usize>) -> Input<'_> {
        Input { values: &self.values[rows.start * self.dim..], rows: rows.len(), dim: self.dim }
    }

    /// The first `rows` rows.
    pub(crate) fn input(&self, rows: usize) -> Input<'_> {
        Input { values: &self.values, rows, dim: self.dim }
    }

    pub(crate) fn shape(&self) -> Shape {
        Shape { rows: self.values.len() / self.dim, cols: self.dim }
    }
}

/// Work, in multiply-adds, below which a loop runs on the calling thread only.
const SERIAL: usize = 200_000;

/// Returns `len` zeros, or [`Error::OutOfMemory`].
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
    /// Opens the backend: starts the threads.
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
            interleaver: Interleaver::default(),
            pass: ActivePass::default(),
            targets: Vec::new(),
            normed: Vec::new(),
            projected: Vec::new(),
            gathered: Default::default(),
            q8: Vec::new(),
            #[cfg(target_arch = "x86_64")]
            scratch: gemm::Scratch::default(),
            partials: Vec::new(),
            row: Vec::new(),
            sampled: Vec::new(),
            timestamps: Vec::new(),
        })
    }

    /// Whether a matrix is interleaved into separate memory.
    fn repacks(&self, dtype: DType, role: Role) -> bool {
        dtype.is_quantized()
            && role != Role::Embedding
            && self.activations == Activations::Int8
            && self.repack != Repack::Never
    }

    /// Runs tasks `0 .. tasks` on the pool, or on the calling thread where `work` is small.
    pub(crate) fn parallel(&self, work: usize, tasks: usize, task: impl Fn(usize) + Sync) {
        if work < SERIAL { (0..tasks).for_each(task) } else { self.pool.run(tasks, &task) }
    }
}

impl Device for Cpu {
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
        match self.repack {
            _ if !self.repacks(weight.dtype, role) => Ok(matrix),
            Repack::InBackground if weight.is_mapped() => matrix.repacked_by(&mut self.interleaver),
            _ => matrix.repacked(&self.pool),
        }
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
        cache.reserve(pages)
    }

    fn copy_pages(&mut self, cache: &mut Cache, pairs: &[(u32, u32)]) -> Result<()> {
        checks::copy_pages(cache.shape(), pairs)?;
        cache.copy_pages(pairs);
        Ok(())
    }

    fn page_bytes(&self, cache: &Cache) -> u64 {
        cache.page_bytes()
    }

    fn begin(&mut self, batch: &Batch) -> Result<()> {
        self.interleaver.pause(batch.segments().iter().any(|segment| segment.phase == Phase::Prompt));
        self.pass.begin(batch);
        cache::targets(batch, &mut self.targets);
        Ok(())
    }

    fn read(&mut self, x: &Rows, out: &mut [f32]) -> Result<()> {
        checks::read(x.shape(), out.len())?;
        out.copy_from_slice(&x.values[..out.len()]);
        Ok(())
    }

    fn read_back(&mut self, x: &Rows, rows: Range<usize>) -> Result<Readback<Vec<f32>>> {
        checks::read_back(x.shape(), &rows)?;
        Ok(Readback::complete(x.values[rows.start * x.dim..rows.end * x.dim].to_vec()))
    }

    fn submit(&mut self) -> Result<()> {
        self.interleaver.pause(false);
        Ok(())
    }

    fn timestamp(&mut self) -> Result<()> {
        self.timestamps.push(Instant::now());
        Ok(())
    }

    fn elapsed(&mut self) -> Result<Vec<f64>> {
        Ok(measure::intervals(&mut self.timestamps))
    }

    fn limits(&mut self) -> Result<Limits> {
        limits::limits(self.isa, &self.pool)
    }
}
