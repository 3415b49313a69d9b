//! Cases of sampling; `tests/sample.rs` walks the options.

use crate::comparison::{Comparison, Random, flat};
use crate::{Backend, Result, Sampling};

/// A greedy and a random token on a machine that samples. The difference is the number of other tokens.
pub(crate) fn compare<B: Backend>(comparison: &mut Comparison<'_, B>) -> Result<()> {
    const VOCAB: usize = 777;
    let b = comparison.machine();
    if b.pipeline_depth() == 0 {
        return Ok(());
    }
    // the kept tokens are the few largest, so that rounding changes no token
    let random = Sampling::Random { temperature: 0.8, top_k: 1, top_p: 1.0, min_p: 0.0, draw: 1 << 30 };
    let samplings = [Sampling::Greedy, random, Sampling::Greedy];
    let values = Random(VOCAB as u64).vector(samplings.len() * VOCAB, 9.0);
    let mut logits = b.rows("logits", samplings.len(), VOCAB)?;
    b.begin(&flat(&[0; 3], &[])?)?;
    b.write(&mut logits, 0, &values)?;
    b.sample(&mut logits, &samplings)?;
    let mut got = [0; 3];
    b.sampled(&mut got)?;
    let rows = values.chunks_exact(VOCAB).zip(samplings).zip(got);
    let others = rows.filter(|((row, sampling), got)| sampling.reference(row) != *got).count();
    comparison.outcome(format!("sample [3, {VOCAB}]"), others as f64, 0.0);
    Ok(())
}
