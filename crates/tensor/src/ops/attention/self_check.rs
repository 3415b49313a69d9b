//! Cases of the self-check of a GPU: attention.

use crate::gpu::selfcheck::inputs::{FAR, HEADS, HIDDEN, PAGES, VOCAB, batch, few, numbers, weight};
use crate::{Backend, BlockSparse, DType, KvType, Mask, Norm, PAGE, Phase, Result, Role};

/// Attention with weights of a type, each type with a type of cache: a new token, a short prompt and a tile, at the beginning of a
/// sequence and at a late position.
pub(crate) fn results<B: Backend>(b: &mut B, dtype: DType) -> Result<Vec<(String, Vec<f32>)>> {
    let turn = DType::ALL.iter().position(|other| *other == dtype).unwrap_or(0);
    let Some((kv, heads)) = KvType::ALL.into_iter().zip(HEADS).nth(turn) else { return Ok(Vec::new()) };
    let table = b.matrix(&weight(dtype, 1, VOCAB)?, Role::Embedding)?;
    let qkv = b.matrix(&weight(dtype, 2, heads.qkv_dim())?, Role::Qkv(heads))?;
    let gain = b.vector("gain", &numbers(5, HIDDEN))?;
    let norm = Norm::Rms { weight: &gain, eps: 1e-3 };
    let mut cache = b.cache(1, heads, kv)?;
    b.reserve(&mut cache, PAGES)?;
    // first every page is filled
    let filling: Vec<u32> = (0..PAGES * PAGE).map(|i| ((i % PAGE + 7 * (i / PAGE)) % VOCAB) as u32).collect();
    let mut all = b.rows("all", filling.len(), HIDDEN)?;
    let mut queries = b.rows("queries", filling.len(), heads.q_dim())?;
    b.begin(&batch(Phase::Prompt, &filling, 0, heads.rotary_dim)?)?;
    b.embed(&table, 1.0, &mut all)?;
    b.project_qkv(&all, Some(norm), &[&qkv], &mut queries, &mut cache, 0)?;
    b.submit()?;
    let mut results = Vec::new();
    for (tokens, position) in [(20, 0), (3, 20), (20, 60), (1, 23), (1, FAR), (20, FAR)] {
        let phase = Phase::of(tokens);
        let mut x = b.rows("x", tokens, HIDDEN)?;
        let mut q = b.rows("q", tokens, heads.q_dim())?;
        let mut out = b.rows("out", tokens, heads.q_dim())?;
        b.begin(&batch(phase, &few(tokens), position, heads.rotary_dim)?)?;
        b.embed(&table, 1.0, &mut x)?;
        b.project_qkv(&x, Some(norm), &[&qkv], &mut q, &mut cache, 0)?;
        // large scores would make the result depend on their rounding
        let scale = 0.3 / (heads.head_dim as f32).sqrt();
        b.attention(&q, &cache, 0, Mask::Causal, scale, &mut out)?;
        let mut values = vec![0.0; tokens * heads.q_dim()];
        b.read(&out, &mut values)?;
        results.push((format!("attention of {tokens} rows from {position} on, {kv} cache"), values));
    }
    if turn == 0 {
        results.extend(blocks(b)?);
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
        let phase = Phase::of(tokens);
        let mut x = b.rows("x", tokens, HIDDEN)?;
        let mut q = b.rows("q", tokens, heads.q_dim())?;
        let mut mixed = b.rows("mixed", tokens, heads.q_dim())?;
        b.begin(&batch(phase, &few(tokens), position, heads.rotary_dim)?)?;
        b.embed(&table, 1.0, &mut x)?;
        b.project_qkv(&x, None, &[&qkv], &mut q, &mut cache, 0)?;
        b.attention(&q, &cache, 0, mask, 0.3 / (heads.head_dim as f32).sqrt(), &mut mixed)?;
        let mut out = vec![0.0; tokens * heads.q_dim()];
        b.read(&mixed, &mut out)?;
        results.push((format!("attention over blocks of {tokens} rows from {position} on"), out));
    }
    Ok(results)
}
