//! Samplers that remove tokens. Candidates are in the order of their ids, before and after each of them.

use super::candidates::{Candidate, Softmax, likeliest, max_logit};
use phi3_tensor::arithmetic::exp;

/// Memory that is kept from token to token.
#[derive(Debug, Clone, Default)]
pub(super) struct Scratch {
    logits: Vec<f32>,
    pub(super) weights: Vec<f64>,
    /// Distance from the entropy, and weight.
    distances: Vec<(f64, f64)>,
}

/// Keeps the `k` likeliest candidates, and those as likely as the last of them.
pub(super) fn keep_top_k(candidates: &mut Vec<Candidate>, k: usize, scratch: &mut Scratch) {
    if k == 0 || k >= candidates.len() {
        return;
    }
    let floor = kth_largest(candidates.iter().map(|candidate| candidate.logit), k, &mut scratch.logits);
    candidates.retain(|candidate| candidate.logit >= floor);
}

/// The `k`-th largest value, without sorting: most values are below the best `k` so far and cost one comparison.
fn kth_largest(values: impl Iterator<Item = f32>, k: usize, best: &mut Vec<f32>) -> f32 {
    let descending = |a: &f32, b: &f32| b.total_cmp(a);
    best.clear();
    let mut floor = f32::NEG_INFINITY;
    for value in values {
        if value > floor || best.len() < k {
            best.push(value);
            if best.len() == 2 * k {
                floor = *best.select_nth_unstable_by(k - 1, descending).1;
                best.truncate(k);
            }
        }
    }
    *best.select_nth_unstable_by(k - 1, descending).1
}

/// Drops the least likely candidates, up to a total probability of `1 - top_p`, but never the likeliest. Of equal ones, those with
/// the lower id stay.
pub(super) fn keep_top_p(candidates: &mut Vec<Candidate>, top_p: f64, scratch: &mut Scratch) {
    let max = max_logit(candidates);
    let Softmax { weights, total, .. } = Softmax::of(candidates, &mut scratch.weights);
    let budget = (1.0 - top_p) * total;
    // A token below the budget's mean per candidate is dropped in any case, and needs no sorting.
    let share = budget / candidates.len() as f64;
    let mut dropped: f64 = weights.iter().filter(|weight| **weight < share).sum();
    let mut weights = weights.iter();
    candidates.retain(|_| weights.next().is_some_and(|weight| *weight >= share));
    candidates.sort_unstable_by(|a, b| a.logit.total_cmp(&b.logit).then(b.id.cmp(&a.id)));
    let last = candidates.len().saturating_sub(1);
    let first_kept = candidates[..last].iter().position(|candidate| {
        dropped += exp(f64::from(candidate.logit) - max);
        dropped > budget
    });
    candidates.drain(..first_kept.unwrap_or(last));
    candidates.sort_unstable_by_key(|candidate| candidate.id);
}

/// Keeps the candidates with at least this share of the likeliest one's probability.
pub(super) fn keep_min_p(candidates: &mut Vec<Candidate>, min_p: f64) {
    let max = max_logit(candidates);
    candidates.retain(|candidate| exp(f64::from(candidate.logit) - max) >= min_p);
}

/// Keeps the candidates whose surprise is closest to the entropy and that together have this probability, and those as close as the
/// last of them. transformers' `TypicalLogitsWarper`.
pub(super) fn keep_typical(candidates: &mut Vec<Candidate>, mass: f64, scratch: &mut Scratch) {
    let softmax = Softmax::of(candidates, &mut scratch.weights);
    let entropy = softmax.entropy(candidates);
    let distance = |candidate: &Candidate| (softmax.surprise(candidate) - entropy).abs();
    scratch.distances.clear();
    scratch.distances.extend(candidates.iter().map(distance).zip(softmax.weights.iter().copied()));
    let edge = weighted_quantile(&mut scratch.distances, mass * softmax.total);
    candidates.retain(|candidate| distance(candidate) <= edge);
}

/// The least number for which the items up to it have a total weight of at least `mass`; the largest number if all have less.
/// Halving with partial selection: on average linear in the number of items, of which there is at least one.
fn weighted_quantile(mut items: &mut [(f64, f64)], mut mass: f64) -> f64 {
    while items.len() > 1 {
        let middle = (items.len() - 1) / 2;
        items.select_nth_unstable_by(middle, |a, b| a.0.total_cmp(&b.0));
        let below: f64 = items[..=middle].iter().map(|item| item.1).sum();
        if below >= mass {
            items = &mut items[..=middle];
        } else {
            mass -= below;
            items = &mut items[middle + 1..];
        }
    }
    items.first().map_or(f64::INFINITY, |item| item.0)
}

/// Keeps the candidates whose logit is at most `n` standard deviations below the largest. llama.cpp's
/// `llama_sampler_init_top_n_sigma`, whose deviation is that of a population.
pub(super) fn keep_top_n_sigma(candidates: &mut Vec<Candidate>, n: f64) {
    let logits = || candidates.iter().map(|candidate| f64::from(candidate.logit)).filter(|logit| logit.is_finite());
    let (max, count) = (max_logit(candidates), logits().count() as f64);
    let mean = logits().sum::<f64>() / count;
    let deviation = (logits().map(|logit| (logit - mean) * (logit - mean)).sum::<f64>() / count).sqrt();
    candidates.retain(|candidate| f64::from(candidate.logit) >= max - n * deviation);
}

/// Removes all candidates of at least this probability except the least likely of them, of equals the one with the highest id.
/// llama.cpp's `llama_sampler_init_xtc`.
pub(super) fn exclude_top_choices(candidates: &mut Vec<Candidate>, threshold: f64, scratch: &mut Scratch) {
    let Softmax { weights, total, .. } = Softmax::of(candidates, &mut scratch.weights);
    let floor = threshold * total;
    let likely = candidates.iter().zip(weights).filter(|(_, weight)| **weight >= floor).map(|(candidate, _)| candidate);
    let Some(&least) = likely.min_by(|a, b| a.logit.total_cmp(&b.logit).then(b.id.cmp(&a.id))) else { return };
    let mut weights = weights.iter();
    candidates.retain(|candidate| weights.next().is_some_and(|weight| *weight < floor) || candidate.id == least.id);
}

/// Keeps the candidates with a surprise of at most `mu` bits, or the likeliest. llama.cpp's `llama_sampler_init_mirostat_v2`.
pub(super) fn keep_surprise(candidates: &mut Vec<Candidate>, weights: &mut Vec<f64>, mu: f64) {
    let softmax = Softmax::of(candidates, weights);
    let most = mu * std::f64::consts::LN_2;
    let best = candidates[likeliest(candidates)];
    candidates.retain(|candidate| candidate.id == best.id || softmax.surprise(candidate) <= most);
}

#[cfg(test)]
mod tests {
    use super::super::random::{Stream, draw};
    use super::*;

    fn numbers(count: usize) -> Vec<f32> {
        (0..count).map(|i| (draw(3, Stream::Token, i) % 1000) as f32).collect()
    }

    #[test]
    fn kth_largest_of_many() {
        let values = numbers(5000);
        let mut sorted = values.clone();
        sorted.sort_unstable_by(|a, b| b.total_cmp(a));
        for k in [1, 2, 7, 100, 2499, 4999, 5000] {
            assert_eq!(kth_largest(values.iter().copied(), k, &mut Vec::new()), sorted[k - 1], "{k}");
        }
    }

    #[test]
    fn weighted_quantile_of_many() {
        let items: Vec<(f64, f64)> = numbers(999).iter().map(|&n| (f64::from(n), f64::from(n) % 7.0)).collect();
        let mut sorted = items.clone();
        sorted.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        for mass in [0.0, 1.0, 10.0, 500.0, 1500.0, 2900.0, 1e9] {
            let mut sum = 0.0;
            let edge = sorted.iter().find(|item| {
                sum += item.1;
                sum >= mass
            });
            let edge = edge.or(sorted.last()).unwrap().0;
            assert_eq!(weighted_quantile(&mut items.clone(), mass), edge, "{mass}");
        }
    }
}
