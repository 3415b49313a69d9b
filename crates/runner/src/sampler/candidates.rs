//! Tokens that can be chosen, with their logits.

use phi3_tensor::arithmetic::{exp, ln, power};

/// A token that can be chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    pub(super) id: u32,
    pub(super) logit: f32,
}

/// The probabilities of candidates.
pub(super) struct Softmax<'a> {
    /// The largest logit.
    max: f64,
    /// Numbers in proportion to the probabilities; 1 for the likeliest.
    pub(super) weights: &'a [f64],
    /// Their sum.
    pub(super) total: f64,
    /// Its natural logarithm.
    ln_total: f64,
}

impl<'a> Softmax<'a> {
    /// The probabilities of candidates, of which there is at least one. `weights` is memory that is kept from token to token.
    pub(super) fn of(candidates: &[Candidate], weights: &'a mut Vec<f64>) -> Self {
        let max = max_logit(candidates);
        weights.clear();
        weights.extend(candidates.iter().map(|candidate| exp(f64::from(candidate.logit) - max)));
        let total: f64 = weights.iter().sum();
        Self { max, weights, total, ln_total: ln(total) }
    }

    /// Minus the natural logarithm of a candidate's probability.
    pub(super) fn surprise(&self, candidate: &Candidate) -> f64 {
        self.ln_total - (f64::from(candidate.logit) - self.max)
    }

    /// The entropy of the candidates in nats.
    pub(super) fn entropy(&self, candidates: &[Candidate]) -> f64 {
        let terms = candidates.iter().zip(self.weights).filter(|(_, weight)| **weight > 0.0);
        terms.map(|(candidate, weight)| weight * self.surprise(candidate)).sum::<f64>() / self.total
    }
}

/// The largest logit; minus infinity if there is none.
pub(super) fn max_logit(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|candidate| f64::from(candidate.logit)).fold(f64::NEG_INFINITY, f64::max)
}

/// The place of the likeliest token, the first of equals.
pub(super) fn likeliest(candidates: &[Candidate]) -> usize {
    let mut best = 0;
    for (i, candidate) in candidates.iter().enumerate() {
        if candidate.logit > candidates[best].logit {
            best = i;
        }
    }
    best
}

/// Chooses a candidate by its probability with a number in [0, 1). Candidates are tried in the order of their ids, as in on-device
/// sampling.
pub(super) fn choose(candidates: &[Candidate], weights: &mut Vec<f64>, number: f64) -> usize {
    let Softmax { weights, total, .. } = Softmax::of(candidates, weights);
    let mut left = number * total;
    let mut chosen = 0;
    for (i, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
        chosen = i;
        left -= weight;
        if left < 0.0 {
            break;
        }
    }
    chosen
}

/// Divides the logits by a temperature. With temperature 0 only the likeliest candidate stays.
pub(super) fn divide(candidates: &mut Vec<Candidate>, temperature: f32) {
    if temperature == 0.0 {
        let best = likeliest(candidates);
        candidates.drain(best + 1..);
        candidates.drain(..best);
        return;
    }
    let max = candidates.iter().map(|candidate| candidate.logit).fold(f32::NEG_INFINITY, f32::max);
    // A shift changes no probability, and prevents an overflow with a tiny temperature.
    let shift = if (max / temperature).is_finite() { 0.0 } else { max };
    for candidate in candidates {
        candidate.logit = ((candidate.logit - shift) / temperature).max(f32::MIN);
    }
}

/// The temperature between `least` and `most` that the entropy of the candidates selects. llama.cpp's `llama_sampler_init_temp_ext`.
pub(super) fn dynamic_temperature(
    candidates: &[Candidate],
    weights: &mut Vec<f64>,
    [least, most]: [f64; 2],
    exponent: f64,
) -> f64 {
    let largest = ln(candidates.len() as f64);
    let share = (Softmax::of(candidates, weights).entropy(candidates) / largest).clamp(0.0, 1.0);
    least + (most - least) * power(share, exponent)
}
