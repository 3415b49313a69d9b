//! The border between the decoder and a machine.

use crate::{Activation, Batch, Choice, Clock, DType, Epilogue, Error, Limits, Mask, Result, Router, Weight};
use std::fmt;

/// What kind of machine a backend runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// The processor, through this crate's own kernels.
    Cpu,
    /// A graphics processor.
    Gpu,
    /// A graphics driver that computes on the processor.
    SoftwareGpu,
}

/// What a backend runs on, for the lines that tell the user.
#[derive(Clone, Debug)]
pub struct DeviceInfo {
    /// Kind of machine.
    pub kind: DeviceKind,
    /// Name as the machine reports it.
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

    /// The block of a quantized cache that dimension i of a key is in.
    pub(crate) fn key_block(&self, i: usize) -> usize {
        let half = self.rotary_dim / 2;
        let place = match i {
            i if i < half => 2 * i,
            i if i < self.rotary_dim => 2 * (i - half) + 1,
            i => i,
        };
        place / KvType::BLOCK
    }

    /// Rows of the fused projection: queries, keys, values.
    pub fn qkv_dim(&self) -> usize {
        self.q_dim() + 2 * self.kv_dim()
    }
}

/// How a cache holds keys and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KvType {
    /// Single precision.
    #[default]
    F32,
    /// Half precision; what is larger than the largest half becomes that.
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

    /// The type of a name of [`name`](Self::name).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kv| kv.name() == name)
    }
}

impl fmt::Display for KvType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a matrix is for, so that a backend can lay its rows out once, at load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Any projection, or at once a projection and an embedding (tied).
    Plain,
    /// An embedding, which nothing is multiplied with.
    Embedding,
    /// Gate rows, then as many up rows: for a [gated](crate::Activation::is_gated) activation.
    GateUp,
    /// Matrices of so many experts, one below the other, for [`Backend::project_experts`] and [`Backend::combine_experts`]; of
    /// each the rows of [`Role::GateUp`] where it is gated.
    Experts {
        /// How many.
        count: usize,
        /// Whether each has gate rows, then as many up rows.
        gated: bool,
    },
    /// Query, key and value rows: for [`Backend::project_qkv`].
    Qkv(Heads),
    /// Some of these, from a row on that begins a head: where not all are of one type.
    QkvPart(Heads, usize),
}

impl Role {
    /// Heads of queries, keys and values, and the first row that a matrix has of them.
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

/// What a matrix takes on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Bytes, those that only fill up included.
    pub bytes: u64,
    /// Whether these are the checkpoint's own bytes, used where they lie.
    pub in_place: bool,
}

/// A norm of rows x, in front of a projection or by itself; weight and bias are as wide as x.
pub enum Norm<'a, B: Backend> {
    /// RMSNorm (Zhang and Sennrich 2019, arXiv 1910.07467): `x * weight / sqrt(mean(x²) + eps)`.
    Rms {
        /// Factor of each dimension.
        weight: &'a B::Vector,
        /// Added to the mean square.
        eps: f32,
    },
    /// LayerNorm (Ba et al. 2016, arXiv 1607.06450): `(x - mean(x)) * weight / sqrt(var(x) + eps) + bias`.
    Layer {
        /// Factor of each dimension.
        weight: &'a B::Vector,
        /// Added to each dimension.
        bias: &'a B::Vector,
        /// Added to the variance.
        eps: f32,
    },
}

impl<'a, B: Backend> Norm<'a, B> {
    /// Its vectors.
    pub(crate) fn vectors(self) -> impl Iterator<Item = &'a B::Vector> {
        let (weight, bias) = match self {
            Norm::Rms { weight, .. } => (weight, None),
            Norm::Layer { weight, bias, .. } => (weight, Some(bias)),
        };
        [Some(weight), bias].into_iter().flatten()
    }
}

impl<B: Backend> Clone for Norm<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Backend> Copy for Norm<'_, B> {}

/// A machine: it owns memory and computes passes of decoder-sized operations.
///
/// A pass begins with [`begin`](Backend::begin); its operations may be recorded and run later; only
/// [`read`](Backend::read) waits. Activations are f32 `[rows, dim]` buffers that live as long as the model; an operation
/// works on the first [`Batch::rows`] rows of them (after [`select`](Backend::select): on as many as were selected).
/// Arguments that do not fit each other are an [`Error::Mismatch`](crate::Error::Mismatch), never a panic.
pub trait Backend: Sized + Send + 'static {
    /// A weight matrix.
    type Matrix: Send;
    /// A vector of f32 weights.
    type Vector: Send;
    /// Activations.
    type Rows: Send;
    /// Which experts the rows of a pass go to.
    type Routes: Send;
    /// Keys and values of every layer, in pages of [`PAGE`](crate::PAGE) positions.
    type Cache: Send;

    /// What this is.
    fn info(&self) -> &DeviceInfo;

    /// Brings a matrix and its bias to the device, in the type that it has.
    fn matrix(&mut self, weight: &Weight, role: Role) -> Result<Self::Matrix>;

    /// What a matrix will take, before it is there.
    ///
    /// # Errors
    ///
    /// Those of the device's limits that [`matrix`](Backend::matrix) would report.
    fn footprint(&self, _name: &str, dtype: DType, rows: usize, cols: usize, _role: Role) -> Result<Footprint> {
        let row = dtype.bytes(cols).unwrap_or(usize::MAX);
        Ok(Footprint { bytes: (row as u64).saturating_mul(rows as u64), in_place: false })
    }

    /// Brings a vector to the device.
    fn vector(&mut self, name: &str, values: &[f32]) -> Result<Self::Vector>;

    /// Room for `rows` rows of activations.
    fn rows(&mut self, name: &'static str, rows: usize, dim: usize) -> Result<Self::Rows>;

    /// Room for the routes of `rows` rows to `experts` experts.
    fn routes(&mut self, rows: usize, experts: usize) -> Result<Self::Routes>;

    /// An empty cache of `layers` layers.
    fn cache(&mut self, layers: usize, heads: Heads, kv: KvType) -> Result<Self::Cache>;

    /// Makes room for pages `0 .. pages`; contents are kept. Never shrinks.
    fn reserve(&mut self, cache: &mut Self::Cache, pages: usize) -> Result<()>;

    /// Is told how many pages a request may come to need, so that a machine whose cache is dear to enlarge does so once.
    fn prepare(&mut self, _cache: &mut Self::Cache, _pages: usize) -> Result<()> {
        Ok(())
    }

    /// Bytes that one page takes in all layers together.
    fn page_bytes(&self, cache: &Self::Cache) -> u64;

    /// Begins a pass over `batch`.
    fn begin(&mut self, batch: &Batch) -> Result<()>;

    /// `out[r] = scale * table[tokens[r]]`; a bias of the table counts for projections only.
    fn embed(&mut self, table: &Self::Matrix, scale: f32, out: &mut Self::Rows) -> Result<()>;

    /// Takes rows of x from the host: `values`, `[rows, dim]`, become those from row `first` on. They are rows of the pass.
    fn write(&mut self, x: &mut Self::Rows, first: usize, values: &[f32]) -> Result<()>;

    /// `out = norm(x)`.
    fn norm(&mut self, x: &Self::Rows, norm: Norm<'_, Self>, out: &mut Self::Rows) -> Result<()>;

    /// `y = norm(x) wᵀ + bias`, then the epilogue; without a norm x is taken as it is.
    fn project(
        &mut self,
        x: &Self::Rows,
        norm: Option<Norm<'_, Self>>,
        weight: &Self::Matrix,
        epilogue: Epilogue,
        out: &mut Self::Rows,
    ) -> Result<()>;

    /// Chooses the experts of each row by its scores, `[rows, experts]`.
    fn route(&mut self, scores: &Self::Rows, router: Router, routes: &mut Self::Routes) -> Result<()>;

    /// `activation(x wᵀ)` of each row by each of its experts, by a matrix of role [`Role::Experts`]. `out` has a row for each
    /// route, [`TOP_EXPERTS`](crate::TOP_EXPERTS) times as many as x, whose order only
    /// [`combine_experts`](Backend::combine_experts) of the same backend knows.
    fn project_experts(
        &mut self,
        x: &Self::Rows,
        weight: &Self::Matrix,
        activation: Activation,
        routes: &Self::Routes,
        out: &mut Self::Rows,
    ) -> Result<()>;

    /// `out[r] += weight * (x wᵀ)` over the routes of each row, of which x holds what
    /// [`project_experts`](Backend::project_experts) gave.
    fn combine_experts(
        &mut self,
        x: &Self::Rows,
        weight: &Self::Matrix,
        routes: &Self::Routes,
        out: &mut Self::Rows,
    ) -> Result<()>;

    /// Projects `norm(x)` to queries, keys and values, by one matrix of role [`Role::Qkv`] or by several of role
    /// [`Role::QkvPart`] that follow each other, rotates queries and keys by [`Batch::rope`], appends keys and values to
    /// `layer` of the cache at the rows' positions, and leaves the queries in `q`, whose order only
    /// [`attention`](Backend::attention) of the same backend knows.
    fn project_qkv(
        &mut self,
        x: &Self::Rows,
        norm: Option<Norm<'_, Self>>,
        weights: &[&Self::Matrix],
        q: &mut Self::Rows,
        cache: &mut Self::Cache,
        layer: usize,
    ) -> Result<()>;

    /// `out[r] = softmax(scale * q kᵀ) v` over the positions that row r sees by `mask`, per head; `scale` is usually
    /// `1 / sqrt(head_dim)`; kv head `h * kv_heads / heads`
    /// serves query head h.
    fn attention(
        &mut self,
        q: &Self::Rows,
        cache: &Self::Cache,
        layer: usize,
        mask: Mask,
        scale: f32,
        out: &mut Self::Rows,
    ) -> Result<()>;

    /// Keeps rows `Batch::outputs[first .. first + count]` of x as rows `0 .. count` of `out`; the operations that follow
    /// work on `count` rows.
    fn select(&mut self, x: &Self::Rows, first: usize, count: usize, out: &mut Self::Rows) -> Result<()>;

    /// Runs what was recorded and copies rows `0 .. out.len() / dim` of x to the host.
    fn read(&mut self, x: &Self::Rows, out: &mut [f32]) -> Result<()>;

    /// Runs what was recorded and waits for nothing: for the chunks of a prompt but the last.
    fn finish(&mut self) -> Result<()>;

    /// Passes that may be under way at once whose tokens the machine chooses; 0 where it chooses none.
    fn ahead(&self) -> usize {
        0
    }

    /// Chooses a token from each of the first rows of logits, uses these up, runs what was recorded and waits for nothing.
    /// The next pass may embed the token of row i as [`Batch::CHOSEN`] + i, before anybody has asked for it.
    fn choose(&mut self, _logits: &mut Self::Rows, _choices: &[Choice]) -> Result<()> {
        Err(not_ahead(self.info()))
    }

    /// Waits for the oldest pass whose tokens nobody has asked for yet, and gives them; [`Batch::NO_TOKEN`] where a logit
    /// was not finite.
    fn chosen(&mut self, _tokens: &mut [u32]) -> Result<()> {
        Err(not_ahead(self.info()))
    }

    /// Marks a point between the operations asked for so far and those to come.
    fn mark(&mut self) -> Result<()> {
        Err(not_measured(self.info()))
    }

    /// Runs what was recorded, waits, and gives the seconds between each two marks, which are forgotten.
    fn marked(&mut self) -> Result<Vec<f64>> {
        Err(not_measured(self.info()))
    }

    /// What the time between marks is taken from.
    fn clock(&self) -> Clock {
        Clock::Wall
    }

    /// Measures what the machine can do at best; takes about a second.
    fn limits(&mut self) -> Result<Limits> {
        Err(not_measured(self.info()))
    }
}

fn not_measured(info: &DeviceInfo) -> Error {
    Error::Absent { device: info.name.clone(), what: "measurements of its work" }
}

fn not_ahead(info: &DeviceInfo) -> Error {
    Error::Absent { device: info.name.clone(), what: "choice of tokens" }
}
