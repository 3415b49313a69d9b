//! The samplers of the options, one after the other.

use super::breakers::DryBreakers;
use super::candidates::{Candidate, divide, dynamic_temperature};
use super::dry;
use super::error::SamplerError;
use super::kind::SamplerKind;
use super::mask::keep_masked;
use super::options::SamplerOptions;
use super::penalties::{Penalties, add_biases};
use super::random::{Stream, unit};
use super::truncation::{
    self, exclude_top_choices, keep_min_p, keep_top_k, keep_top_n_sigma, keep_top_p, keep_typical,
};
use phi3_tensor::LogitEdit;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Samplers that a device has, in its order.
const ON_DEVICE: [SamplerKind; 5] =
    [SamplerKind::Penalties, SamplerKind::Temperature, SamplerKind::TopK, SamplerKind::TopP, SamplerKind::MinP];

/// The samplers that change something, in their order.
#[derive(Debug, Clone)]
pub(super) struct Chain {
    pub(super) options: SamplerOptions,
    kinds: Vec<SamplerKind>,
    breakers: Arc<DryBreakers>,
}

/// Memory that is kept from token to token.
#[derive(Debug, Clone, Default)]
pub(super) struct Scratch {
    /// Tokens that can be chosen, in the order of their ids.
    pub(super) candidates: Vec<Candidate>,
    counts: Vec<u32>,
    dry: dry::Scratch,
    truncation: truncation::Scratch,
}

impl Chain {
    pub(super) fn new(options: SamplerOptions, breakers: Arc<DryBreakers>) -> Self {
        let mut kinds = options.samplers.clone();
        kinds.retain(|&kind| is_active(&options, kind));
        Self { options, kinds, breakers }
    }

    /// Whether the logits stay as they are.
    pub(super) fn is_empty(&self) -> bool {
        self.kinds.is_empty() && self.options.logit_bias.is_empty()
    }

    pub(super) fn has(&self, kind: SamplerKind) -> bool {
        self.kinds.contains(&kind)
    }

    /// Whether a device has all of the samplers, in this order. Logit bias and penalties are edits of logits.
    pub(super) fn is_on_device(&self) -> bool {
        let mut left = ON_DEVICE.iter();
        self.options.mirostat.is_none()
            && !(self.has(SamplerKind::Temperature) && self.options.dynatemp_range > 0.0)
            && self.kinds.iter().all(|kind| left.any(|known| known == kind))
    }

    /// Adds logit bias and penalties as edits of logits, one for each token. `past` is the text so far.
    pub(super) fn edits(&self, past: &[u32], edits: &mut Vec<LogitEdit>) {
        let SamplerOptions { repetition_penalty, presence_penalty, frequency_penalty, .. } = self.options;
        let mut by_token: BTreeMap<u32, LogitEdit> = BTreeMap::new();
        let mut edit = |token, change: &mut dyn FnMut(&mut LogitEdit)| {
            let neutral = LogitEdit { token, bias: 0.0, penalty: 1.0, offset: 0.0 };
            change(by_token.entry(token).or_insert(neutral));
        };
        for &(token, bias) in &self.options.logit_bias {
            edit(token, &mut |edit| edit.bias += bias);
        }
        if self.has(SamplerKind::Penalties) {
            let mut counts: BTreeMap<u32, u32> = BTreeMap::new();
            past.iter().for_each(|token| *counts.entry(*token).or_default() += 1);
            for (token, count) in counts {
                let sum = f64::from(count) * f64::from(frequency_penalty) + f64::from(presence_penalty);
                edit(token, &mut |edit| (edit.penalty, edit.offset) = (repetition_penalty, -sum as f32));
            }
        }
        edits.extend(by_token.into_values());
    }

    /// Makes the candidates for the new token of this index, from all tokens or those of a mask. There is at least one.
    pub(super) fn apply(
        &self,
        past: &[u32],
        index: usize,
        logits: &[f32],
        mask: Option<&[u32]>,
        scratch: &mut Scratch,
    ) -> Result<(), SamplerError> {
        check(logits)?;
        let Scratch { candidates, counts, dry, truncation } = scratch;
        candidates.clear();
        candidates.extend((0..).zip(logits).map(|(id, &logit)| Candidate { id, logit }));
        let options = &self.options;
        add_biases(&options.logit_bias, candidates)?;
        if let Some(mask) = mask {
            keep_masked(candidates, mask)?;
        }
        for kind in &self.kinds {
            match kind {
                SamplerKind::Penalties => {
                    let SamplerOptions { repetition_penalty, presence_penalty, frequency_penalty, .. } = *options;
                    let (repetition, presence) = (repetition_penalty, presence_penalty);
                    Penalties { repetition, presence, frequency: frequency_penalty }.apply(past, candidates, counts);
                }
                SamplerKind::Dry => dry::apply(&options.dry, &self.breakers, past, candidates, dry),
                SamplerKind::Temperature => divide_by_temperature(options, candidates, &mut truncation.weights),
                SamplerKind::TopNSigma => keep_top_n_sigma(candidates, f64::from(options.top_n_sigma)),
                SamplerKind::TopK => keep_top_k(candidates, options.top_k, truncation),
                SamplerKind::TopP => keep_top_p(candidates, f64::from(options.top_p), truncation),
                SamplerKind::MinP => keep_min_p(candidates, f64::from(options.min_p)),
                SamplerKind::TypicalP => keep_typical(candidates, f64::from(options.typical_p), truncation),
                SamplerKind::Xtc if unit(options.seed, Stream::Xtc, index) < f64::from(options.xtc_probability) => {
                    exclude_top_choices(candidates, f64::from(options.xtc_threshold), truncation);
                }
                SamplerKind::Xtc => {}
            }
        }
        Ok(())
    }
}

/// Checks that there are logits, all finite.
pub(super) fn check(logits: &[f32]) -> Result<(), SamplerError> {
    if logits.is_empty() {
        return Err(SamplerError::NoLogits);
    }
    match logits.iter().position(|logit| !logit.is_finite()) {
        Some(token) => Err(SamplerError::NotFinite { token, value: logits[token] }),
        None => Ok(()),
    }
}

/// Whether a sampler changes something with these options.
fn is_active(options: &SamplerOptions, kind: SamplerKind) -> bool {
    if kind.is_truncation() && (options.is_greedy() || options.mirostat.is_some()) {
        return false;
    }
    match kind {
        SamplerKind::Penalties => {
            let SamplerOptions { repetition_penalty, presence_penalty, frequency_penalty, .. } = *options;
            repetition_penalty != 1.0 || presence_penalty != 0.0 || frequency_penalty != 0.0
        }
        SamplerKind::Dry => options.dry.is_active(),
        SamplerKind::Temperature => {
            !options.is_greedy() && (options.temperature != 1.0 || options.dynatemp_range > 0.0)
        }
        SamplerKind::TopNSigma => options.top_n_sigma > 0.0,
        SamplerKind::TopK => options.top_k > 0,
        SamplerKind::TopP => options.top_p < 1.0,
        SamplerKind::MinP => options.min_p > 0.0,
        SamplerKind::TypicalP => options.typical_p < 1.0,
        SamplerKind::Xtc => options.xtc_probability > 0.0 && options.xtc_threshold <= 0.5,
    }
}

fn divide_by_temperature(options: &SamplerOptions, candidates: &mut Vec<Candidate>, weights: &mut Vec<f64>) {
    let (middle, range) = (f64::from(options.temperature), f64::from(options.dynatemp_range));
    if range == 0.0 {
        divide(candidates, options.temperature);
    } else if candidates.len() > 1 {
        let limits = [(middle - range).max(0.0), (middle + range).min(f64::from(f32::MAX))];
        let exponent = f64::from(options.dynatemp_exponent);
        divide(candidates, dynamic_temperature(candidates, weights, limits, exponent) as f32);
    }
}
