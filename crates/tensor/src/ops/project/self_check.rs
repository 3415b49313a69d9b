//! Cases of the self-check of a GPU: embedding, norms, projections and selected rows.

use crate::gpu::selfcheck::inputs::{HIDDEN, INNER, VOCAB, batch, few, numbers, weight};
use crate::{Activation, Backend, DType, Epilogue, KvType, Norm, Phase, Result, Role};
use Phase::{Decode, Prompt};

/// Products with weights of a type. For the types of [`attention`](crate::ops::attention::self_check), the products of a
/// feed-forward.
pub(crate) fn results<B: Backend>(b: &mut B, dtype: DType) -> Result<Vec<(String, Vec<f32>)>> {
    let turn = DType::ALL.iter().position(|other| *other == dtype).unwrap_or(0);
    if turn >= KvType::ALL.len() {
        return products(b, dtype);
    }
    let mut results = feed_forward(b, dtype)?;
    if turn == 0 {
        results.extend(biases(b)?);
    }
    Ok(results)
}

/// Norm, gated projection, accumulation and selection of a prompt, and of one new token, a few and many.
fn feed_forward<B: Backend>(b: &mut B, dtype: DType) -> Result<Vec<(String, Vec<f32>)>> {
    let table = b.matrix(&weight(dtype, 1, VOCAB)?, Role::Plain)?;
    let gates = b.matrix(&weight(dtype, 3, 2 * INNER)?, Role::GateUp)?;
    let plain = b.matrix(&weight(dtype, 4, INNER)?, Role::Plain)?;
    let gain = b.vector("gain", &numbers(5, HIDDEN))?;
    let norm = Norm::Rms { weight: &gain, eps: 1e-3 };
    let mut results = Vec::new();
    for (phase, tokens) in [(Prompt, 20), (Decode, 20), (Decode, 3), (Decode, 1)] {
        let mut x = b.rows("x", tokens, HIDDEN)?;
        let mut normed = b.rows("normed", tokens, HIDDEN)?;
        let mut gated = b.rows("gated", tokens, INNER)?;
        let mut selected = b.rows("selected", tokens, INNER)?;
        b.begin(&batch(phase, &few(tokens), 0, 0)?)?;
        b.embed(&table, 1.0, &mut x)?;
        b.norm(&x, norm, &mut normed)?;
        b.project(&x, Some(norm), &gates, Epilogue::of(Activation::SwiGlu), &mut gated)?;
        b.project(&normed, None, &plain, Epilogue::ACCUMULATE, &mut gated)?;
        b.select(&gated, 0, 1, &mut selected)?;
        for (name, rows, count, dim) in
            [("embed", &x, tokens, HIDDEN), ("project", &gated, tokens, INNER), ("select", &selected, 1, INNER)]
        {
            let mut out = vec![0.0; count * dim];
            b.read(rows, &mut out)?;
            results.push((format!("{name} of {tokens} rows, {phase:?}"), out));
        }
    }
    Ok(results)
}

/// LayerNorm, biases and every activation of one row; of a tile, whose kernels take long to compile, only one activation.
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
        b.begin(&batch(Phase::of(tokens), &few(tokens), 0, 0)?)?;
        b.embed(&table, 0.5, &mut x)?;
        b.project(&x, Some(norm), &matrix, Epilogue { scale: 0.5, ..Epilogue::of(activation) }, &mut y)?;
        let mut out = vec![0.0; tokens * width];
        b.read(&y, &mut out)?;
        results.push((format!("project with bias and {activation:?} of {tokens} rows"), out));
    }
    Ok(results)
}

/// Embedding, and products of a prompt and of new tokens.
fn products<B: Backend>(b: &mut B, dtype: DType) -> Result<Vec<(String, Vec<f32>)>> {
    let table = b.matrix(&weight(dtype, 1, VOCAB)?, Role::Embedding)?;
    let plain = b.matrix(&weight(dtype, 4, INNER)?, Role::Plain)?;
    let mut results = Vec::new();
    let many = [7, 2, 23, 0, 1, 2, 3, 4, 5];
    for (phase, tokens) in [(Prompt, &many[..]), (Decode, &many), (Decode, &[9])] {
        let mut x = b.rows("x", tokens.len(), HIDDEN)?;
        let mut y = b.rows("y", tokens.len(), INNER)?;
        b.begin(&batch(phase, tokens, 0, 0)?)?;
        b.embed(&table, 1.0, &mut x)?;
        b.project(&x, None, &plain, Epilogue::OVERWRITE, &mut y)?;
        for (name, rows, dim) in [("embed", &x, HIDDEN), ("project", &y, INNER)] {
            let mut out = vec![0.0; tokens.len() * dim];
            b.read(rows, &mut out)?;
            results.push((format!("{name} of {} rows, {phase:?}", tokens.len()), out));
        }
    }
    Ok(results)
}
