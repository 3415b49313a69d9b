//! A benchmark case: an operation with its weights, KV cache and activations, for repeated runs.

use super::Effort;
use super::cost::{ModelShape, Op};
use crate::{Result, system_memory};
use phi3_model::NormSpec;
use phi3_tensor::{
    Backend, Batch, Bytes, DType, DeviceInfo, DeviceKind, Epilogue, Error, Expected, Heads, Norm, PAGE, Readback, Role,
    Sampled, Samples, Sampling, Weight, quant,
};
use std::time::{Duration, Instant};

/// Bytes of all copies of a weight, or of all layers of a KV cache: more than processor caches hold.
const BYTES: f64 = (320u64 << 20) as f64;

/// Most copies.
const COPIES: usize = 64;

/// Length of a sample, in seconds: the time of its submission and its two timestamps is negligible.
const LONG: f64 = 0.005;

/// Most runs per sample.
const RUNS: usize = 256;

/// Rows of the table that activations are filled from.
const FILLING: usize = 16;

/// Elements of the pattern that weights repeat: whole blocks of every type.
const PIECE: usize = 1 << 16;

/// Rows and width of the passes that fill a KV cache.
const CHUNK: usize = 256;
const NARROW: usize = 32;

/// Time of an operation.
#[derive(Clone, Debug)]
pub struct Timing {
    /// Seconds of one run: the median of the samples.
    pub seconds: f64,
    /// Number of samples.
    pub samples: usize,
    /// Runs per sample, one after another in one pass.
    pub runs: usize,
}

/// An operation on a backend, with its weights or its KV cache.
pub struct Case<B: Backend> {
    shape: ModelShape,
    op: Op,
    weights: Vec<B::Matrix>,
    gain: B::Vector,
    /// Bias of a LayerNorm.
    norm_bias: B::Vector,
    cache: Option<B::Cache>,
    /// Layers of the cache, which are used like copies.
    layers: usize,
    /// Index of the next copy.
    turn: usize,
    /// Results of sampling.
    sampled: Vec<Readback<Sampled>>,
}

/// Activations for a number of rows.
struct Activations<B: Backend> {
    batch: Batch,
    x: B::Rows,
    out: B::Rows,
    /// Table that fills the logits before each sampling.
    table: B::Matrix,
}

impl<B: Backend> Case<B> {
    /// Loads an operation's weights into a backend, in more copies than processor caches hold if memory suffices. For attention,
    /// fills a KV cache of as many layers instead. `rows` is the largest number of rows to be timed.
    ///
    /// # Errors
    ///
    /// Too little memory; no kernel for the operation; a type whose blocks do not fit the shape; an operation that the model does
    /// not have.
    pub fn new(b: &mut B, shape: &ModelShape, op: Op, dtype: Option<DType>, rows: usize) -> Result<Self> {
        if !op.is_of(&shape.spec) {
            return Err(crate::Error::NoOperation { op: op.name() });
        }
        let gain = b.vector("norm", &vec![1.0; shape.spec.hidden_size])?;
        let norm_bias = b.vector("norm", &vec![0.0; shape.spec.hidden_size])?;
        let (shape, weights) = (shape.clone(), Vec::new());
        let mut case =
            Self { shape, op, weights, gain, norm_bias, cache: None, layers: 1, turn: 0, sampled: Vec::new() };
        b.reserve_slots(1)?;
        if let Some(dtype) = dtype {
            case.weights = case.copies_of(b, dtype)?;
        }
        match op {
            Op::Qkv => case.cache = Some(case.cached(b, 1, rows)?),
            Op::Attention => {
                let layer = case.shape.positions(rows) as f64 * case.shape.position_bytes();
                case.layers = (BYTES / layer).ceil().clamp(1.0, COPIES as f64) as usize;
                case.cache = Some(case.filled(b, rows)?);
            }
            _ => {}
        }
        Ok(case)
    }

    /// Number of copies of the weight, or of layers of the KV cache, that are used in turn.
    pub fn copies(&self) -> usize {
        self.weights.len().max(self.layers)
    }

    fn copies_of(&self, b: &mut B, dtype: DType) -> Result<Vec<B::Matrix>> {
        let (rows, cols) = self.shape.matrix(self.op);
        let role = self.op.slot(0).map_or(Role::Plain, |slot| slot.tensor(&self.shape.spec).role);
        let name = self.op.name();
        let Some(row) = dtype.bytes(cols) else {
            return Err(Error::Blocks { name: name.into(), cols, dtype, block: dtype.block().0 }.into());
        };
        let file = (row as u64).saturating_mul(rows as u64);
        let footprint = b.footprint(name, dtype, rows, cols, role)?;
        let own = if footprint.in_place { 0 } else { footprint.bytes };
        room(b.info(), name, file.saturating_add(own))?;
        let copies = (BYTES / file.max(1) as f64).ceil().clamp(1.0, COPIES as f64) as usize;
        let piece = piece(dtype);
        let mut all = Vec::with_capacity(copies);
        while all.len() < copies {
            // memory for a few more copies stays free
            if !all.is_empty() && room(b.info(), name, 4 * file.max(own)).is_err() {
                break;
            }
            match weight(b.info(), name, dtype, (rows, cols), &piece).and_then(|weight| b.matrix(&weight, role)) {
                Ok(matrix) => all.push(matrix),
                Err(Error::OutOfMemory { .. }) if !all.is_empty() => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(all)
    }

    /// An empty KV cache for the positions of a pass of `rows` rows.
    fn cached(&self, b: &mut B, layers: usize, rows: usize) -> Result<B::Cache> {
        let mut cache = b.cache(layers, self.shape.spec.heads, self.shape.kv)?;
        let pages = self.shape.positions(rows).div_ceil(PAGE);
        room(b.info(), "keys and values", b.page_bytes(&cache).saturating_mul(pages as u64))?;
        b.reserve(&mut cache, pages)?;
        Ok(cache)
    }

    /// A KV cache filled with keys and values.
    fn filled(&self, b: &mut B, rows: usize) -> Result<B::Cache> {
        let heads = self.shape.spec.heads;
        let mut cache = self.cached(b, self.layers, rows)?;
        let narrow = weight(b.info(), "keys and values", DType::F32, (heads.qkv_dim(), NARROW), &piece(DType::F32))?;
        let narrow = b.matrix(&narrow, Role::Qkv(heads))?;
        let gain = b.vector("norm", &[1.0; NARROW])?;
        let table = filling(b, NARROW)?;
        let mut x = b.rows("x", CHUNK, NARROW)?;
        let mut q = b.rows("q", CHUNK, heads.q_dim())?;
        let positions = self.shape.positions(rows);
        for first in (0..positions).step_by(CHUNK) {
            b.begin(&batch(heads, FILLING, first, CHUNK.min(positions - first))?)?;
            b.embed(&table, 1.0, &mut x)?;
            for layer in 0..self.layers {
                let norm = Norm::Rms { weight: &gain, eps: 1e-5 };
                b.project_qkv(&x, Some(norm), &[&narrow], &mut q, &mut cache, layer)?;
            }
            b.submit()?;
        }
        Ok(cache)
    }

    /// Activations for a pass of `rows` rows, filled with numbers.
    fn activations(&self, b: &mut B, rows: usize) -> Result<Activations<B>> {
        let (width, width_out) = (self.shape.width(self.op), self.shape.width_out(self.op));
        // twice, because a backend may need scratch memory of the same size
        let bytes = (rows as u64).saturating_mul(2 * 4 * (width + width_out) as u64);
        room(b.info(), "activations", bytes)?;
        let table = filling(b, width)?;
        let mut x = b.rows("x", rows, width)?;
        let out = b.rows("out", rows, width_out)?;
        let first = self.shape.positions(rows) - rows;
        let of = |vocab| batch(self.shape.spec.heads, vocab, first, rows);
        b.begin(&of(FILLING)?)?;
        b.embed(&table, 1.0, &mut x)?;
        b.submit()?;
        let batch = of(if self.op == Op::Embed { self.shape.spec.vocab_size } else { FILLING })?;
        Ok(Activations { batch, x, out, table })
    }

    /// Records one run.
    fn run(&mut self, b: &mut B, a: &mut Activations<B>) -> Result<()> {
        let turn = self.turn;
        self.turn = (turn + 1) % self.copies();
        let Self { shape, op, weights, gain, norm_bias, cache, layers, sampled, .. } = self;
        let norm = match shape.spec.norm {
            NormSpec::Rms { eps } => Norm::Rms { weight: gain, eps },
            NormSpec::Layer { eps } => Norm::Layer { weight: gain, bias: norm_bias, eps },
        };
        let Activations { x, out, .. } = a;
        match (*op, weights.get(turn), cache) {
            (Op::Embed, Some(weight), _) => b.embed(weight, 1.0, out)?,
            (Op::Norm, ..) => b.norm(x, norm, out)?,
            (Op::Qkv, Some(weight), Some(cache)) => b.project_qkv(x, Some(norm), &[weight], out, cache, 0)?,
            (Op::Attention, _, Some(cache)) => {
                b.attention(x, cache, turn % *layers, shape.mask(), shape.spec.attention_scale, out)?;
            }
            (Op::O | Op::Down, Some(weight), _) => b.project(x, None, weight, Epilogue::ACCUMULATE, out)?,
            (Op::GateUp, Some(weight), _) => {
                b.project(x, Some(norm), weight, Epilogue::of(shape.activation()), out)?;
            }
            (Op::Head, Some(weight), _) => b.project(x, Some(norm), weight, Epilogue::OVERWRITE, out)?,
            (Op::Argmax, ..) => sampled.push(b.sample(out, &Samples::greedy(1))?),
            (Op::Sample, ..) => sampled.push(b.sample(out, &Samples::of(&[SAMPLE]))?),
            (op, ..) => {
                let (what, expected) = ("weights", Expected::AtLeast(1));
                return Err(Error::Mismatch { op: op.name(), what, expected, found: 0 }.into());
            }
        }
        Ok(())
    }

    /// Seconds of one of `runs` runs in one pass.
    fn sample(&mut self, b: &mut B, a: &mut Activations<B>, runs: usize) -> Result<f64> {
        b.begin(&a.batch)?;
        if self.op.is_sampling() {
            b.embed(&a.table, 1.0, &mut a.out)?;
        }
        b.timestamp()?;
        for _ in 0..runs {
            self.run(b, a)?;
        }
        b.timestamp()?;
        for sampled in self.sampled.drain(..) {
            sampled.wait()?;
        }
        let seconds: f64 = b.elapsed()?.iter().sum();
        Ok(seconds / runs as f64)
    }

    /// Runs per sample of an operation that takes `seconds`; one for sampling, which overwrites its logits.
    fn runs(&self, seconds: f64) -> usize {
        if self.op.is_sampling() { 1 } else { (LONG / seconds.max(1e-9)).ceil().clamp(1.0, RUNS as f64) as usize }
    }

    /// Times the operation: the median of samples of several runs each.
    ///
    /// # Errors
    ///
    /// Too little memory, and failures of the backend.
    pub fn time(&mut self, b: &mut B, rows: usize, effort: Effort) -> Result<Timing> {
        let mut a = self.activations(b, rows)?;
        // warm-up: kernels are compiled and memory is touched
        let (mut start, mut runs) = (Instant::now(), 1);
        let mut samples = vec![self.sample(b, &mut a, runs)?];
        if start.elapsed() < effort.time {
            let seconds = self.sample(b, &mut a, runs)?;
            runs = self.runs(seconds);
            samples.clear();
            start = Instant::now();
            while samples.is_empty() || (samples.len() < effort.samples && start.elapsed() < effort.time) {
                samples.push(self.sample(b, &mut a, runs)?);
            }
        }
        samples.sort_unstable_by(f64::total_cmp);
        Ok(Timing { seconds: samples[samples.len() / 2], samples: samples.len(), runs })
    }

    /// Calls `with` with a function that runs the operation a number of times and returns the time of all runs.
    ///
    /// # Errors
    ///
    /// Those of [`time`](Self::time).
    pub fn clocked(
        &mut self,
        b: &mut B,
        rows: usize,
        with: impl FnOnce(&mut dyn FnMut(u64) -> Result<Duration>),
    ) -> Result<()> {
        let mut a = self.activations(b, rows)?;
        self.sample(b, &mut a, 1)?;
        let seconds = self.sample(b, &mut a, 1)?;
        let most = self.runs(seconds) as u64;
        with(&mut |runs| {
            let (mut seconds, mut left) = (0.0, runs);
            while left > 0 {
                let now = left.min(most);
                seconds += now as f64 * self.sample(b, &mut a, now as usize)?;
                left -= now;
            }
            Ok(Duration::from_secs_f64(seconds))
        });
        Ok(())
    }
}

const SAMPLE: Sampling = Sampling::Random { temperature: 0.8, top_k: 0, top_p: 0.95, min_p: 0.0, draw: 1 << 31 };

/// `rows` tokens, below `vocab`, of one sequence from position `first` on.
fn batch(heads: Heads, vocab: usize, first: usize, rows: usize) -> Result<Batch> {
    let pages: Vec<u32> = (0..(first + rows).div_ceil(PAGE) as u32).collect();
    let tokens: Vec<u32> = (0..rows).map(|row| ((row * 7919 + 1) % vocab) as u32).collect();
    let mut batch = Batch::of(&tokens, first, &pages)?;
    batch.rope_mut().extend([0.8f32, 0.6].iter().cycle().take(rows * heads.rotary_dim));
    Ok(batch)
}

/// A table whose rows fill activations of a width.
fn filling<B: Backend>(b: &mut B, width: usize) -> Result<B::Matrix> {
    let weight = weight(b.info(), "filling", DType::F16, (FILLING, width), &piece(DType::F16))?;
    Ok(b.matrix(&weight, Role::Embedding)?)
}

/// The pattern of a type: [`PIECE`] pseudo-random numbers, as bytes.
fn piece(dtype: DType) -> Vec<u8> {
    let mut state = 1u32;
    let values: Vec<f32> = (0..PIECE)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 * 0.1 - 0.05
        })
        .collect();
    quant::quantize(dtype, &values).unwrap_or_default()
}

/// A matrix that repeats a pattern, in memory of its own.
fn weight(
    device: &DeviceInfo,
    name: &str,
    dtype: DType,
    (rows, cols): (usize, usize),
    piece: &[u8],
) -> phi3_tensor::Result<Weight> {
    let len = dtype.bytes(cols).unwrap_or(0).saturating_mul(rows);
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|error| Error::OutOfMemory {
        device: device.name.clone(),
        what: name.to_owned(),
        bytes: len as u64,
        detail: format!(" ({error})"),
    })?;
    while bytes.len() < len && !piece.is_empty() {
        bytes.extend_from_slice(&piece[..piece.len().min(len - bytes.len())]);
    }
    Weight::new(name, dtype, rows, cols, Bytes::from(bytes))
}

/// Checks that `bytes` of memory are available, where the system reports it.
fn room(device: &DeviceInfo, what: &str, bytes: u64) -> phi3_tensor::Result<()> {
    // a GPU's memory is not known; its data is in host memory first
    let available = match device.kind {
        DeviceKind::Gpu => system_memory::of_computer(),
        _ => system_memory::available(device),
    };
    match available {
        Some(available) if bytes > available => Err(Error::OutOfMemory {
            device: device.name.clone(),
            what: what.to_owned(),
            bytes,
            detail: format!("; {available} are available"),
        }),
        _ => Ok(()),
    }
}
