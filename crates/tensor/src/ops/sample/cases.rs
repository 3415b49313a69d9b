//! Cases of sampling; `tests/sample.rs` walks the options.

use crate::comparison::{Comparison, Random, flat};
use crate::{Backend, LogitEdit, Logprobs, Result, SampleRow, Samples, Sampling};

const VOCAB: usize = 777;

/// Greedy, random and given tokens with edits, masks and log-probabilities. The difference is the number of other tokens, and
/// that of log-probabilities.
pub(crate) fn compare<B: Backend>(comparison: &mut Comparison<'_, B>) -> Result<()> {
    // the kept tokens are the few largest, so that rounding changes no token
    let random = Sampling::Random { temperature: 0.8, top_k: 1, top_p: 1.0, min_p: 0.0, draw: 1 << 30 };
    let of = |row, slot, sampling, mask, edits, logprobs| SampleRow { row, slot, sampling, mask, edits, logprobs };
    let values = Random(VOCAB as u64).vector(5 * VOCAB, 9.0);
    let row_of = |row: u32| &values[row as usize * VOCAB..][..VOCAB];
    let best = |row: u32| Sampling::Greedy.reference(row_of(row));
    // the likeliest tokens of two rows are excluded by an edit and by a mask
    let mut masks = vec![u32::MAX; VOCAB.div_ceil(32)];
    masks[best(3) as usize / 32] &= !(1 << (best(3) % 32));
    let edit = |token, bias, penalty, offset| LogitEdit { token, bias, penalty, offset };
    let samples = Samples {
        rows: vec![
            of(1, 4, random, None, 0..0, None),
            of(0, 0, Sampling::Greedy, None, 0..0, Some(3)),
            of(4, 2, Sampling::Given(7), None, 0..0, Some(0)),
            of(2, 1, Sampling::Greedy, None, 0..2, None),
            of(3, 3, random, Some(0), 2..3, Some(5)),
        ],
        masks,
        edits: vec![edit(best(2), -40.0, 1.0, 0.0), edit(5, 0.5, 1.3, -0.25), edit(6, f32::NEG_INFINITY, 1.0, 0.0)],
    };
    let mut want = Vec::new();
    for row in &samples.rows {
        let mut edited = row_of(row.row).to_vec();
        super::host::edit(&mut edited, samples.mask(row, VOCAB), samples.edits(row));
        let token = row.sampling.reference(&edited);
        want.push((token, row.logprobs.map(|top| Logprobs::reference(row_of(row.row), token, top.into()))));
    }

    let b = comparison.machine();
    b.reserve_slots(5)?;
    let mut logits = b.rows("logits", 5, VOCAB)?;
    b.begin(&flat(&[0; 5], &[])?)?;
    b.write(&mut logits, 0, &values)?;
    let got = b.sample(&mut logits, &samples)?.wait()?;
    let pairs = || want.iter().zip(got.tokens.iter().zip(&got.logprobs));
    let others = pairs().filter(|((want, _), (got, _))| want != *got).count();
    let apart = pairs().map(|((_, want), (_, got))| difference(want.as_ref(), got.as_ref())).fold(0.0, f64::max);
    comparison.outcome(format!("sample [5, {VOCAB}]"), others as f64, 0.0);
    comparison.outcome(format!("log-probabilities [5, {VOCAB}]"), apart, 1e-4);
    Ok(())
}

/// Largest difference of log-probabilities; infinite where tokens differ.
fn difference(want: Option<&Logprobs>, got: Option<&Logprobs>) -> f64 {
    let (Some(want), Some(got)) = (want, got) else {
        return if want.is_none() && got.is_none() { 0.0 } else { f64::INFINITY };
    };
    let same = want.top.iter().map(|top| top.0).eq(got.top.iter().map(|top| top.0));
    let pairs = want.top.iter().zip(&got.top).map(|(want, got)| (want.1, got.1)).chain([(want.token, got.token)]);
    if same { pairs.map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max) } else { f64::INFINITY }
}
