//! Every operation of a Phi-3-mini layer at its real shapes, on the CPU and on a GPU if there is one: for one decoded token
//! and for a chunk of a prompt. Throughput is in bytes of weights or cache that must be read.
//!
//! `cargo bench -- CPU/decode` picks some. PHI3_ADAPTER names a GPU; a software one is measured too, and says so.

#![allow(missing_docs, reason = "the macro of criterion makes public functions")]

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use phi3_tensor::cpu::Cpu;
use phi3_tensor::gpu::{Gpu, Options, Select};
use phi3_tensor::parity::Random;
use phi3_tensor::{Backend, Batch, DType, Finish, Heads, KvType, Mask, Norm, PAGE, Result, Role, Segment};
use std::time::Duration;

const HIDDEN: usize = 3072;
const FEED_FORWARD: usize = 8192;
const HEADS: Heads = Heads { heads: 32, kv_heads: 32, head_dim: 96, rotary_dim: 96 };
const CONTEXT: usize = 1024;

/// `rows` new tokens of one sequence, the last of `CONTEXT`.
fn batch(rows: usize) -> Batch {
    let position = CONTEXT - rows;
    Batch {
        tokens: vec![1; rows],
        positions: (position..CONTEXT).map(|p| p as u32).collect(),
        segments: vec![Segment { rows: 0..rows, position, pages: 0..CONTEXT / PAGE }],
        pages: (0..CONTEXT / PAGE).map(|page| page as u32).collect(),
        rope: vec![0.5; rows * HEADS.rotary_dim],
        outputs: Vec::new(),
    }
}

fn layer<B: Backend>(group: &mut BenchmarkGroup<'_, WallTime>, b: &mut B, rows: usize) -> Result<()> {
    let mut random = Random(1);
    let dtype = DType::Bf16;
    let mut weight = |b: &mut B, n, k, role| b.matrix(&random.weight("w", dtype, n, k, 0.02), role);
    let qkv = weight(b, HEADS.qkv_dim(), HIDDEN, Role::Qkv(HEADS))?;
    let o = weight(b, HIDDEN, HIDDEN, Role::Plain)?;
    let gate_up = weight(b, 2 * FEED_FORWARD, HIDDEN, Role::GateUp)?;
    let down = weight(b, HIDDEN, FEED_FORWARD, Role::Plain)?;
    let ones = b.vector("norm", &vec![1.0; HIDDEN])?;
    let mut x = b.rows("x", rows, HIDDEN)?;
    let mut q = b.rows("q", rows, HIDDEN)?;
    let mut mixed = b.rows("mixed", rows, HIDDEN)?;
    let mut gated = b.rows("gated", rows, FEED_FORWARD)?;
    let mut cache = b.cache(1, HEADS, KvType::F32)?;
    b.reserve(&mut cache, CONTEXT / PAGE)?;
    let batch = batch(rows);
    let mask = Mask { window: None, scale: 0.1 };
    let mut one = [0.0; 1];

    let bytes = |n: usize, k: usize| Throughput::Bytes((n * k * 2) as u64);
    group.throughput(bytes(HEADS.qkv_dim(), HIDDEN));
    group.bench_function(format!("project_qkv/{rows}"), |bench| {
        bench.iter(|| -> Result<()> {
            b.begin(&batch)?;
            b.project_qkv(&x, Norm { weight: &ones, eps: 1e-5 }, &qkv, &mut q, &mut cache, 0)?;
            b.read(&q, &mut one)
        });
    });
    group.throughput(Throughput::Bytes((CONTEXT * HEADS.kv_dim() * 2 * 4) as u64));
    group.bench_function(format!("attention/{rows}"), |bench| {
        bench.iter(|| -> Result<()> {
            b.begin(&batch)?;
            b.attention(&q, &cache, 0, mask, &mut mixed)?;
            b.read(&mixed, &mut one)
        });
    });
    group.throughput(bytes(HIDDEN, HIDDEN));
    group.bench_function(format!("project o/{rows}"), |bench| {
        bench.iter(|| -> Result<()> {
            b.begin(&batch)?;
            b.project(&mixed, None, &o, Finish::Add, &mut x)?;
            b.read(&x, &mut one)
        });
    });
    group.throughput(bytes(2 * FEED_FORWARD, HIDDEN));
    group.bench_function(format!("project gate_up/{rows}"), |bench| {
        bench.iter(|| -> Result<()> {
            b.begin(&batch)?;
            let norm = Some(Norm { weight: &ones, eps: 1e-5 });
            b.project(&x, norm, &gate_up, Finish::SiluGate, &mut gated)?;
            b.read(&gated, &mut one)
        });
    });
    group.throughput(bytes(HIDDEN, FEED_FORWARD));
    group.bench_function(format!("project down/{rows}"), |bench| {
        bench.iter(|| -> Result<()> {
            b.begin(&batch)?;
            b.project(&gated, None, &down, Finish::Replace, &mut mixed)?;
            b.read(&mixed, &mut one)
        });
    });
    Ok(())
}

fn machine<B: Backend>(criterion: &mut Criterion, name: &str, mut backend: B) {
    println!("{name}: {}", backend.info());
    for (kind, rows) in [("decode", 1), ("prompt", 64)] {
        let mut group = criterion.benchmark_group(format!("{name}/{kind}"));
        group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
        if let Err(error) = layer(&mut group, &mut backend, rows) {
            println!("{name}/{kind}: {error}");
        }
        group.finish();
    }
}

/// What this machine's memory gives when it is only read, by as many threads: the measure of the decode rows.
fn plain_read(criterion: &mut Criterion) {
    let words = vec![1u64; 64 << 20];
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut group = criterion.benchmark_group("memory");
    group.sample_size(10).throughput(Throughput::Bytes(8 * words.len() as u64));
    group.bench_function("plain read", |bench| {
        bench.iter(|| {
            std::thread::scope(|scope| {
                for part in words.chunks(words.len().div_ceil(threads)) {
                    scope.spawn(|| std::hint::black_box(part.iter().fold(0, |sum, word| sum ^ word)));
                }
            });
        });
    });
    group.finish();
}

fn operations(criterion: &mut Criterion) {
    plain_read(criterion);
    match Cpu::new(phi3_tensor::cpu::Options::default()) {
        Ok(cpu) => machine(criterion, "CPU", cpu),
        Err(error) => println!("CPU left out: {error}"),
    }
    let select = std::env::var("PHI3_ADAPTER").map_or(Select::Any, Select::Name);
    match Gpu::open(&select, &Options { software: true, ..Options::default() }) {
        Ok(gpu) => machine(criterion, "GPU", gpu),
        Err(error) => println!("GPU left out: {error}"),
    }
}

criterion_group!(benches, operations);
criterion_main!(benches);
