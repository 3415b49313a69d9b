//! The cases of the self-check, for any machine.

use super::{FAR, HEADS, HIDDEN, INNER, PAGES, VOCAB};
use crate::{
    Activation, Backend, Batch, BlockSparse, Bytes, DType, Epilogue, KvType, Mask, Norm, PAGE, Result, Role, Router,
    TOP_EXPERTS, Weight, quant,
};

/// What every operation gives with weights of a type: one row, a few, a tile; one row and a tile of a long text.
pub(super) fn results<B: Backend>(b: &mut B, dtype: DType) -> Result<Vec<(String, Vec<f32>)>> {
    let turn = DType::ALL.iter().position(|other| *other == dtype).unwrap_or(0);
    let Some((kv, heads)) = KvType::ALL.into_iter().zip(HEADS).nth(turn) else { return products(b, dtype) };
    let table = b.matrix(&weight(dtype, 1, VOCAB)?, Role::Plain)?;
    let qkv = b.matrix(&weight(dtype, 2, heads.qkv_dim())?, Role::Qkv(heads))?;
    let gates = b.matrix(&weight(dtype, 3, 2 * INNER)?, Role::GateUp)?;
    let plain = b.matrix(&weight(dtype, 4, INNER)?, Role::Plain)?;
    let gain = b.vector("gain", &numbers(5, HIDDEN))?;
    let norm = Norm::Rms { weight: &gain, eps: 1e-3 };
    let mut cache = b.cache(1, heads, kv)?;
    b.reserve(&mut cache, PAGES)?;
    // first every page is filled
    let filling: Vec<u32> = (0..PAGES * PAGE).map(|i| ((i % PAGE + 7 * (i / PAGE)) % VOCAB) as u32).collect();
    let mut all = b.rows("all", filling.len(), HIDDEN)?;
    let mut queries = b.rows("queries", filling.len(), heads.q_dim())?;
    b.begin(&batch(&filling, 0, heads.rotary_dim)?)?;
    b.embed(&table, 1.0, &mut all)?;
    b.project_qkv(&all, Some(norm), &[&qkv], &mut queries, &mut cache, 0)?;
    b.finish()?;
    let mut results = Vec::new();
    for (tokens, position) in [(20, 0), (3, 20), (20, 60), (1, 23), (1, FAR), (20, FAR)] {
        let mut x = b.rows("x", tokens, HIDDEN)?;
        let mut normed = b.rows("normed", tokens, HIDDEN)?;
        let mut q = b.rows("q", tokens, heads.q_dim())?;
        let mut mixed = b.rows("mixed", tokens, heads.q_dim())?;
        let mut gated = b.rows("gated", tokens, INNER)?;
        let mut chosen = b.rows("chosen", tokens, INNER)?;
        b.begin(&batch(&few(tokens), position, heads.rotary_dim)?)?;
        b.embed(&table, 1.0, &mut x)?;
        b.norm(&x, norm, &mut normed)?;
        b.project_qkv(&x, Some(norm), &[&qkv], &mut q, &mut cache, 0)?;
        // where large scores choose, their rounding does
        let scale = 0.3 / (heads.head_dim as f32).sqrt();
        b.attention(&q, &cache, 0, Mask::Causal, scale, &mut mixed)?;
        b.project(&x, Some(norm), &gates, Epilogue::of(Activation::SwiGlu), &mut gated)?;
        b.project(&normed, None, &plain, Epilogue::ACCUMULATE, &mut gated)?;
        b.select(&gated, 0, 1, &mut chosen)?;
        for (name, rows, dim) in
            [("embed", &x, HIDDEN), ("attention", &mixed, heads.q_dim()), ("project", &gated, INNER)]
        {
            let mut out = vec![0.0; tokens * dim];
            b.read(rows, &mut out)?;
            results.push((format!("{name} of {tokens} rows from {position} on, {kv} cache"), out));
        }
        let mut out = vec![0.0; INNER];
        b.read(&chosen, &mut out)?;
        results.push((format!("select of {tokens} rows"), out));
    }
    if turn == 0 {
        results.extend(biases(b)?);
        results.extend(experts(b)?);
        results.extend(blocks(b)?);
    }
    Ok(results)
}

/// LayerNorm, biases and every activation of one row; of a tile, whose kernels take long to compile, one activation.
fn biases<B: Backend>(b: &mut B) -> Result<Vec<(String, Vec<f32>)>> {
    let table = b.matrix(&weight(DType::F32, 1, VOCAB)?, Role::Embedding)?;
    let (gain, shift) = (b.vector("gain", &numbers(5, HIDDEN))?, b.vector("bias", &numbers(6, HIDDEN))?);
    let norm = Norm::Layer { weight: &gain, bias: &shift, eps: 1e-3 };
    let mut results = Vec::new();
    let cases = Activation::ALL.map(|activation| (activation, 1)).into_iter().chain([(Activation::QuickGelu, 20)]);
    for (activation, tokens) in cases {
        let role = if activation.is_gated() { Role::GateUp } else { Role::Plain };
        let biased = weight(DType::F32, 7, INNER)?.with_bias(numbers(8, INNER))?;
        let width = if activation.is_gated() { INNER / 2 } else { INNER };
        let matrix = b.matrix(&biased, role)?;
        let (mut x, mut y) = (b.rows("x", tokens, HIDDEN)?, b.rows("y", tokens, width)?);
        b.begin(&batch(&few(tokens), 0, 0)?)?;
        b.embed(&table, 0.5, &mut x)?;
        b.project(&x, Some(norm), &matrix, Epilogue { scale: 0.5, ..Epilogue::of(activation) }, &mut y)?;
        let mut out = vec![0.0; tokens * width];
        b.read(&y, &mut out)?;
        results.push((format!("project with bias and {activation:?} of {tokens} rows"), out));
    }
    Ok(results)
}

/// Routes and products of experts, of one row and of a tile.
fn experts<B: Backend>(b: &mut B) -> Result<Vec<(String, Vec<f32>)>> {
    const COUNT: usize = 4;
    let table = b.matrix(&weight(DType::F32, 1, VOCAB)?, Role::Embedding)?;
    let router = b.matrix(&weight(DType::F32, 9, COUNT)?, Role::Plain)?;
    let up = b.matrix(&weight(DType::F32, 10, COUNT * 2 * HIDDEN)?, Role::Experts { count: COUNT, gated: true })?;
    let down = b.matrix(&weight(DType::F32, 11, COUNT * HIDDEN)?, Role::Experts { count: COUNT, gated: false })?;
    let mut results = Vec::new();
    for tokens in [1, 20] {
        let (mut x, mut y) = (b.rows("x", tokens, HIDDEN)?, b.rows("y", tokens, HIDDEN)?);
        let mut scores = b.rows("scores", tokens, COUNT)?;
        let mut activated = b.rows("activated", TOP_EXPERTS * tokens, HIDDEN)?;
        let mut routes = b.routes(tokens, COUNT)?;
        b.begin(&batch(&few(tokens), 0, 0)?)?;
        b.embed(&table, 1.0, &mut x)?;
        b.embed(&table, 1.0, &mut y)?;
        b.project(&x, None, &router, Epilogue::OVERWRITE, &mut scores)?;
        b.route(&scores, Router::SparseMixer { jitter: 0.01 }, &mut routes)?;
        b.project_experts(&x, &up, Activation::SwiGlu, &routes, &mut activated)?;
        b.combine_experts(&activated, &down, &routes, &mut y)?;
        let mut out = vec![0.0; tokens * HIDDEN];
        b.read(&y, &mut out)?;
        results.push((format!("experts of {tokens} rows"), out));
    }
    Ok(results)
}

/// Queries, keys and values with a bias, and attention over blocks, of one row and of a tile.
fn blocks<B: Backend>(b: &mut B) -> Result<Vec<(String, Vec<f32>)>> {
    let heads = HEADS[1];
    let table = b.matrix(&weight(DType::F32, 1, VOCAB)?, Role::Embedding)?;
    let biased = weight(DType::F32, 2, heads.qkv_dim())?.with_bias(numbers(12, heads.qkv_dim()))?;
    let qkv = b.matrix(&biased, Role::Qkv(heads))?;
    let mut cache = b.cache(1, heads, KvType::F16)?;
    b.reserve(&mut cache, PAGES)?;
    let mask = Mask::Blocks(BlockSparse { block: PAGE, local: 1, stride: 2, head_step: 1 });
    let mut results = Vec::new();
    for (tokens, position) in [(60, 0), (1, 60), (19, 61)] {
        let mut x = b.rows("x", tokens, HIDDEN)?;
        let mut q = b.rows("q", tokens, heads.q_dim())?;
        let mut mixed = b.rows("mixed", tokens, heads.q_dim())?;
        b.begin(&batch(&few(tokens), position, heads.rotary_dim)?)?;
        b.embed(&table, 1.0, &mut x)?;
        b.project_qkv(&x, None, &[&qkv], &mut q, &mut cache, 0)?;
        b.attention(&q, &cache, 0, mask, 0.3 / (heads.head_dim as f32).sqrt(), &mut mixed)?;
        let mut out = vec![0.0; tokens * heads.q_dim()];
        b.read(&mixed, &mut out)?;
        results.push((format!("attention over blocks of {tokens} rows from {position} on"), out));
    }
    Ok(results)
}

/// Tokens that differ.
fn few(tokens: usize) -> Vec<u32> {
    (0..tokens as u32).map(|i| (i * 5 + 2) % VOCAB as u32).collect()
}

/// What the texts give that differ between types of weights.
fn products<B: Backend>(b: &mut B, dtype: DType) -> Result<Vec<(String, Vec<f32>)>> {
    let table = b.matrix(&weight(dtype, 1, VOCAB)?, Role::Embedding)?;
    let plain = b.matrix(&weight(dtype, 4, INNER)?, Role::Plain)?;
    let mut results = Vec::new();
    for tokens in [&[7, 2, 23, 0, 1, 2, 3, 4, 5][..], &[9]] {
        let mut x = b.rows("x", tokens.len(), HIDDEN)?;
        let mut y = b.rows("y", tokens.len(), INNER)?;
        b.begin(&batch(tokens, 0, 0)?)?;
        b.embed(&table, 1.0, &mut x)?;
        b.project(&x, None, &plain, Epilogue::OVERWRITE, &mut y)?;
        for (name, rows, dim) in [("embed", &x, HIDDEN), ("project", &y, INNER)] {
            let mut out = vec![0.0; tokens.len() * dim];
            b.read(rows, &mut out)?;
            results.push((format!("{name} of {} rows", tokens.len()), out));
        }
    }
    Ok(results)
}

/// Tokens of one sequence from a position on, of which the last is an output; its pages are [`PAGES`], in turn.
pub(super) fn batch(tokens: &[u32], position: usize, rotary_dim: usize) -> Result<Batch> {
    let end = position + tokens.len();
    let pages: Vec<u32> = (0..end.div_ceil(PAGE) as u32).map(|page| page % PAGES as u32).collect();
    let mut batch = Batch::of(tokens, position, &pages)?;
    let turn = |position: usize, i: usize| position as f32 / (i + 1) as f32;
    let angles = (position..end).flat_map(|position| (0..rotary_dim / 2).map(move |i| turn(position, i)));
    batch.rope_mut().extend(angles.flat_map(|angle| [angle.cos(), angle.sin()]));
    batch.push_output(tokens.len() - 1)?;
    Ok(batch)
}

/// Numbers between -1 and 1 that look like chance (Knuth's multiplicative hash).
fn numbers(seed: u32, count: usize) -> Vec<f32> {
    (0..count as u32)
        .map(|i| (i.wrapping_add(seed << 20)).wrapping_mul(2_654_435_761) >> 8)
        .map(|bits| bits as f32 / (1 << 23) as f32 - 1.0)
        .collect()
}

fn weight(dtype: DType, seed: u32, rows: usize) -> Result<Weight> {
    let values: Vec<f32> = numbers(seed, rows * HIDDEN).iter().map(|value| 0.2 * value).collect();
    let bytes = quant::quantize(dtype, &values).unwrap_or_default();
    Weight::new("self-check", dtype, rows, HIDDEN, Bytes::from(bytes))
}
