//! Sampling by sorting, in double precision.

use super::{Logprobs, Sample, Sampled, Samples, check, host};
use crate::reference::{Reference, Rows};
use crate::{Batch, Readback, Result, Sampling};

impl Sample for Reference {
    fn reserve_slots(&mut self, slots: usize) -> Result<()> {
        self.sampled.resize(self.sampled.len().max(slots), Batch::NO_TOKEN);
        Ok(())
    }

    fn sample(&mut self, logits: &mut Rows, samples: &Samples) -> Result<Readback<Sampled>> {
        check(samples, logits.shape(), self.sampled.len())?;
        let mut sampled = Sampled::default();
        for row in &samples.rows {
            let raw = &logits.values[row.row as usize * logits.dim..][..logits.dim];
            let mut edited = raw.to_vec();
            host::edit(&mut edited, samples.mask(row, logits.dim), samples.edits(row));
            let token = match raw.iter().all(|logit| logit.is_finite()) {
                true => row.sampling.reference(&edited),
                false => Batch::NO_TOKEN,
            };
            self.sampled[row.slot as usize] = token;
            sampled.tokens.push(token);
            let wanted = row.logprobs.filter(|_| token != Batch::NO_TOKEN);
            sampled.logprobs.push(wanted.map(|top| Logprobs::reference(raw, token, top.into())));
        }
        Ok(Readback::complete(sampled))
    }
}

impl Logprobs {
    /// Log-probabilities by sorting, in double precision.
    pub fn reference(logits: &[f32], token: u32, top: usize) -> Self {
        let largest = logits.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
        let sum: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
        let logprob = |token: usize| (f64::from(logits[token] - largest) - sum.ln()) as f32;
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        let top = order.iter().take(top).map(|&token| (token as u32, logprob(token))).collect();
        Self { token: logprob(token as usize), top }
    }
}

impl Sampling {
    /// The token in double precision; [`Batch::NO_TOKEN`] where a logit is plus infinity or no number, or all are minus infinity.
    pub fn reference(self, logits: &[f32]) -> u32 {
        let excluded = |logit: f32| logit == f32::NEG_INFINITY;
        if logits.iter().any(|&logit| !logit.is_finite() && !excluded(logit)) || logits.iter().all(|&l| excluded(l)) {
            return Batch::NO_TOKEN;
        }
        if let Sampling::Given(token) = self {
            return token;
        }
        // by falling logit, of equals the first one first
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].partial_cmp(&logits[a]).unwrap_or(std::cmp::Ordering::Equal).then(a.cmp(&b)));
        let Sampling::Random { temperature, top_k, top_p, min_p, draw } = self else { return order[0] as u32 };
        order.retain(|&token| !excluded(logits[token]));
        let largest = f64::from(logits[order[0]]);
        let weight = |token: usize| ((f64::from(logits[token]) - largest) / f64::from(temperature)).exp();

        if let Some(least) = (top_k as usize).checked_sub(1).and_then(|k| order.get(k)) {
            let least = logits[*least];
            order.retain(|&token| logits[token] >= least);
        }
        // weights that are equal in single precision count as equal
        order.sort_by(|&a, &b| (weight(b) as f32).total_cmp(&(weight(a) as f32)).then(a.cmp(&b)));
        let mut budget = (1.0 - f64::from(top_p)) * order.iter().map(|&token| weight(token)).sum::<f64>();
        while let Some(&last) = order.last()
            && top_p < 1.0
            && weight(last) <= budget
            && order.len() > 1
        {
            budget -= weight(last);
            order.pop();
        }
        order.retain(|&token| weight(token) >= f64::from(min_p));
        order.sort_unstable();
        let mut left = f64::from(draw) / 4_294_967_296.0 * order.iter().map(|&token| weight(token)).sum::<f64>();
        let sampled = order.iter().find(|&&token| {
            left -= weight(token);
            left < 0.0
        });
        *sampled.or(order.last()).unwrap_or(&0) as u32
    }
}
