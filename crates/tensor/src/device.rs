//! The trait of devices: their memory, their passes and their clock. Their operations are in [`ops`](crate::ops).

use crate::{Batch, Clock, DType, Error, Limits, Readback, Result, Weight};
use std::fmt;
use std::ops::Range;

/// Kind of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// The processor, with this crate's kernels.
    Cpu,
    /// A graphics processor.
    Gpu,
    /// A graphics driver that computes on the processor.
    SoftwareGpu,
}

/// Description of a device, for the user.
#[derive(Clone, Debug)]
pub struct DeviceInfo {
    /// Kind of device.
    pub kind: DeviceKind,
    /// Name, as the driver reports it for a GPU.
    pub name: String,
    /// Kernels in use: an instruction set, or a GPU tier and its driver.
    pub detail: String,
}

impl fmt::Display for DeviceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.detail)
    }
}

/// Shape of an attention layer's heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Heads {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
    /// Leading dimensions of a head that are rotated; even, at most `head_dim`.
    ///
    /// Dimension i pairs with i + rotary_dim / 2 (the "rotate half" convention).
    pub rotary_dim: usize,
}

impl Heads {
    /// Width of all query heads together.
    pub fn q_dim(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key heads, or all value heads, together.
    pub fn kv_dim(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Block of a quantized cache that contains dimension i of a key.
    pub(crate) fn key_block(&self, i: usize) -> usize {
        let half = self.rotary_dim / 2;
        let index = match i {
            i if i < half => 2 * i,
            i if i < self.rotary_dim => 2 * (i - half) + 1,
            i => i,
        };
        index / KvType::BLOCK
    }

    /// Rows of the fused projection: queries, keys, values.
    pub fn qkv_dim(&self) -> usize {
        self.q_dim() + 2 * self.kv_dim()
    }
}

/// Type of the keys and values in a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KvType {
    /// Single precision.
    #[default]
    F32,
    /// Half precision; numbers beyond the largest half become the largest half.
    F16,
    /// Whole numbers from -127 to 127, and a scale in single precision for every [`KvType::BLOCK`] of a head. In a key, the
    /// two dimensions of a rotated pair count as neighbours.
    Q8_0,
}

impl KvType {
    /// Every type, for tests that walk them.
    pub const ALL: [KvType; 3] = [KvType::F32, KvType::F16, KvType::Q8_0];

    /// Numbers of a head that share a scale; a head's last block may have fewer.
    pub const BLOCK: usize = 32;

    /// Lower-case name, as command lines take it.
    pub fn name(self) -> &'static str {
        match self {
            KvType::F32 => "f32",
            KvType::F16 => "f16",
            KvType::Q8_0 => "q8_0",
        }
    }

    /// The type with this [`name`](Self::name).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kv| kv.name() == name)
    }
}

impl fmt::Display for KvType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Use of a matrix, by which a backend orders its rows at load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Any projection, or a projection that is also the embedding (tied).
    Plain,
    /// An embedding that is no projection.
    Embedding,
    /// Gate rows, then as many up rows: for a [gated](crate::Activation::is_gated) activation.
    GateUp,
    /// Matrices of several experts, one below the other, for [`Experts`](crate::ops::Experts); each with the rows of
    /// [`Role::GateUp`] where it is gated.
    Experts {
        /// Number of experts.
        count: usize,
        /// Whether each has gate rows, then as many up rows.
        gated: bool,
    },
    /// Query, key and value rows: for [`ProjectQkv`](crate::ops::ProjectQkv).
    Qkv(Heads),
    /// A part of these rows, from the given row on, which begins a head: for parts of different types.
    QkvPart(Heads, usize),
}

impl Role {
    /// Heads of queries, keys and values, and the matrix's first row of them.
    pub(crate) fn qkv(self) -> Option<(Heads, usize)> {
        match self {
            Role::Qkv(heads) => Some((heads, 0)),
            Role::QkvPart(heads, first) => Some((heads, first)),
            Role::Plain | Role::Embedding | Role::GateUp | Role::Experts { .. } => None,
        }
    }

    /// Name for messages.
    pub fn name(self) -> &'static str {
        match self {
            Role::Plain => "plain",
            Role::Embedding => "embedding",
            Role::GateUp => "gate and up",
            Role::Experts { gated: true, .. } => "experts' gate and up",
            Role::Experts { gated: false, .. } => "experts",
            Role::Qkv(_) | Role::QkvPart(..) => "queries, keys and values",
        }
    }
}

/// Memory of a matrix on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Bytes, padding included.
    pub bytes: u64,
    /// Whether these are the checkpoint's own bytes, used in place.
    pub in_place: bool,
}

/// A device: it owns memory and computes passes of decoder-sized operations, each of which is a trait of its own in
/// [`ops`](crate::ops). A device with all operations is a [`Backend`](crate::Backend).
///
/// A pass begins with [`begin`](Device::begin). Its operations may be recorded and run later. [`read`](Device::read)
/// and [`elapsed`](Device::elapsed) wait for their results; a [`Readback`] is waited for by its holder. Other methods may wait for
/// earlier work of the device: [`reserve`](Device::reserve) for a copy of the cache, [`matrix`](Device::matrix) for staging
/// memory, [`timestamp`](Device::timestamp) with [`Clock::WallAndWait`]. Activations are
/// f32 `[rows, dim]` buffers, kept as long as the model. An operation computes their first [`Batch::rows`] rows, after
/// [`select`](crate::ops::SelectRows::select) as many as were selected. Arguments that do not fit each other are an
/// [`Error::Mismatch`](crate::Error::Mismatch), never a panic.
pub trait Device: Sized + Send + 'static {
    /// A weight matrix.
    type Matrix: Send;
    /// A vector of f32 weights.
    type Vector: Send;
    /// Activations.
    type Rows: Send;
    /// Experts of the rows of a pass.
    type Routes: Send;
    /// Keys and values of every layer, in pages of [`PAGE`](crate::PAGE) positions.
    type Cache: Send;

    /// Kind, name and kernels of the device.
    fn info(&self) -> &DeviceInfo;

    /// Uploads a matrix `[rows, cols]` and its bias, in the matrix's own type.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the shape does not fit the role, and those of the device's limits and memory.
    fn matrix(&mut self, weight: &Weight, role: Role) -> Result<Self::Matrix>;

    /// Memory that a matrix will take, before it is uploaded.
    ///
    /// # Errors
    ///
    /// Those of the device's limits that [`matrix`](Device::matrix) would report.
    fn footprint(&self, _name: &str, dtype: DType, rows: usize, cols: usize, _role: Role) -> Result<Footprint> {
        let row = dtype.bytes(cols).unwrap_or(usize::MAX);
        Ok(Footprint { bytes: (row as u64).saturating_mul(rows as u64), in_place: false })
    }

    /// Uploads a vector.
    fn vector(&mut self, name: &str, values: &[f32]) -> Result<Self::Vector>;

    /// Memory for `rows` rows of activations of width `dim`.
    fn rows(&mut self, name: &'static str, rows: usize, dim: usize) -> Result<Self::Rows>;

    /// Memory for the routes of `rows` rows to `experts` experts.
    fn routes(&mut self, rows: usize, experts: usize) -> Result<Self::Routes>;

    /// An empty cache of `layers` layers.
    fn cache(&mut self, layers: usize, heads: Heads, kv: KvType) -> Result<Self::Cache>;

    /// Allocates pages `0 .. pages` of a cache; contents are kept. Never shrinks.
    fn reserve(&mut self, cache: &mut Self::Cache, pages: usize) -> Result<()>;

    /// Announces the number of pages that a request may need. A device whose cache is expensive to enlarge enlarges it once.
    fn reserve_hint(&mut self, _cache: &mut Self::Cache, _pages: usize) -> Result<()> {
        Ok(())
    }

    /// Copies pages of all layers, each pair from the first to the second, after the passes that were submitted before.
    ///
    /// # Errors
    ///
    /// [`Error::Mismatch`](crate::Error::Mismatch) for a page that the cache does not have.
    fn copy_pages(&mut self, cache: &mut Self::Cache, pairs: &[(u32, u32)]) -> Result<()>;

    /// Most pages that a cache may have.
    fn max_pages(&self, _cache: &Self::Cache) -> usize {
        usize::MAX
    }

    /// Bytes of one page in all layers together.
    fn page_bytes(&self, cache: &Self::Cache) -> u64;

    /// Begins a pass over `batch`.
    fn begin(&mut self, batch: &Batch) -> Result<()>;

    /// Runs the recorded operations and copies rows `0 .. out.len() / dim` of x to the host.
    fn read(&mut self, x: &Self::Rows, out: &mut [f32]) -> Result<()>;

    /// Runs the recorded operations, then copies rows of x to the host: `[rows, dim]`. Does not wait.
    fn read_back(&mut self, x: &Self::Rows, rows: Range<usize>) -> Result<Readback<Vec<f32>>>;

    /// Runs the recorded operations. Does not wait.
    fn submit(&mut self) -> Result<()>;

    /// From now on, operations compile the kernels that they and operations on other numbers of rows use, and compute nothing. Returns
    /// false on a device without kernels to compile, whose operations compute as before.
    fn compile_only(&mut self, _on: bool) -> bool {
        false
    }

    /// Takes a timestamp after the operations recorded so far.
    ///
    /// # Errors
    ///
    /// [`Error::Absent`] on a device without a clock.
    fn timestamp(&mut self) -> Result<()> {
        Err(not_measured(self.info()))
    }

    /// Runs the recorded operations, waits, returns the seconds between neighbouring timestamps, and removes the timestamps.
    ///
    /// # Errors
    ///
    /// [`Error::Absent`] on a device without a clock.
    fn elapsed(&mut self) -> Result<Vec<f64>> {
        Err(not_measured(self.info()))
    }

    /// Source of the timestamps.
    fn clock(&self) -> Clock {
        Clock::Wall
    }

    /// Measures bandwidth and arithmetic rate of the device; takes about a second.
    ///
    /// # Errors
    ///
    /// [`Error::Absent`] on a device without a clock.
    fn limits(&mut self) -> Result<Limits> {
        Err(not_measured(self.info()))
    }
}

fn not_measured(info: &DeviceInfo) -> Error {
    Error::Absent { device: info.name.clone(), what: "clock" }
}
