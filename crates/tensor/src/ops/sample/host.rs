//! Sampling on the host: for the CPU and the reference.

use super::{LogitEdit, Logprobs, Sampling};
use crate::Batch;
use crate::arithmetic::exp;

/// The weight of the likeliest token.
const ONE: f64 = 2_147_483_648.0;

/// A token by a row's logits; [`Batch::NO_TOKEN`] where one is not finite, or all tokens are excluded.
pub(super) fn token(logits: &[f32], sampling: Sampling, mask: Option<&[u32]>, edits: &[LogitEdit]) -> u32 {
    if logits.iter().any(|logit| !logit.is_finite()) {
        return Batch::NO_TOKEN;
    }
    if let Sampling::Given(token) = sampling {
        return token;
    }
    if mask.is_none() && edits.is_empty() {
        return choose(logits, sampling);
    }
    let mut edited = logits.to_vec();
    edit(&mut edited, mask, edits);
    choose(&edited, sampling)
}

/// Applies edits, then a mask: excluded tokens become minus infinity.
pub(super) fn edit(logits: &mut [f32], mask: Option<&[u32]>, edits: &[LogitEdit]) {
    let finite = |value: f32| value.clamp(f32::MIN, f32::MAX);
    for edit in edits {
        let Some(logit) = logits.get_mut(edit.token as usize) else { continue };
        if edit.bias == f32::NEG_INFINITY {
            *logit = f32::NEG_INFINITY;
            continue;
        }
        let biased = finite(*logit + edit.bias);
        let penalized = finite(if biased < 0.0 { biased * edit.penalty } else { biased / edit.penalty });
        *logit = finite(penalized + edit.offset);
    }
    let Some(mask) = mask else { return };
    for (logits, word) in logits.chunks_mut(32).zip(mask) {
        let excluded = logits.iter_mut().enumerate().filter(|(bit, _)| word >> bit & 1 == 0);
        excluded.for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
    }
}

fn choose(logits: &[f32], sampling: Sampling) -> u32 {
    let largest = argmax(logits);
    match sampling {
        _ if logits[largest as usize] == f32::NEG_INFINITY => Batch::NO_TOKEN,
        Sampling::Greedy => largest,
        Sampling::Given(token) => token,
        Sampling::Random { .. } => random(logits, logits[largest as usize], sampling),
    }
}

/// The first token of the largest logit.
fn argmax(logits: &[f32]) -> u32 {
    // a maximum of eight parts keeps the processor's vector units busy
    let mut parts = [f32::NEG_INFINITY; 8];
    for chunk in logits.chunks(8) {
        for (part, logit) in parts.iter_mut().zip(chunk) {
            *part = part.max(*logit);
        }
    }
    let largest = parts.into_iter().fold(f32::NEG_INFINITY, f32::max);
    logits.iter().position(|logit| *logit == largest).unwrap_or(0) as u32
}

/// A random token, by weights in whole numbers as in `sample.wgsl`.
fn random(logits: &[f32], largest: f32, sampling: Sampling) -> u32 {
    let Sampling::Random { temperature, top_k, top_p, min_p, draw } = sampling else { return Batch::NO_TOKEN };
    let temperature = f64::from(temperature.max(f32::MIN_POSITIVE));
    let mut least = f32::NEG_INFINITY;
    if top_k > 0 && (top_k as usize) < logits.len() {
        let mut keys: Vec<u32> = logits.iter().map(|logit| descending_key(*logit)).collect();
        let (_, key, _) = keys.select_nth_unstable(top_k as usize - 1);
        least = from_descending_key(*key);
    }
    // tokens with weights above 0, by token
    let mut weights: Vec<(u32, u32)> = Vec::new();
    let lowest = f64::from(largest) - 30.0 * temperature;
    for (token, &logit) in (0..).zip(logits) {
        if logit >= least && f64::from(logit) >= lowest && logit > f32::NEG_INFINITY {
            let weight = exp((f64::from(logit) - f64::from(largest)) / temperature) * ONE;
            if weight >= 1.0 {
                weights.push((token, weight as u32));
            }
        }
    }
    let total = |weights: &[(u32, u32)]| weights.iter().map(|(_, weight)| u64::from(*weight)).sum::<u64>();
    let part = |sum: u64, share: u32| ((u128::from(sum) * u128::from(share)) >> 32) as u64;

    let drop = ((1.0 - f64::from(top_p)) * 4_294_967_296.0) as u32;
    if drop > 0 {
        // of equal weights the later tokens are dropped first
        let mut order: Vec<(u32, u32)> = weights.iter().map(|&(token, weight)| (weight, u32::MAX - token)).collect();
        order.sort_unstable();
        let mut left = part(total(&weights), drop);
        let kept = order.iter().position(|&(weight, _)| match left.checked_sub(u64::from(weight)) {
            Some(rest) => {
                left = rest;
                false
            }
            None => true,
        });
        let first = order[kept.unwrap_or(order.len() - 1)];
        weights.retain(|&(token, weight)| (weight, u32::MAX - token) >= first);
    }
    let floor = (f64::from(min_p).min(1.0) * ONE).ceil() as u32;
    weights.retain(|&(_, weight)| weight >= floor);
    let mut left = part(total(&weights), draw);
    let chosen = weights.iter().find(|&&(_, weight)| match left.checked_sub(u64::from(weight)) {
        Some(rest) => {
            left = rest;
            false
        }
        None => true,
    });
    chosen.or(weights.last()).map_or(Batch::NO_TOKEN, |&(token, _)| token)
}

/// Bits of a number as an integer of the opposite order; both zeros are equal.
fn descending_key(value: f32) -> u32 {
    let bits = (value + 0.0).to_bits();
    !(if bits >> 31 == 1 { !bits } else { bits | 1 << 31 })
}

fn from_descending_key(key: u32) -> f32 {
    let bits = !key;
    f32::from_bits(if bits >> 31 == 1 { bits & !(1 << 31) } else { !bits })
}

impl Logprobs {
    /// Log-probabilities of a token and of the `top` likeliest tokens, by a row's logits.
    pub fn of(logits: &[f32], token: u32, top: usize) -> Self {
        let largest = f64::from(logits[argmax(logits) as usize]);
        let sum: f64 = logits.iter().map(|&logit| exp(f64::from(logit) - largest)).sum();
        let norm = largest + sum.ln();
        let logprob = |token: usize| logits.get(token).map_or(f32::NAN, |&logit| (f64::from(logit) - norm) as f32);
        let mut order: Vec<(u32, u32)> = Vec::new();
        if top > 0 {
            order.extend((0..).zip(logits).map(|(token, &logit)| (descending_key(logit), token)));
            let top = top.min(order.len());
            order.select_nth_unstable(top - 1);
            order.truncate(top);
            order.sort_unstable();
        }
        let top = order.into_iter().map(|(_, token)| (token, logprob(token as usize))).collect();
        Self { token: logprob(token as usize), top }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_the_order() {
        let values = [f32::MAX, 1.5, 1e-30, 0.0, -1e-30, -2.0, f32::MIN, f32::NEG_INFINITY];
        assert!(values.map(descending_key).is_sorted_by(|a, b| a < b));
        assert_eq!(values.map(descending_key).map(from_descending_key), values);
        assert_eq!(descending_key(-0.0), descending_key(0.0));
    }

    #[test]
    fn edits_come_before_the_mask() {
        let mut logits = [1.0, -1.0, 2.0, 3.0];
        let edit_of = |token, bias, penalty, offset| LogitEdit { token, bias, penalty, offset };
        let edits = [
            edit_of(0, 1.0, 2.0, 0.25),
            edit_of(1, 0.5, 2.0, 0.0),
            edit_of(2, f32::NEG_INFINITY, 1.0, 0.0),
            edit_of(9, 1.0, 1.0, 1.0),
        ];
        edit(&mut logits, Some(&[0b0111]), &edits);
        assert_eq!(logits, [1.25, -1.0, f32::NEG_INFINITY, f32::NEG_INFINITY]);
        let token = |mask: u32| token(&[1.0, 2.0], Sampling::Greedy, Some(&[mask]), &[]);
        assert_eq!([token(1), token(2), token(3), token(0)], [0, 1, 1, Batch::NO_TOKEN]);
    }

    #[test]
    fn logprobs_are_those_of_the_softmax() {
        let logprobs = Logprobs::of(&[0.0, 2f32.ln(), 0.0, 4f32.ln()], 1, 3);
        let near = |a: f32, b: f64| assert!((f64::from(a) - b).abs() < 1e-6, "{a} {b}");
        near(logprobs.token, (0.25f64).ln());
        assert_eq!(logprobs.top.iter().map(|top| top.0).collect::<Vec<_>>(), [3, 1, 0]);
        near(logprobs.top[0].1, (0.5f64).ln());
        near(logprobs.top[2].1, (0.125f64).ln());
    }
}
