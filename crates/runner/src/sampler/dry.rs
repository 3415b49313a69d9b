//! DRY, "don't repeat yourself": a penalty on tokens that would continue a repetition. p-e-w, text-generation-webui pull request
//! 5677 (2024); numbers as in llama.cpp's `llama_sampler_init_dry`.

use super::breakers::DryBreakers;
use super::candidates::Candidate;
use super::options::DryOptions;
use phi3_tensor::arithmetic::whole_power;
use std::collections::HashMap;

/// Memory that is kept from token to token.
#[derive(Debug, Clone, Default)]
pub(super) struct Scratch {
    /// For a distance from the end of the text: how many tokens before that place equal the last tokens of the text.
    repeats: Vec<usize>,
    /// For a token: length of the longest repetition that it would continue.
    longest: HashMap<u32, usize>,
}

/// Applies the penalty to candidates, which are in the order of their ids.
pub(super) fn apply(
    options: &DryOptions,
    breakers: &DryBreakers,
    past: &[u32],
    candidates: &mut [Candidate],
    scratch: &mut Scratch,
) {
    let last = options.penalty_last_n.unwrap_or(usize::MAX).min(past.len());
    let text = &past[past.len() - last..];
    if text.len() <= options.allowed_length {
        return;
    }
    let limit = breakers.distance(text);
    if limit < options.allowed_length {
        return;
    }
    count_repeats(text, &mut scratch.repeats);
    scratch.longest.clear();
    for (distance, &repeat) in scratch.repeats.iter().enumerate().skip(1) {
        let length = repeat.min(limit);
        let next = text[text.len() - distance];
        if length >= options.allowed_length {
            let longest = scratch.longest.entry(next).or_insert(length);
            *longest = length.max(*longest);
        }
    }
    for (&token, &length) in scratch.longest.iter().filter(|(token, _)| !breakers.breaks(**token)) {
        if let Ok(at) = candidates.binary_search_by_key(&token, |candidate| candidate.id) {
            let power = whole_power(f64::from(options.base), length - options.allowed_length);
            let penalty = (f64::from(options.multiplier) * power).min(f64::from(f32::MAX)) as f32;
            candidates[at].logit = (candidates[at].logit - penalty).clamp(f32::MIN, f32::MAX);
        }
    }
}

/// Counts for each distance from the end how many tokens before that place equal the last tokens of the text. Gusfield's Z
/// algorithm (1997) on the reversed text, linear in its length.
fn count_repeats(text: &[u32], repeats: &mut Vec<usize>) {
    let length = text.len();
    let reversed = |i: usize| text[length - 1 - i];
    repeats.clear();
    repeats.resize(length, 0);
    // the known repetition that reaches farthest: from `start` to before `end`
    let (mut start, mut end) = (0, 0);
    for distance in 1..length {
        let mut repeat = match distance < end {
            true => repeats[distance - start].min(end - distance),
            false => 0,
        };
        while distance + repeat < length && reversed(repeat) == reversed(distance + repeat) {
            repeat += 1;
        }
        repeats[distance] = repeat;
        if distance + repeat > end {
            (start, end) = (distance, distance + repeat);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::random::{Stream, draw};
    use super::*;

    #[test]
    fn repeats_are_counted() {
        for seed in 0..50 {
            let text: Vec<u32> = (0..60).map(|i| (draw(seed, Stream::Token, i) % (2 + seed / 20)) as u32).collect();
            let mut repeats = Vec::new();
            count_repeats(&text, &mut repeats);
            for distance in 1..text.len() {
                let before = text[..text.len() - distance].iter().rev();
                let same = before.zip(text.iter().rev()).take_while(|(a, b)| a == b).count();
                assert_eq!(repeats[distance], same, "{text:?} at {distance}");
            }
        }
    }

    fn penalties(breakers: &[&[u32]], change: impl FnOnce(&mut DryOptions), past: &[u32]) -> Vec<f32> {
        let mut options = DryOptions { multiplier: 0.5, base: 2.0, ..DryOptions::default() };
        change(&mut options);
        let breakers = DryBreakers::from_tokens(breakers.iter().map(|tokens| tokens.to_vec()));
        let mut candidates: Vec<Candidate> = (0..10).map(|id| Candidate { id, logit: 0.0 }).collect();
        apply(&options, &breakers, past, &mut candidates, &mut Scratch::default());
        candidates.iter().map(|candidate| 0.0 - candidate.logit).collect()
    }

    #[test]
    fn continuations_are_penalised() {
        let past = [1, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3];
        // 4 continues 1 2 3, and 5 continues 2 3
        let expected = [0.0, 0.0, 0.0, 0.0, 1.0, 0.5, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(penalties(&[], |_| (), &past), expected);
        let none = [0.0; 10];
        assert_eq!(penalties(&[&[3]], |_| (), &past), none, "the text ends with a breaker");
        assert_eq!(penalties(&[&[4]], |_| (), &past)[4], 0.0, "a breaker has no penalty");
        assert_eq!(penalties(&[&[1]], |_| (), &past)[4..6], [0.5, 0.5], "a repetition begins after a breaker");
        assert_eq!(penalties(&[&[1, 2]], |_| (), &past), none, "one token after a breaker of two");
        assert_eq!(penalties(&[&[1, 9]], |_| (), &past), expected, "a breaker that is incomplete");
        assert_eq!(penalties(&[], |o| o.penalty_last_n = Some(8), &past)[4..6], [0.0, 0.5]);
        assert_eq!(penalties(&[], |o| o.allowed_length = 3, &past)[4..6], [0.5, 0.0]);
        assert_eq!(penalties(&[], |o| o.allowed_length = 100, &past), none);
        assert_eq!(penalties(&[], |_| (), &[]), none);
        let huge = penalties(&[], |o| (o.multiplier, o.base) = (f32::MAX, 1e30), &[1; 100]);
        assert_eq!(huge[1], f32::MAX);
    }
}
