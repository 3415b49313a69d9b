//! Cases of every operation, and the comparison of a backend with the [reference](crate::reference).
//!
//! A backend's test is one call of [`run`]. No two sizes of a case are equal, and every operation has sizes that are no
//! multiple of any vector, tile or page.

use crate::reference::Reference;
use crate::{
    Activation, Backend, Batch, BlockSparse, Bytes, DType, Epilogue, Heads, KvType, Mask, Norm, PAGE, Result, Role,
    Router, Store, TOP_EXPERTS, Weight, quant,
};
use std::cell::RefCell;
use std::collections::HashMap;

/// What a case gave.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Operation, type and shape.
    pub case: String,
    /// Largest difference from the reference.
    pub difference: f64,
    /// What rounding in f32 may account for.
    pub allowed: f64,
}

impl Outcome {
    /// Whether the difference is allowed; a NaN never is.
    pub fn ok(&self) -> bool {
        self.difference <= self.allowed
    }
}

/// A small generator of repeatable numbers (splitmix64).
#[derive(Clone)]
pub struct Random(pub u64);

/// Elements of a matrix that is not kept.
const MANY: usize = 1 << 20;

/// A generator's state, a type, elements and their scale.
type Key = (u64, DType, usize, u32);

thread_local! {
    /// What was quantized: it takes longer than what the cases try, and they take the same again.
    static MADE: RefCell<HashMap<Key, Vec<u8>>> = RefCell::new(HashMap::new());
}

impl Random {
    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next number of `-1.0 .. 1.0`.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// `len` numbers of `-scale .. scale`.
    pub fn vector(&mut self, len: usize, scale: f32) -> Vec<f32> {
        (0..len).map(|_| self.unit() * scale).collect()
    }

    /// A matrix of the given type; `cols` is a whole number of its blocks.
    pub fn weight(&mut self, name: &str, dtype: DType, rows: usize, cols: usize, scale: f32) -> Weight {
        let key = (self.0, dtype, rows * cols, scale.to_bits());
        let values = self.vector(rows * cols, scale);
        let make = || quant::quantize(dtype, &values).unwrap_or_default();
        let bytes = MADE.with_borrow_mut(|made| match values.len() {
            ..=MANY => made.entry(key).or_insert_with(make).clone(),
            _ => make(),
        });
        Weight::new(name, dtype, rows, cols, Bytes::from(bytes)).unwrap_or_else(|e| unreachable!("{e}"))
    }
}

/// Runs every case on a machine and on the reference, but those of the types in `without`: the ones that the machine has
/// no kernels for yet.
pub fn run<B: Backend>(machine: &mut B, without: &[DType]) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for dtype in DType::ALL.into_iter().filter(|dtype| !without.contains(dtype)) {
        projections(machine, dtype, &mut outcomes)?;
        attentions(machine, dtype, &mut outcomes)?;
        experts(machine, dtype, &mut outcomes)?;
    }
    caches(machine, &mut outcomes)?;
    blocks(machine, &mut outcomes)?;
    Ok(outcomes)
}

fn largest(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(&a, &b)| (f64::from(a) - f64::from(b)).abs())
        .fold(0.0, |m, d| if d > m || d.is_nan() { d } else { m })
}

fn magnitude(a: &[f32]) -> f64 {
    a.iter().map(|&a| f64::from(a).abs()).fold(0.0, f64::max)
}

/// Rounding of a sum of `terms` products whose result is about `size`.
fn allowed(terms: usize, size: f64) -> f64 {
    4.0 * f64::from(f32::EPSILON) * (terms as f64).sqrt() * (size + 1.0)
}

/// The largest step between neighbouring numbers of a type of cache, relative to the largest number of a block.
pub fn kv_step(kv: KvType) -> f64 {
    match kv {
        KvType::F32 => 0.0,
        KvType::F16 => 1.0 / 1024.0,
        KvType::Q8_0 => 1.0 / 127.0,
    }
}

fn mean(a: &[f32], b: &[f32]) -> f64 {
    let sum: f64 = a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).abs()).sum();
    sum / a.len().max(1) as f64
}

fn flat(tokens: &[u32], outputs: &[u32]) -> Result<Batch> {
    let pages: Vec<u32> = (0..tokens.len().div_ceil(PAGE) as u32).collect();
    let mut batch = Batch::of(tokens, 0, &pages)?;
    outputs.iter().try_for_each(|row| batch.push_output(*row as usize))?;
    Ok(batch)
}

/// Norms of a projection.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Normed {
    No,
    Rms,
    Layer,
}

/// embed, norm, project and select, over types, shapes and epilogues.
fn projections<B: Backend>(machine: &mut B, dtype: DType, outcomes: &mut Vec<Outcome>) -> Result<()> {
    // (rows, inputs, outputs): decode, a few rows, a tile and a bit, larger than a tile each way
    let shapes =
        [(1, 48usize, 20), (1, 1027, 37), (3, 96, 10), (5, 131, 70), (33, 65, 129), (70, 200, 36), (130, 40, 2)];
    for (rows, inputs, outputs) in shapes {
        // a quantized row is whole blocks
        let inputs = inputs.next_multiple_of(dtype.block().0);
        let mut plans = Vec::new();
        for epilogue in [Epilogue::OVERWRITE, Epilogue::ACCUMULATE, Epilogue::of(Activation::SwiGlu)] {
            for norm in [Normed::Rms, Normed::No] {
                // what does not depend on the type is tested with the plain ones; quantized weights take long to make
                if dtype.is_quantized()
                    && (rows % 4 != 1 || (norm == Normed::Rms) == (epilogue == Epilogue::ACCUMULATE))
                {
                    continue;
                }
                plans.push((epilogue, norm, false));
            }
        }
        if dtype == DType::F32 && [1, 5, 70].contains(&rows) {
            let epilogues = Activation::ALL.map(|activation| Epilogue { scale: 0.75, ..Epilogue::of(activation) });
            plans.extend(epilogues.map(|epilogue| (epilogue, Normed::Layer, true)));
            let gated = Epilogue { store: Store::Accumulate, ..Epilogue::of(Activation::SwiGlu) };
            plans.push((gated, Normed::Rms, true));
        } else if rows == 5 {
            plans.push((Epilogue::of(Activation::SwiGlu), Normed::Rms, true));
            plans.push((Epilogue::ACCUMULATE, Normed::Layer, true));
        }
        for (epilogue, norm, bias) in plans {
            let case =
                format!("project {dtype} [{rows}, {inputs}] x [{outputs}, {inputs}] {epilogue:?} {norm:?} bias {bias}");
            let plan = Projection { dtype, rows, inputs, outputs, epilogue, norm, bias };
            let want = plan.run(&mut Reference::default())?;
            let got = plan.run(machine)?;
            for (part, want, got) in [("y", &want.0, &got.0), ("embed", &want.1, &got.1), ("norm", &want.2, &got.2)] {
                let allowed = allowed(inputs, magnitude(want));
                let difference = largest(want, got);
                outcomes.push(Outcome { case: format!("{case}: {part}"), difference, allowed });
            }
        }
    }
    Ok(())
}

struct Projection {
    dtype: DType,
    rows: usize,
    inputs: usize,
    outputs: usize,
    epilogue: Epilogue,
    norm: Normed,
    bias: bool,
}

impl Projection {
    fn run<B: Backend>(&self, b: &mut B) -> Result<(Vec<f32>, Vec<f32>, Vec<f32>)> {
        let Self { dtype, rows, inputs, outputs, epilogue, norm, bias } = *self;
        let mut random = Random(inputs as u64 * 1000 + outputs as u64);
        let vocab = rows + 7;
        let table = b.matrix(&random.weight("table", dtype, vocab, inputs, 2.0), Role::Plain)?;
        let gain = b.vector("norm", &random.vector(inputs, 1.5))?;
        let shift = b.vector("norm", &random.vector(inputs, 0.7))?;
        let first = b.matrix(&random.weight("first", dtype, outputs, inputs, 1.0), Role::Plain)?;
        let gated = epilogue.activation.is_gated();
        let role = if gated { Role::GateUp } else { Role::Plain };
        let rows_of_second = if gated { 2 * outputs } else { outputs };
        let mut second = random.weight("second", dtype, rows_of_second, inputs, 0.2);
        if bias {
            second = second.with_bias(random.vector(rows_of_second, 2.0))?;
        }
        let second = b.matrix(&second, role)?;
        let width = outputs;
        let capacity = rows + 3;
        let mut x = b.rows("x", capacity, inputs)?;
        let mut normed = b.rows("normed", capacity, inputs)?;
        let mut y = b.rows("y", capacity, width)?;
        let mut chosen = b.rows("chosen", capacity, width)?;

        let outputs: Vec<u32> = (0..rows as u32).filter(|r| r % 3 != 1).collect();
        let tokens: Vec<u32> = (0..rows).map(|_| (random.bits() % vocab as u64) as u32).collect();
        b.begin(&flat(&tokens, &outputs)?)?;
        b.embed(&table, 0.5, &mut x)?;
        let rms = Norm::Rms { weight: &gain, eps: 3e-3 };
        let norm = match norm {
            Normed::No => None,
            Normed::Rms => Some(rms),
            Normed::Layer => Some(Norm::Layer { weight: &gain, bias: &shift, eps: 3e-3 }),
        };
        b.norm(&x, norm.unwrap_or(rms), &mut normed)?;
        b.project(&x, Some(rms), &first, Epilogue::OVERWRITE, &mut y)?;
        b.project(&x, norm, &second, epilogue, &mut y)?;
        let mut hidden = vec![0.0; rows * inputs];
        b.read(&x, &mut hidden)?;
        let mut after = vec![0.0; rows * inputs];
        b.read(&normed, &mut after)?;
        b.select(&y, 0, outputs.len(), &mut chosen)?;
        let mut out = vec![0.0; outputs.len() * width];
        b.read(&chosen, &mut out)?;
        Ok((out, hidden, after))
    }
}

/// Narrow and wide heads, some no multiple of a vector or of a block of a quantized cache.
const HEADS: [Heads; 6] = [
    Heads { heads: 3, kv_heads: 3, head_dim: 8, rotary_dim: 8 },
    Heads { heads: 6, kv_heads: 2, head_dim: 10, rotary_dim: 6 },
    Heads { heads: 4, kv_heads: 1, head_dim: 96, rotary_dim: 96 },
    Heads { heads: 2, kv_heads: 2, head_dim: 128, rotary_dim: 96 },
    Heads { heads: 5, kv_heads: 5, head_dim: 14, rotary_dim: 14 },
    Heads { heads: 3, kv_heads: 3, head_dim: 16, rotary_dim: 0 },
];

/// project_qkv and attention: ragged batches, chunks, decode, grouped heads, partial rotation, windows. The types take
/// turns with the heads.
fn attentions<B: Backend>(machine: &mut B, dtype: DType, outcomes: &mut Vec<Outcome>) -> Result<()> {
    let turn = DType::ALL.iter().position(|&other| other == dtype).unwrap_or(0);
    for (_, heads) in HEADS.into_iter().enumerate().filter(|(i, _)| i % 3 == turn % 3) {
        for mask in [Mask::Causal, Mask::Window(1), Mask::Window(15), Mask::Window(33), Mask::Full] {
            for chunk in [usize::MAX, 7] {
                if dtype.is_quantized() && (mask, chunk) != (Mask::Causal, 7) {
                    continue;
                }
                let plan = Attention { dtype, heads, kv: KvType::F32, mask, chunk };
                let (want, got) = (plan.run(&mut Reference::default())?, plan.run(machine)?);
                let case = format!("attention {dtype} {heads:?} {mask:?} chunk {chunk}");
                // softmax moves by the scores' rounding, which grows with the head's width
                let allowed = 4.0 * allowed(heads.head_dim + 77, magnitude(&want));
                outcomes.push(Outcome { case, difference: largest(&want, &got), allowed });
            }
        }
    }
    Ok(())
}

/// Attention over blocks, of a page, of less and of more, for heads in groups.
fn blocks<B: Backend>(machine: &mut B, outcomes: &mut Vec<Outcome>) -> Result<()> {
    let grouped = Heads { heads: 6, kv_heads: 2, head_dim: 20, rotary_dim: 12 };
    let alone = Heads { heads: 3, kv_heads: 3, head_dim: 34, rotary_dim: 34 };
    for (heads, block, local, stride, head_step) in
        [(grouped, 16, 1, 3, 1), (grouped, 8, 2, 4, 1), (alone, 32, 1, 2, 0), (alone, 3, 4, 5, 2)]
    {
        let mask = Mask::Blocks(BlockSparse { block, local, stride, head_step });
        for (kv, chunk) in [(KvType::F32, usize::MAX), (KvType::F32, 7), (KvType::F16, 9)] {
            let plan = Attention { dtype: DType::F32, heads, kv, mask, chunk };
            let (want, got) = (plan.run(&mut Reference::default())?, plan.run(machine)?);
            let case = format!("attention {kv} {heads:?} {mask:?} chunk {chunk}");
            let allowed = 4.0 * (allowed(heads.head_dim + 77, magnitude(&want)) + kv_step(kv) * magnitude(&want));
            outcomes.push(Outcome { case, difference: largest(&want, &got), allowed });
        }
    }
    Ok(())
}

/// Rows through their experts, one row to many, of sizes that no tile divides.
fn experts<B: Backend>(machine: &mut B, dtype: DType, outcomes: &mut Vec<Outcome>) -> Result<()> {
    // quantized weights take long to make, and are kept while count and sizes are the same
    let cases: &[(usize, usize)] =
        if dtype.is_quantized() { &[(1, 2), (11, 2)] } else { &[(1, 5), (6, 3), (9, 7), (75, 5)] };
    for &(rows, count) in cases {
        let hidden = 50usize.next_multiple_of(dtype.block().0);
        let inner = if dtype.is_quantized() { dtype.block().0 } else { 35 };
        let plan = Mixture { dtype, rows, count, hidden, inner };
        let (want, got) = (plan.run(&mut Reference::default())?, plan.run(machine)?);
        let case = format!("experts {dtype} {rows} rows to {count} experts, {hidden}, {inner}");
        let allowed = 4.0 * allowed(hidden + inner, magnitude(&want));
        outcomes.push(Outcome { case, difference: largest(&want, &got), allowed });
    }
    Ok(())
}

struct Mixture {
    dtype: DType,
    rows: usize,
    count: usize,
    hidden: usize,
    inner: usize,
}

impl Mixture {
    fn run<B: Backend>(&self, b: &mut B) -> Result<Vec<f32>> {
        let Self { dtype, rows, count, hidden, inner } = *self;
        let (mut random, vocab) = (Random(count as u64), 78);
        let table = b.matrix(&random.weight("table", DType::F32, vocab, hidden, 2.0), Role::Plain)?;
        // scores far enough apart that rounding changes no route
        let router = b.matrix(&random.weight("router", DType::F32, count, hidden, 2.0), Role::Plain)?;
        let up = random.weight("up", dtype, count * 2 * inner, hidden, 0.2);
        let up = b.matrix(&up, Role::Experts { count, gated: true })?;
        let down = random.weight("down", dtype, count * hidden, inner, 0.2);
        let down = b.matrix(&down, Role::Experts { count, gated: false })?;
        let mut x = b.rows("x", rows, hidden)?;
        let mut y = b.rows("y", rows, hidden)?;
        let mut scores = b.rows("scores", rows, count)?;
        let mut activated = b.rows("activated", TOP_EXPERTS * rows, inner)?;
        let mut routes = b.routes(rows, count)?;
        let tokens: Vec<u32> = (0..rows).map(|_| (random.bits() % vocab as u64) as u32).collect();
        b.begin(&flat(&tokens, &[])?)?;
        b.embed(&table, 1.0, &mut x)?;
        b.embed(&table, 0.25, &mut y)?;
        b.project(&x, None, &router, Epilogue::OVERWRITE, &mut scores)?;
        b.route(&scores, Router::SparseMixer { jitter: 0.01 }, &mut routes)?;
        b.project_experts(&x, &up, Activation::SwiGlu, &routes, &mut activated)?;
        b.combine_experts(&activated, &down, &routes, &mut y)?;
        let mut out = vec![0.0; rows * hidden];
        b.read(&y, &mut out)?;
        Ok(out)
    }
}

/// Attention over the types of cache that round.
///
/// A machine's keys and values differ from the reference's by rounding in f32, so that of a number about half way between
/// two that the type has, either may be taken: a difference may be as large as a step of the type, but only few are.
fn caches<B: Backend>(machine: &mut B, outcomes: &mut Vec<Outcome>) -> Result<()> {
    let narrow = Heads { heads: 4, kv_heads: 2, head_dim: 34, rotary_dim: 34 };
    for kv in [KvType::F16, KvType::Q8_0] {
        for heads in HEADS.into_iter().chain([narrow]) {
            for (mask, chunk) in [(Mask::Causal, 7), (Mask::Window(33), usize::MAX), (Mask::Full, usize::MAX)] {
                let plan = Attention { dtype: DType::F32, heads, kv, mask, chunk };
                let (want, got) = (plan.run(&mut Reference::default())?, plan.run(machine)?);
                let case = format!("attention {kv} {heads:?} {mask:?} chunk {chunk}");
                let exact = 4.0 * allowed(heads.head_dim + 77, magnitude(&want));
                let step = 4.0 * kv_step(kv) * magnitude(&want);
                let most = Outcome { case, difference: largest(&want, &got), allowed: exact + step };
                let case = format!("{}: mean", most.case);
                let mean = Outcome { case, difference: mean(&want, &got), allowed: exact + step / 100.0 };
                outcomes.extend([most, mean]);
            }
        }
    }
    Ok(())
}

struct Attention {
    dtype: DType,
    heads: Heads,
    kv: KvType,
    mask: Mask,
    chunk: usize,
}

impl Attention {
    /// Three sequences of 3, 45 and 77 tokens, by chunks, then two decoded tokens each; page ids are scattered.
    fn run<B: Backend>(&self, b: &mut B) -> Result<Vec<f32>> {
        let Self { dtype, heads, kv, mask, chunk } = *self;
        let mut random = Random(heads.head_dim as u64);
        let (hidden, layers, vocab) = (52usize.next_multiple_of(dtype.block().0), 2, 61);
        let table = b.matrix(&random.weight("table", dtype, vocab, hidden, 2.0), Role::Plain)?;
        let norm = b.vector("norm", &random.vector(hidden, 1.5))?;
        // the second layer has a bias, no norm, and values of another type
        let values_at = heads.q_dim() + heads.kv_dim();
        let whole = b.matrix(&random.weight("qkv", dtype, heads.qkv_dim(), hidden, 0.3), Role::Qkv(heads))?;
        let part = random.weight("qk", dtype, values_at, hidden, 0.3).with_bias(random.vector(values_at, 0.5))?;
        let queries_and_keys = b.matrix(&part, Role::QkvPart(heads, 0))?;
        let part = random.weight("v", DType::F16, heads.kv_dim(), hidden, 0.3);
        let values = b.matrix(&part.with_bias(random.vector(heads.kv_dim(), 0.5))?, Role::QkvPart(heads, values_at))?;
        let lengths = [3usize, 45, 77];
        let total: usize = lengths.iter().sum();
        let mut x = b.rows("x", total, hidden)?;
        let mut q = b.rows("q", total, heads.q_dim())?;
        let mut out = b.rows("out", total, heads.q_dim())?;
        let mut cache = b.cache(layers, heads, kv)?;

        let mut held = [0usize; 3];
        let mut pages: [Vec<u32>; 3] = Default::default();
        let mut next_page = 0;
        let mut all = Vec::new();
        loop {
            let mut batch = Batch::default();
            for s in 0..3 {
                let want = if held[s] < lengths[s] { chunk.min(lengths[s] - held[s]) } else { 1 };
                let position = held[s];
                held[s] += want;
                for position in position..held[s] {
                    for i in 0..heads.rotary_dim / 2 {
                        let angle = position as f64 / 50f64.powf(2.0 * i as f64 / heads.rotary_dim as f64);
                        batch.rope_mut().extend([(angle.cos() * 1.19) as f32, (angle.sin() * 1.19) as f32]);
                    }
                }
                let tokens: Vec<u32> = (0..want).map(|_| (random.bits() % vocab as u64) as u32).collect();
                while pages[s].len() * PAGE < held[s] {
                    pages[s].push(next_page * 7 % 23);
                    next_page += 1;
                }
                let mut pages = pages[s].clone();
                if let Some(window) = mask.window() {
                    // a page before the window of the segment's first row is never looked at
                    pages[..(position + 1).saturating_sub(window) / PAGE].fill(Batch::NO_PAGE);
                }
                batch.push(&tokens, position, &pages)?;
            }
            b.reserve(&mut cache, 23)?;
            b.begin(&batch)?;
            b.embed(&table, 1.0, &mut x)?;
            // the last two rows come from the host
            let first = batch.rows() - 2;
            b.write(&mut x, first, &random.vector(2 * hidden, 2.0))?;
            let norm = Norm::Rms { weight: &norm, eps: 1e-3 };
            let scale = 0.7 / (heads.head_dim as f32).sqrt();
            let weights: [&[&B::Matrix]; 2] = [&[&whole], &[&queries_and_keys, &values]];
            for (layer, weights) in weights.into_iter().enumerate() {
                b.project_qkv(&x, (layer == 0).then_some(norm), weights, &mut q, &mut cache, layer)?;
                b.attention(&q, &cache, layer, mask, scale, &mut out)?;
                let at = all.len();
                all.resize(at + batch.rows() * heads.q_dim(), 0.0);
                b.read(&out, &mut all[at..])?;
            }
            if (0..3).all(|s| held[s] >= lengths[s] + 2) {
                return Ok(all);
            }
        }
    }
}
