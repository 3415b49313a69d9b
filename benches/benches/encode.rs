//! Host time of a decoded token: the operations of Phi-3-mini's 32 layers, from `begin` to submission. The time until the token
//! is read back is printed separately.
//!
//! Runs on wgpu's noop device, then on a GPU if there is one; PHI3_ADAPTER names it. Matrices are small, because the time to
//! record a dispatch does not depend on their sizes, but each layer has its own.
//!
//! The noop device is measured twice: with warm caches, and with cold ones, for which other data is written before each token. A
//! software GPU displaces the caches in the same way.

use phi3_tensor::gpu::{Gpu, Matrix, Options, Rows, Select, Vector};
use phi3_tensor::ops::*;
use phi3_tensor::parity::Random;
use phi3_tensor::{
    Activation, Batch, DType, Epilogue, Heads, KvType, Mask, Norm, PAGE, Readback, Result, Role, Sampled, Samples,
};
use std::hint::black_box;
use std::time::{Duration, Instant};

const LAYERS: usize = 32;
const HIDDEN: usize = 64;
const FEED_FORWARD: usize = 96;
const VOCABULARY: usize = 256;
const HEADS: Heads = Heads { heads: 2, kv_heads: 2, head_dim: 32, rotary_dim: 32 };

/// Positions of the sequence before the first token. With all tokens it stays below 512, where attention is not split.
const PROMPT: usize = 64;
const WARM_UP: usize = 40;
const TOKENS: usize = 400;

/// Bytes written before a token to make the caches cold.
const OTHER_DATA: usize = 64 << 20;

struct Layer {
    input_norm: Vector,
    qkv: Matrix,
    o: Matrix,
    post_norm: Vector,
    gate_up: Matrix,
    down: Matrix,
}

struct Decoder {
    embedding: Matrix,
    layers: Vec<Layer>,
    norm: Vector,
    head: Matrix,
    cache: phi3_tensor::gpu::Cache,
    x: Rows,
    q: Rows,
    attn_out: Rows,
    mlp_hidden: Rows,
    logits: Rows,
}

impl Decoder {
    fn new(gpu: &mut Gpu) -> Result<Self> {
        let mut random = Random(1);
        let mut matrix = |gpu: &mut Gpu, n, k, role| gpu.matrix(&random.weight("w", DType::Q4_0, n, k, 0.02), role);
        let ones = |gpu: &mut Gpu| gpu.vector("norm", &[1.0; HIDDEN]);
        let mut layers = Vec::new();
        for _ in 0..LAYERS {
            layers.push(Layer {
                input_norm: ones(gpu)?,
                qkv: matrix(gpu, HEADS.qkv_dim(), HIDDEN, Role::Qkv(HEADS))?,
                o: matrix(gpu, HIDDEN, HEADS.q_dim(), Role::Plain)?,
                post_norm: ones(gpu)?,
                gate_up: matrix(gpu, 2 * FEED_FORWARD, HIDDEN, Role::GateUp)?,
                down: matrix(gpu, HIDDEN, FEED_FORWARD, Role::Plain)?,
            });
        }
        let mut cache = gpu.cache(LAYERS, HEADS, KvType::F16)?;
        gpu.reserve(&mut cache, (PROMPT + WARM_UP + TOKENS).div_ceil(PAGE))?;
        Ok(Self {
            embedding: matrix(gpu, VOCABULARY, HIDDEN, Role::Embedding)?,
            layers,
            norm: ones(gpu)?,
            head: matrix(gpu, VOCABULARY, HIDDEN, Role::Plain)?,
            cache,
            x: gpu.rows("x", 1, HIDDEN)?,
            q: gpu.rows("q", 1, HEADS.q_dim())?,
            attn_out: gpu.rows("attn_out", 1, HEADS.q_dim())?,
            mlp_hidden: gpu.rows("mlp_hidden", 1, FEED_FORWARD)?,
            logits: gpu.rows("logits", 1, VOCABULARY)?,
        })
    }

    /// Records a token and submits it.
    fn launch(&mut self, gpu: &mut Gpu, batch: &Batch) -> Result<Readback<Sampled>> {
        let Self { embedding, layers, norm, head, cache, x, q, attn_out, mlp_hidden, logits } = self;
        let scaled = |weight| Norm::Rms { weight, eps: 1e-5 };
        let mask = Mask::Window(2047);
        gpu.begin(batch)?;
        gpu.embed(embedding, 1.0, x)?;
        for (i, layer) in layers.iter().enumerate() {
            gpu.project_qkv(x, Some(scaled(&layer.input_norm)), &[&layer.qkv], q, cache, i)?;
            gpu.attention(q, cache, i, mask, 0.1, attn_out)?;
            gpu.project(attn_out, None, &layer.o, Epilogue::ACCUMULATE, x)?;
            gpu.project(
                x,
                Some(scaled(&layer.post_norm)),
                &layer.gate_up,
                Epilogue::of(Activation::SwiGlu),
                mlp_hidden,
            )?;
            gpu.project(mlp_hidden, None, &layer.down, Epilogue::ACCUMULATE, x)?;
        }
        gpu.project(x, Some(scaled(norm)), head, Epilogue::OVERWRITE, logits)?;
        gpu.sample(logits, &Samples::greedy(1))
    }
}

/// The token at a position of a sequence. The first is given, the others are sampled by the device.
fn batch(position: usize) -> Result<Batch> {
    let pages: Vec<u32> = (0..=(position / PAGE) as u32).collect();
    let token = if position == PROMPT { 1 } else { Batch::SAMPLED };
    let mut batch = Batch::of(&[token], position, &pages)?;
    batch.rope_mut().resize(HEADS.rotary_dim, 0.5);
    batch.push_output(0)?;
    Ok(batch)
}

fn median(times: &mut [Duration]) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e6
}

fn measure(name: &str, cold: bool, mut gpu: Gpu) -> Result<()> {
    println!("{name}: {}", gpu.info());
    let mut other = vec![0u64; if cold { OTHER_DATA / 8 } else { 0 }];
    let mut decoder = Decoder::new(&mut gpu)?;
    let (mut encoded, mut landed) = (Vec::new(), Vec::new());
    let mut before = gpu.counters();
    for token in 0..WARM_UP + TOKENS {
        let batch = batch(PROMPT + token)?;
        if token == WARM_UP {
            before = gpu.counters();
        }
        other.iter_mut().for_each(|word| *word += 1);
        black_box(&mut other);
        let start = Instant::now();
        let sampled = decoder.launch(&mut gpu, &batch)?;
        let submitted = start.elapsed();
        sampled.wait()?;
        if token >= WARM_UP {
            encoded.push(submitted);
            landed.push(start.elapsed());
        }
    }
    let after = gpu.counters();
    let dispatches = (after.dispatches - before.dispatches) as f64 / TOKENS as f64;
    let submits = (after.submits - before.submits) as f64 / TOKENS as f64;
    let middle = median(&mut encoded);
    println!("  {TOKENS} tokens, each {dispatches} dispatches and {submits} submits");
    println!("  until submitted: median {middle:.1} us a token, {:.2} us a dispatch", middle / dispatches);
    println!("  until submitted: minimum {:.1} us a token", encoded[0].as_secs_f64() * 1e6);
    println!("  until the token is back: median {:.1} us", median(&mut landed));
    Ok(())
}

fn main() {
    let select = std::env::var("PHI3_ADAPTER").map_or(Select::Any, Select::Name);
    let found = || Gpu::open(&select, &Options { software: true, ..Options::default() });
    let runs = [("noop", false, Gpu::noop()), ("noop, cold caches", true, Gpu::noop()), ("GPU", false, found())];
    for (name, cold, gpu) in runs {
        if let Err(error) = gpu.and_then(|gpu| measure(name, cold, gpu)) {
            println!("{name} left out: {error}");
        }
    }
}
