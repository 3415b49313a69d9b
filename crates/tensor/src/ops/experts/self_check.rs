//! Cases of the self-check of a GPU: experts.

use crate::gpu::selfcheck::inputs::{HIDDEN, VOCAB, batch, few, weight};
use crate::{Activation, Backend, DType, Epilogue, Phase, Result, Role, Router, TOP_EXPERTS};

/// Routes and products of new tokens, one and many, and of a prompt, with weights in single precision.
pub(crate) fn results<B: Backend>(b: &mut B, dtype: DType) -> Result<Vec<(String, Vec<f32>)>> {
    const COUNT: usize = 4;
    if dtype != DType::F32 {
        return Ok(Vec::new());
    }
    let table = b.matrix(&weight(DType::F32, 1, VOCAB)?, Role::Embedding)?;
    let router = b.matrix(&weight(DType::F32, 9, COUNT)?, Role::Plain)?;
    let up = b.matrix(&weight(DType::F32, 10, COUNT * 2 * HIDDEN)?, Role::Experts { count: COUNT, gated: true })?;
    let down = b.matrix(&weight(DType::F32, 11, COUNT * HIDDEN)?, Role::Experts { count: COUNT, gated: false })?;
    let mut results = Vec::new();
    for (phase, tokens) in [(Phase::Decode, 1), (Phase::Decode, 20), (Phase::Prompt, 20)] {
        let (mut x, mut y) = (b.rows("x", tokens, HIDDEN)?, b.rows("y", tokens, HIDDEN)?);
        let mut scores = b.rows("scores", tokens, COUNT)?;
        let mut activated = b.rows("activated", TOP_EXPERTS * tokens, HIDDEN)?;
        let mut routes = b.routes(tokens, COUNT)?;
        b.begin(&batch(phase, &few(tokens), 0, 0)?)?;
        b.embed(&table, 1.0, &mut x)?;
        b.embed(&table, 1.0, &mut y)?;
        b.project(&x, None, &router, Epilogue::OVERWRITE, &mut scores)?;
        b.route(&scores, Router::SparseMixer { jitter: 0.01 }, &mut routes)?;
        b.project_experts(&x, &up, Activation::SwiGlu, &routes, &mut activated)?;
        b.combine_experts(&activated, &down, &routes, &mut y)?;
        let mut out = vec![0.0; tokens * HIDDEN];
        b.read(&y, &mut out)?;
        results.push((format!("experts of {tokens} rows, {phase:?}"), out));
    }
    Ok(results)
}
