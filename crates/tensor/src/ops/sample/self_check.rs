//! Case of the self-check of a GPU: sampling.

use crate::gpu::selfcheck::inputs::{VOCAB, batch};
use crate::{Backend, Bytes, DType, Phase, Result, Role, Samples, Sampling, Weight};

/// Fault of a greedy and a random token, if there is any; one token is far likelier than the others.
pub(crate) fn fault<B: Backend>(b: &mut B) -> Result<Option<String>> {
    let random = Sampling::Random { temperature: 0.5, top_k: 9, top_p: 0.9, min_p: 0.05, draw: 1 << 31 };
    let mut values = vec![-1.0f32; VOCAB * VOCAB];
    (0..VOCAB).for_each(|token| values[token * VOCAB + token * 7 % VOCAB] = 30.0);
    let table = b.matrix(&plain("table", VOCAB, VOCAB, &values)?, Role::Embedding)?;
    let mut logits = b.rows("logits", 2, VOCAB)?;
    b.begin(&batch(Phase::Prompt, &[5, 11], 0, 0)?)?;
    b.embed(&table, 1.0, &mut logits)?;
    b.reserve_slots(2)?;
    let tokens = b.sample(&mut logits, &Samples::of(&[Sampling::Greedy, random]))?.wait()?.tokens;
    let want = [5, 11].map(|token| token * 7 % VOCAB as u32);
    Ok((tokens != want).then(|| format!("the sampled tokens are {tokens:?}, not {want:?}")))
}

fn plain(name: &str, rows: usize, cols: usize, values: &[f32]) -> Result<Weight> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Weight::new(name, DType::F32, rows, cols, Bytes::from(bytes))
}
