//! Bits of a row on a GPU: the same alone and among others, whatever the other rows of the pass are. A prompt has the same bits in
//! chunks of any length.
//!
//! Without an adapter the tests print a line and pass, unless PHI3_GPU=require is set.
#![cfg(feature = "gpu")]

use phi3_tensor::gpu::{Cache, Gpu, Matrix, Options, Rows, Select, Tier};
use phi3_tensor::ops::*;
use phi3_tensor::parity::Random;
use phi3_tensor::{
    Activation, Batch, BlockSparse, DType, Epilogue, Error, Heads, KvType, Mask, Norm, PAGE, Phase, Role, Router,
    TOP_EXPERTS,
};
use std::ops::Range;

/// The adapter that PHI3_ADAPTER names, or the best, with every tier of kernels that it can run, or that of PHI3_TIER, and every
/// precision of prompts.
fn every_gpu() -> Vec<Gpu> {
    let select = std::env::var("PHI3_ADAPTER").map_or(Select::Any, Select::Name);
    let of = |(tier, exact)| {
        let options = Options { software: true, tier: Some(tier), exact, ..Options::default() };
        match Gpu::open(&select, &options) {
            Ok(gpu) => Some(gpu),
            Err(error @ Error::NoAdapter { .. }) if std::env::var("PHI3_GPU").as_deref() == Ok("require") => {
                panic!("{error}")
            }
            Err(error @ Error::Tier { .. }) if std::env::var("PHI3_TIER").is_ok() => panic!("{error}"),
            Err(error) => {
                println!("skipped: {error}");
                None
            }
        }
    };
    let only = std::env::var("PHI3_TIER").ok();
    let all = Tier::ALL.into_iter().map(|tier| (tier, false)).chain([(Tier::Coop, true)]);
    all.filter(|(tier, _)| only.as_ref().is_none_or(|only| tier.name() == only)).filter_map(of).collect()
}

/// Rows of as many sequences, the first of them new tokens and the others of a prompt.
fn rows_of(phases: &[(Phase, usize)]) -> Batch {
    let mut batch = Batch::default();
    for (phase, rows) in phases {
        for _ in 0..*rows {
            batch.push_as(*phase, &[0], 0, &[batch.rows() as u32]).unwrap();
        }
    }
    batch
}

/// Compares rows alone with rows among others: `run` computes these rows in a pass of these phases.
fn compare(what: &str, width: usize, mut run: impl FnMut(Range<usize>, &[(Phase, usize)]) -> Vec<f32>) {
    use Phase::{Decode, Prompt};
    const ROWS: usize = 70;
    let decode: Vec<f32> = (0..ROWS).flat_map(|row| run(row..row + 1, &[(Decode, 1)])).collect();
    let prompt: Vec<f32> = (0..ROWS).flat_map(|row| run(row..row + 1, &[(Prompt, 1)])).collect();
    assert!(decode.iter().chain(&prompt).all(|value| value.is_finite()), "{what}");
    for phases in [
        &[(Decode, 2)][..],
        &[(Decode, 7)],
        &[(Decode, 8), (Prompt, 1)],
        &[(Decode, 9), (Prompt, 8)],
        &[(Decode, 64)],
        &[(Decode, 1), (Prompt, 69)],
        &[(Decode, 17), (Prompt, 40)],
        &[(Prompt, 3)],
        &[(Prompt, 33)],
        &[(Prompt, 5), (Decode, 3), (Prompt, 34), (Decode, 20)],
    ] {
        let rows: usize = phases.iter().map(|(_, rows)| rows).sum();
        let got = run(0..rows, phases);
        let of_rows = phases.iter().flat_map(|(phase, rows)| std::iter::repeat_n(*phase, *rows));
        for (row, phase) in of_rows.enumerate() {
            let want = if phase == Decode { &decode } else { &prompt };
            let cells = row * width..(row + 1) * width;
            assert_eq!(got[cells.clone()], want[cells], "{what}: row {row} of {phases:?}");
        }
    }
}

#[test]
fn a_product_of_a_row_has_the_same_bits_among_others() {
    const N: usize = 36;
    const K: usize = 512;
    for mut gpu in every_gpu() {
        let gain = gpu.vector("gain", &Random(4).vector(K, 1.5)).unwrap();
        let values = Random(5).vector(70 * K, 1.0);
        let (mut x, mut y) = (gpu.rows("x", 70, K).unwrap(), gpu.rows("y", 70, N).unwrap());
        for (turn, dtype) in DType::ALL.into_iter().enumerate() {
            let mut weight = Random(3).weight("w", dtype, N, K, 0.1);
            // with and without what kernels compute before and after the product
            let norm = (turn % 2 == 0).then_some(Norm::Rms { weight: &gain, eps: 1e-5 });
            if turn % 3 == 0 {
                weight = weight.with_bias(Random(6).vector(N, 1.0)).unwrap();
            }
            let weight = gpu.matrix(&weight, Role::Plain).unwrap();
            let what = format!("{} {dtype}", gpu.tier().name());
            compare(&what, N, |rows, phases| {
                gpu.begin(&rows_of(phases)).unwrap();
                gpu.write(&mut x, 0, &values[rows.start * K..rows.end * K]).unwrap();
                gpu.project(&x, norm, &weight, Epilogue::of(Activation::GeluTanh), &mut y).unwrap();
                let mut out = vec![0.0; rows.len() * N];
                gpu.read(&y, &mut out).unwrap();
                out
            });
        }
    }
}

#[test]
fn experts_of_a_row_have_the_same_bits_among_others() {
    const COUNT: usize = 5;
    const HIDDEN: usize = 256;
    const INNER: usize = 32;
    for mut gpu in every_gpu() {
        for dtype in [DType::F32, DType::F16, DType::Q4_0] {
            let mut random = Random(7);
            let router = gpu.matrix(&random.weight("router", DType::F32, COUNT, HIDDEN, 1.0), Role::Plain).unwrap();
            let up = random.weight("up", dtype, COUNT * 2 * INNER, HIDDEN, 0.2);
            let up = gpu.matrix(&up, Role::Experts { count: COUNT, gated: true }).unwrap();
            let down = random.weight("down", dtype, COUNT * HIDDEN, INNER, 0.2);
            let down = gpu.matrix(&down, Role::Experts { count: COUNT, gated: false }).unwrap();
            let values = random.vector(70 * HIDDEN, 1.0);
            let (mut x, mut y) = (gpu.rows("x", 70, HIDDEN).unwrap(), gpu.rows("y", 70, HIDDEN).unwrap());
            let mut scores = gpu.rows("scores", 70, COUNT).unwrap();
            let mut inner = gpu.rows("inner", TOP_EXPERTS * 70, INNER).unwrap();
            let mut routes = gpu.routes(70, COUNT).unwrap();
            let what = format!("{} {dtype}", gpu.tier().name());
            compare(&what, HIDDEN, |rows, phases| {
                gpu.begin(&rows_of(phases)).unwrap();
                gpu.write(&mut x, 0, &values[rows.start * HIDDEN..rows.end * HIDDEN]).unwrap();
                gpu.write(&mut y, 0, &values[rows.start * HIDDEN..rows.end * HIDDEN]).unwrap();
                gpu.project(&x, None, &router, Epilogue::OVERWRITE, &mut scores).unwrap();
                gpu.route(&scores, Router::SparseMixer { jitter: 0.01 }, &mut routes).unwrap();
                gpu.project_experts(&x, &up, Activation::SwiGlu, &routes, &mut inner).unwrap();
                gpu.combine_experts(&inner, &down, &routes, &mut y).unwrap();
                let mut out = vec![0.0; rows.len() * HIDDEN];
                gpu.read(&y, &mut out).unwrap();
                out
            });
        }
    }
}

const HIDDEN: usize = 32;

/// Rows of a sequence.
#[derive(Clone, Debug)]
struct Chunk {
    phase: Phase,
    sequence: usize,
    positions: Range<usize>,
}

/// Queries, keys and values, and attention over sequences that are long and short.
struct Sequences {
    gpu: Gpu,
    heads: Heads,
    cache: Cache,
    qkv: Matrix,
    x: Rows,
    q: Rows,
    out: Rows,
}

impl Sequences {
    const COUNT: usize = 4;
    const LENGTH: usize = 1400;

    /// Sequences whose positions are all in the cache.
    fn new(mut gpu: Gpu, heads: Heads, kv: KvType) -> Self {
        let qkv = Random(5).weight("qkv", DType::F16, heads.qkv_dim(), HIDDEN, 0.3);
        let qkv = gpu.matrix(&qkv, Role::Qkv(heads)).unwrap();
        let (x, q) =
            (gpu.rows("x", Self::LENGTH, HIDDEN).unwrap(), gpu.rows("q", Self::LENGTH, heads.q_dim()).unwrap());
        let out = gpu.rows("out", Self::LENGTH, heads.q_dim()).unwrap();
        let mut cache = gpu.cache(1, heads, kv).unwrap();
        gpu.reserve(&mut cache, Self::COUNT * Self::LENGTH.div_ceil(PAGE)).unwrap();
        let mut sequences = Self { gpu, heads, cache, qkv, x, q, out };
        for sequence in 0..Self::COUNT {
            sequences.project(&[Chunk { phase: Phase::Prompt, sequence, positions: 0..Self::LENGTH }], usize::MAX);
        }
        sequences
    }

    fn project(&mut self, chunks: &[Chunk], window: usize) {
        let (mut batch, mut values) = (Batch::default(), Vec::new());
        for Chunk { phase, sequence, positions } in chunks {
            let page = |page: usize| (page * Self::COUNT + sequence) as u32;
            let mut pages: Vec<u32> = (0..positions.end.div_ceil(PAGE)).map(page).collect();
            pages[..(positions.start + 1).saturating_sub(window) / PAGE].fill(Batch::NO_PAGE);
            batch.push_as(*phase, &vec![0; positions.len()], positions.start, &pages).unwrap();
            for position in positions.clone() {
                let angles = (0..self.heads.rotary_dim / 2).map(|i| position as f32 / (i + 1) as f32);
                batch.rope_mut().extend(angles.flat_map(|angle| [angle.cos(), angle.sin()]));
                values.extend(Random((position * Self::COUNT + sequence) as u64 + 1).vector(HIDDEN, 2.0));
            }
        }
        self.gpu.begin(&batch).unwrap();
        self.gpu.write(&mut self.x, 0, &values).unwrap();
        self.gpu.project_qkv(&self.x, None, &[&self.qkv], &mut self.q, &mut self.cache, 0).unwrap();
    }

    /// Attention of each chunk, all in one pass.
    fn attend(&mut self, chunks: &[Chunk], mask: Mask) -> Vec<Vec<f32>> {
        self.project(chunks, mask.window().unwrap_or(usize::MAX));
        let scale = 1.0 / (self.heads.head_dim as f32).sqrt();
        self.gpu.attention(&self.q, &self.cache, 0, mask, scale, &mut self.out).unwrap();
        let rows: usize = chunks.iter().map(|chunk| chunk.positions.len()).sum();
        let mut out = vec![0.0; rows * self.heads.q_dim()];
        self.gpu.read(&self.out, &mut out).unwrap();
        let mut rest = &out[..];
        let of_chunk = |chunk: &Chunk| {
            let (out, others) = rest.split_at(chunk.positions.len() * self.heads.q_dim());
            rest = others;
            out.to_vec()
        };
        chunks.iter().map(of_chunk).collect()
    }
}

#[test]
fn attention_of_a_row_has_the_same_bits_among_others() {
    use Phase::{Decode, Prompt};
    let chunk = |phase, sequence, positions| Chunk { phase, sequence, positions };
    let narrow = Heads { heads: 4, kv_heads: 2, head_dim: 16, rotary_dim: 16 };
    // too wide for tiles
    let wide = Heads { heads: 2, kv_heads: 1, head_dim: 136, rotary_dim: 64 };
    let blocks = Mask::Blocks(BlockSparse { block: 32, local: 2, stride: 4, head_step: 1 });
    for (heads, kv) in [(narrow, KvType::F16), (narrow, KvType::Q8_0), (wide, KvType::F32)] {
        for gpu in every_gpu() {
            let tier = gpu.tier().name();
            let mut sequences = Sequences::new(gpu, heads, kv);
            for mask in [Mask::Causal, Mask::Window(77), Mask::Window(1100), blocks, Mask::Full] {
                // new tokens near and far, a prompt in chunks, and sequences whose last rows are computed again
                let prompts = [chunk(Prompt, 1, 1090..1151), chunk(Prompt, 2, 0..20), chunk(Prompt, 3, 517..520)];
                let others = [chunk(Decode, 0, 1300..1301), chunk(Decode, 1, 700..701), chunk(Decode, 3, 5..6)];
                let again = [chunk(Decode, 0, 600..612), chunk(Prompt, 2, 40..41), chunk(Decode, 3, 1290..1300)];
                for chunks in [&others[..], &prompts, &again, &[&others[..1], &prompts, &again[2..]].concat()] {
                    let alone: Vec<_> =
                        chunks.iter().flat_map(|chunk| sequences.attend(std::slice::from_ref(chunk), mask)).collect();
                    assert!(alone.iter().flatten().all(|value| value.is_finite()));
                    assert_eq!(sequences.attend(chunks, mask), alone, "{tier} {heads:?} {kv} {mask:?}: {chunks:?}");
                }
                if mask == Mask::Full {
                    continue;
                }
                for whole in [chunk(Prompt, 1, 1090..1151), chunk(Prompt, 2, 500..570), chunk(Decode, 0, 590..620)] {
                    let want = sequences.attend(std::slice::from_ref(&whole), mask).concat();
                    for length in [1, 7, 16, 37] {
                        let starts = whole.positions.clone().step_by(length);
                        let parts = starts.map(|start| start..(start + length).min(whole.positions.end));
                        let got: Vec<f32> = parts
                            .flat_map(|positions| {
                                sequences.attend(&[Chunk { positions, ..whole.clone() }], mask).concat()
                            })
                            .collect();
                        assert_eq!(got, want, "{tier} {heads:?} {kv} {mask:?}: {whole:?} in chunks of {length}");
                    }
                }
            }
        }
    }
}
