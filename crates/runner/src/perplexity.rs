//! Perplexity of a text, and the distance of two models or backends on it.
//!
//! Windows start at token 0, `stride`, `2 * stride`, … and hold up to `window` tokens, each computed from an empty cache
//! with positions from 0. A window counts the tokens that no earlier window held. The first token of a window has no
//! context and is never counted. The last window is the first that reaches the end. Perplexity is
//! `exp(nll / counted)`, nll the sum of negative natural-log probabilities.

use crate::verify::logits;
use crate::{Error, Result};
use phi3_model::{Model, RopePolicy};
use std::ops::Range;

/// Windows of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Most tokens per window.
    pub window: usize,
    /// Tokens from one window's start to the next.
    pub stride: usize,
}

/// Perplexity of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// Tokens whose probability was counted.
    pub tokens: usize,
    /// Sum of their negative natural-log probabilities.
    pub nll: f64,
}

impl Score {
    /// `exp(nll / tokens)`.
    pub fn perplexity(&self) -> f64 {
        (self.nll / self.tokens.max(1) as f64).exp()
    }
}

/// Distance of a second model from the first, over the counted tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distance {
    /// Mean of the Kullback-Leibler divergence from the first model's distribution to the second's, in nats.
    pub mean: f64,
    /// Median.
    pub median: f64,
    /// Largest.
    pub largest: f64,
    /// Share of tokens for which both have the same most likely token.
    pub same_top: f64,
}

impl Windows {
    /// Every window of a text: its tokens, and those that it counts.
    fn of(self, tokens: usize) -> Result<Vec<(Range<usize>, Range<usize>)>> {
        let wrong =
            |argument, expected: String, found: usize| Error::Argument { argument, expected, found: found.to_string() };
        if self.window < 2 {
            return Err(wrong("window", "at least 2 tokens".into(), self.window));
        }
        if self.stride == 0 || self.stride > self.window {
            return Err(wrong("stride", format!("1 to the window's {}", self.window), self.stride));
        }
        let mut windows = Vec::new();
        let mut counted = 0;
        for start in (0..).step_by(self.stride) {
            let end = (start + self.window).min(tokens);
            windows.push((start..end, counted.max(start + 1)..end));
            counted = end;
            if end == tokens {
                break;
            }
        }
        Ok(windows)
    }
}

/// Natural-log probabilities of a row, in f64.
fn log_softmax(row: &[f32]) -> Vec<f64> {
    let most = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = row.iter().map(|&v| (f64::from(v) - most).exp()).sum();
    row.iter().map(|&v| f64::from(v) - most - sum.ln()).collect()
}

/// Perplexity of `ids`. `watch` is called after every window, with the number of windows done and of all windows.
pub fn perplexity(
    model: &mut dyn Model,
    ids: &[u32],
    windows: Windows,
    chunk: usize,
    policy: RopePolicy,
    watch: &mut dyn FnMut(usize, usize),
) -> Result<Score> {
    let (score, _) = run(model, None, ids, windows, chunk, policy, watch)?;
    Ok(score)
}

/// Perplexity of `ids` for two models, and the distance of the second from the first.
pub fn compare(
    first: &mut dyn Model,
    second: &mut dyn Model,
    ids: &[u32],
    windows: Windows,
    chunk: usize,
    policy: RopePolicy,
    watch: &mut dyn FnMut(usize, usize),
) -> Result<(Score, Score, Distance)> {
    let (score, other) = run(first, Some(second), ids, windows, chunk, policy, watch)?;
    let Other { score: second, mut divergences, same_top } = other;
    divergences.sort_by(f64::total_cmp);
    let counted = divergences.len().max(1) as f64;
    let distance = Distance {
        mean: divergences.iter().sum::<f64>() / counted,
        median: divergences.get(divergences.len() / 2).copied().unwrap_or(0.0),
        largest: divergences.last().copied().unwrap_or(0.0),
        same_top: same_top as f64 / counted,
    };
    Ok((score, second, distance))
}

#[derive(Default)]
struct Other {
    score: Score,
    divergences: Vec<f64>,
    same_top: usize,
}

fn run(
    model: &mut dyn Model,
    mut against: Option<&mut dyn Model>,
    ids: &[u32],
    windows: Windows,
    chunk: usize,
    policy: RopePolicy,
    watch: &mut dyn FnMut(usize, usize),
) -> Result<(Score, Other)> {
    if ids.len() < 2 {
        return Err(Error::EmptyPrompt { hint: "perplexity needs a text of at least two tokens" });
    }
    let vocab = model.spec().vocab_size;
    if let Some(other) = against.as_deref().map(|other| other.spec().vocab_size).filter(|other| *other != vocab) {
        let expected = format!("a model with the same {vocab} tokens");
        return Err(Error::Argument { argument: "against", expected, found: format!("{other} tokens") });
    }
    let (mut score, mut other) = (Score::default(), Other::default());
    let windows = windows.of(ids.len())?;
    for (i, (window, counted)) in windows.iter().enumerate() {
        let text = &ids[window.clone()];
        let rows = logits(model, text, chunk, policy, None)?;
        let rows_against = match against.as_deref_mut() {
            Some(against) => Some(logits(against, text, chunk, policy, None)?),
            None => None,
        };
        for token in counted.clone() {
            let row = (token - 1 - window.start) * vocab;
            let p = log_softmax(&rows[row..][..vocab]);
            score.tokens += 1;
            score.nll -= p[ids[token] as usize];
            if let Some(rows) = &rows_against {
                other.add(&p, &log_softmax(&rows[row..][..vocab]), ids[token]);
            }
        }
        watch(i + 1, windows.len());
    }
    Ok((score, other))
}

impl Other {
    fn add(&mut self, p: &[f64], q: &[f64], token: u32) {
        self.score.tokens += 1;
        self.score.nll -= q[token as usize];
        self.divergences.push(p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum());
        let top = |row: &[f64]| (0..row.len()).reduce(|best, i| if row[i] > row[best] { i } else { best });
        self.same_top += usize::from(top(p) == top(q));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_but_the_first_is_counted_once() {
        for (tokens, window, stride) in
            [(2, 2, 1), (1044, 512, 256), (1044, 1044, 1044), (700, 512, 100), (513, 512, 256)]
        {
            let windows = Windows { window, stride }.of(tokens).unwrap();
            let counted: Vec<usize> = windows.iter().flat_map(|(_, counted)| counted.clone()).collect();
            assert_eq!(counted, (1..tokens).collect::<Vec<_>>());
            assert_eq!(windows.last().unwrap().0.end, tokens);
        }
        // without overlap, the first token of each window has no context
        let windows = Windows { window: 4, stride: 4 }.of(8).unwrap();
        assert_eq!(windows, [(0..4, 1..4), (4..8, 5..8)]);
        assert!(Windows { window: 4, stride: 5 }.of(8).is_err() && Windows { window: 1, stride: 1 }.of(8).is_err());
    }
}
