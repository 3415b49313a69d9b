//! Sampling of the next token from logits.
//!
//! Options with a counterpart in transformers have its meaning, the others llama.cpp's. The default order is transformers'.

mod breakers;
mod candidates;
mod chain;
mod dry;
mod error;
mod kind;
mod mask;
mod options;
mod penalties;
mod random;
mod truncation;

pub use breakers::DryBreakers;
pub use error::SamplerError;
pub use kind::SamplerKind;
pub use options::{DryOptions, MirostatOptions, SamplerOptions};

use candidates::{Candidate, Softmax, choose, likeliest};
use chain::{Chain, Scratch};
use phi3_tensor::{LogitEdit, Sampling};
use random::{Stream, draw, unit};
use std::sync::Arc;
use truncation::keep_surprise;

/// A sampler of tokens. Its random numbers are a function of the seed and the index of a new token, which counts from 0 in an
/// answer; only mirostat has a state.
#[derive(Debug, Clone)]
pub struct Sampler {
    chain: Chain,
    /// Largest surprise in bits that mirostat allows.
    mu: f64,
    scratch: Scratch,
    weights: Vec<f64>,
}

impl Sampler {
    /// A sampler with these options, without sequence breakers for DRY.
    ///
    /// # Errors
    /// An option is out of its range.
    pub fn new(options: SamplerOptions) -> Result<Self, SamplerError> {
        Self::with_breakers(options, Arc::default())
    }

    /// A sampler with these options. `breakers` are those of [`DryOptions::sequence_breakers`], as tokens.
    ///
    /// # Errors
    /// An option is out of its range.
    pub fn with_breakers(options: SamplerOptions, breakers: Arc<DryBreakers>) -> Result<Self, SamplerError> {
        options.check()?;
        let mu = options.mirostat.map_or(0.0, |mirostat| 2.0 * f64::from(mirostat.tau));
        Ok(Self { chain: Chain::new(options, breakers), mu, scratch: Scratch::default(), weights: Vec::new() })
    }

    /// The options.
    pub fn options(&self) -> &SamplerOptions {
        &self.chain.options
    }

    /// Whether the likeliest token is always chosen.
    pub fn is_greedy(&self) -> bool {
        self.options().is_greedy()
    }

    /// Whether on-device sampling is possible: the device has the samplers in this order: penalties, temperature, top-k, top-p,
    /// min-p.
    pub fn is_on_device(&self) -> bool {
        self.chain.is_on_device()
    }

    /// Whether the choice depends on the text so far.
    pub fn uses_past(&self) -> bool {
        self.chain.has(SamplerKind::Penalties) || self.chain.has(SamplerKind::Dry) || self.options().mirostat.is_some()
    }

    /// Whether logit bias bans tokens.
    pub(crate) fn bans_tokens(&self) -> bool {
        self.options().logit_bias.iter().any(|(_, bias)| *bias == f32::NEG_INFINITY)
    }

    /// Adds the edits of logits for on-device sampling: logit bias and penalties. `past` is the text so far, prompt included.
    pub fn edits(&self, past: &[u32], edits: &mut Vec<LogitEdit>) {
        self.chain.edits(past, edits);
    }

    /// Options for on-device sampling of the new token of this index, as [`sample`](Self::sample) would choose it: with the same
    /// random number, of which the device gets the upper 32 bits.
    pub fn sampling(&self, index: usize) -> Sampling {
        let SamplerOptions { temperature, top_k, top_p, min_p, seed, .. } = *self.options();
        if self.is_greedy() {
            return Sampling::Greedy;
        }
        let has = |kind| self.chain.has(kind);
        Sampling::Random {
            temperature: if has(SamplerKind::Temperature) { temperature } else { 1.0 },
            top_k: if has(SamplerKind::TopK) { u32::try_from(top_k).unwrap_or(u32::MAX) } else { 0 },
            top_p: if has(SamplerKind::TopP) { top_p } else { 1.0 },
            min_p: if has(SamplerKind::MinP) { min_p } else { 0.0 },
            draw: (draw(seed, Stream::Token, index) >> 32) as u32,
        }
    }

    /// Chooses the new token of this index. `past` is the text so far, prompt included.
    ///
    /// # Errors
    /// There are no logits, some are not finite, or the logit bias bans all tokens or names one that does not exist.
    pub fn sample(&mut self, past: &[u32], index: usize, logits: &[f32]) -> Result<u32, SamplerError> {
        if self.is_greedy() && self.chain.is_empty() {
            chain::check(logits)?;
            return Ok(argmax(logits));
        }
        self.choose(past, index, logits, None)
    }

    /// As [`sample`](Self::sample), from the tokens of a mask only: token t is bit t % 32 of word t / 32, and tokens beyond the
    /// last word are not in it. The others count as absent: no probability is shared with them.
    ///
    /// # Errors
    /// As those of [`sample`](Self::sample), or the mask has no token of the model.
    pub fn sample_masked(
        &mut self,
        past: &[u32],
        index: usize,
        logits: &[f32],
        mask: &[u32],
    ) -> Result<u32, SamplerError> {
        self.choose(past, index, logits, Some(mask))
    }

    fn choose(
        &mut self,
        past: &[u32],
        index: usize,
        logits: &[f32],
        mask: Option<&[u32]>,
    ) -> Result<u32, SamplerError> {
        self.chain.apply(past, index, logits, mask, &mut self.scratch)?;
        let candidates = &mut self.scratch.candidates;
        if self.chain.options.is_greedy() {
            return Ok(candidates[likeliest(candidates)].id);
        }
        let seed = self.chain.options.seed;
        let Some(mirostat) = self.chain.options.mirostat else {
            let number = unit(seed, Stream::Token, index);
            return Ok(candidates[choose(candidates, &mut self.weights, number)].id);
        };
        keep_surprise(candidates, &mut self.weights, self.mu);
        let chosen = candidates[choose(candidates, &mut self.weights, unit(seed, Stream::Mirostat, index))];
        let surprise = Softmax::of(candidates, &mut self.weights).surprise(&chosen) / std::f64::consts::LN_2;
        self.mu -= f64::from(mirostat.eta) * (surprise - f64::from(mirostat.tau));
        Ok(chosen.id)
    }

    /// Applies the options to the logits for the new token of this index; a token that cannot be chosen gets minus infinity. With
    /// temperature 0, logit bias, penalties and DRY are applied.
    ///
    /// # Errors
    /// As those of [`sample`](Self::sample).
    pub fn process(&self, past: &[u32], index: usize, logits: &mut [f32]) -> Result<(), SamplerError> {
        let scratch = self.candidates(past, index, logits)?;
        logits.fill(f32::NEG_INFINITY);
        for Candidate { id, logit } in scratch.candidates {
            logits[id as usize] = logit;
        }
        Ok(())
    }

    /// The probability of every token to be chosen as the new token of this index.
    ///
    /// # Errors
    /// As those of [`sample`](Self::sample).
    pub fn probabilities(&self, past: &[u32], index: usize, logits: &[f32]) -> Result<Vec<f32>, SamplerError> {
        let candidates = self.candidates(past, index, logits)?.candidates;
        let mut probabilities = vec![0.0; logits.len()];
        if self.is_greedy() {
            probabilities[candidates[likeliest(&candidates)].id as usize] = 1.0;
            return Ok(probabilities);
        }
        let mut weights = Vec::new();
        let Softmax { weights, total, .. } = Softmax::of(&candidates, &mut weights);
        for (candidate, weight) in candidates.iter().zip(weights) {
            probabilities[candidate.id as usize] = (weight / total) as f32;
        }
        Ok(probabilities)
    }

    fn candidates(&self, past: &[u32], index: usize, logits: &[f32]) -> Result<Scratch, SamplerError> {
        let mut scratch = Scratch::default();
        self.chain.apply(past, index, logits, None, &mut scratch)?;
        if self.options().mirostat.is_some() && !self.is_greedy() {
            keep_surprise(&mut scratch.candidates, &mut Vec::new(), self.mu);
        }
        Ok(scratch)
    }
}

/// The likeliest token, the first of equals.
fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (i, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = i;
        }
    }
    best as u32
}

#[cfg(test)]
mod tests;
