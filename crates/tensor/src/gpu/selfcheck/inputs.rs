//! Inputs of the self-check's cases, the same on every backend.

use crate::{Batch, Bytes, DType, Heads, KvType, PAGE, Phase, Result, Weight, quant};

/// Width of activations and of the rows of weights.
pub(crate) const HIDDEN: usize = 256;
/// Outputs of a projection.
pub(crate) const INNER: usize = 40;
/// Rows of a table.
pub(crate) const VOCAB: usize = 24;

/// Heads for each type of cache. Every kernel of attention on matrix units is used; the first two head dimensions are the largest
/// of their kernel, as in real models.
pub(crate) const HEADS: [Heads; KvType::ALL.len()] = [heads(96, 96), heads(128, 64), heads(60, 16)];

const fn heads(head_dim: usize, rotary_dim: usize) -> Heads {
    Heads { heads: 4, kv_heads: 2, head_dim, rotary_dim }
}

/// Pages of the cache: more positions than attention on matrix units processes at a time.
pub(crate) const PAGES: usize = 5;

/// A position from which on attention is split, of new tokens and of a prompt.
pub(crate) const FAR: usize = 1100;

/// Different tokens.
pub(crate) fn few(tokens: usize) -> Vec<u32> {
    (0..tokens as u32).map(|i| (i * 5 + 2) % VOCAB as u32).collect()
}

/// Tokens of one sequence from a position on; the last is an output. The pages are [`PAGES`], in turn.
pub(crate) fn batch(phase: Phase, tokens: &[u32], position: usize, rotary_dim: usize) -> Result<Batch> {
    let end = position + tokens.len();
    let pages: Vec<u32> = (0..end.div_ceil(PAGE) as u32).map(|page| page % PAGES as u32).collect();
    let mut batch = Batch::default();
    batch.push_as(phase, tokens, position, &pages)?;
    let turn = |position: usize, i: usize| position as f32 / (i + 1) as f32;
    let angles = (position..end).flat_map(|position| (0..rotary_dim / 2).map(move |i| turn(position, i)));
    batch.rope_mut().extend(angles.flat_map(|angle| [angle.cos(), angle.sin()]));
    batch.push_output(tokens.len() - 1)?;
    Ok(batch)
}

/// Pseudo-random numbers between -1 and 1 (Knuth's multiplicative hash).
pub(crate) fn numbers(seed: u32, count: usize) -> Vec<f32> {
    (0..count as u32)
        .map(|i| (i.wrapping_add(seed << 20)).wrapping_mul(2_654_435_761) >> 8)
        .map(|bits| bits as f32 / (1 << 23) as f32 - 1.0)
        .collect()
}

/// A weight `[rows, HIDDEN]`.
pub(crate) fn weight(dtype: DType, seed: u32, rows: usize) -> Result<Weight> {
    let values: Vec<f32> = numbers(seed, rows * HIDDEN).iter().map(|value| 0.2 * value).collect();
    let bytes = quant::quantize(dtype, &values).unwrap_or_default();
    Weight::new("self-check", dtype, rows, HIDDEN, Bytes::from(bytes))
}
