//! Penalties on the tokens of the text so far, and logit bias.

use super::candidates::Candidate;
use super::error::SamplerError;

/// Repetition, presence and frequency penalty.
#[derive(Debug, Clone, Copy)]
pub(super) struct Penalties {
    pub(super) repetition: f32,
    pub(super) presence: f32,
    pub(super) frequency: f32,
}

impl Penalties {
    /// Applies the penalties to candidates: the repetition penalty first, as in llama.cpp's `llama_sampler_init_penalties`. `counts`
    /// is memory that is kept from token to token, all zeros.
    pub(super) fn apply(self, past: &[u32], candidates: &mut [Candidate], counts: &mut Vec<u32>) {
        let vocabulary = candidates.last().map_or(0, |candidate| candidate.id as usize + 1);
        if counts.len() < vocabulary {
            counts.resize(vocabulary, 0);
        }
        for &token in past {
            if let Some(count) = counts.get_mut(token as usize) {
                *count = count.saturating_add(1);
            }
        }
        for Candidate { id, logit } in candidates {
            let count = counts[*id as usize];
            if count > 0 {
                let repeated = if *logit < 0.0 { *logit * self.repetition } else { *logit / self.repetition };
                // the product of large finite numbers may overflow, and two infinities cancel to NaN
                let sum = f64::from(count) * f64::from(self.frequency) + f64::from(self.presence);
                let changed = f64::from(repeated.clamp(f32::MIN, f32::MAX)) - sum;
                *logit = (changed as f32).clamp(f32::MIN, f32::MAX);
            }
        }
        for &token in past {
            if let Some(count) = counts.get_mut(token as usize) {
                *count = 0;
            }
        }
    }
}

/// Adds biases to the logits of all tokens, then removes the banned ones.
pub(super) fn add_biases(biases: &[(u32, f32)], candidates: &mut Vec<Candidate>) -> Result<(), SamplerError> {
    if biases.is_empty() {
        return Ok(());
    }
    let vocabulary = candidates.len();
    for &(token, bias) in biases {
        let candidate = candidates.get_mut(token as usize);
        let candidate = candidate.ok_or(SamplerError::BiasedToken { vocabulary, token })?;
        let sum = candidate.logit + bias;
        candidate.logit =
            if bias.is_finite() && candidate.logit.is_finite() { sum.clamp(f32::MIN, f32::MAX) } else { sum };
    }
    candidates.retain(|candidate| candidate.logit > f32::NEG_INFINITY);
    if candidates.is_empty() { Err(SamplerError::AllBanned) } else { Ok(()) }
}
