//! Sampling of the next token from logits. Options, with their order and meaning, are those of transformers: repetition penalty,
//! temperature, top-k, top-p, min-p, each on the result of the one before.

use phi3_tensor::Sampling;

/// Options of a [`Sampler`]. The default is greedy: always the likeliest token.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplerOptions {
    /// Logits are divided by this; 0 takes the likeliest token and uses none of the options below but the penalty.
    pub temperature: f32,
    /// Only this many of the likeliest tokens (and those as likely as the last of them); 0 for all.
    pub top_k: usize,
    /// Only the likeliest tokens that together have this probability, in (0, 1]; 1 for all.
    pub top_p: f32,
    /// Only tokens with at least this share of the likeliest token's probability, in \[0, 1\]; 0 for all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of the tokens in the text so far; 1 changes nothing.
    pub repetition_penalty: f32,
    /// Seed of the random numbers, which are the same on every platform.
    pub seed: u64,
}

impl Default for SamplerOptions {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 }
    }
}

/// Errors of a sampler.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SamplerError {
    /// An option is out of its range.
    #[error(
        "{option}: expected {expected}, found {found}; hint: it comes from the command line or generation_config.json"
    )]
    Option {
        /// Its name.
        option: &'static str,
        /// Its range.
        expected: &'static str,
        /// Its value.
        found: f32,
    },
    /// A logit is NaN or infinite.
    #[error(
        "the logit of token {token} is {value}: the model's weights are damaged, or its numbers overflow; hint: check the checkpoint"
    )]
    NotFinite {
        /// The first token with such a logit.
        token: usize,
        /// The logit.
        value: f32,
    },
    /// No logits were given.
    #[error("there are no logits to choose from; hint: give at least one token")]
    NoLogits,
}

/// A sampler of tokens, with the state of its random numbers.
#[derive(Debug, Clone)]
pub struct Sampler {
    options: SamplerOptions,
    random: SplitMix64,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    id: u32,
    logit: f32,
}

impl Sampler {
    /// A sampler with these options.
    ///
    /// # Errors
    /// An option is out of its range.
    pub fn new(options: SamplerOptions) -> Result<Self, SamplerError> {
        let check = |valid: bool, option, expected, found| match valid {
            true => Ok(()),
            false => Err(SamplerError::Option { option, expected, found }),
        };
        let SamplerOptions { temperature, top_p, min_p, repetition_penalty, seed, .. } = options;
        check(temperature.is_finite() && temperature >= 0.0, "temperature", "0 or more", temperature)?;
        check(top_p > 0.0 && top_p <= 1.0, "top_p", "more than 0 and at most 1", top_p)?;
        check((0.0..=1.0).contains(&min_p), "min_p", "from 0 to 1", min_p)?;
        let penalty = repetition_penalty;
        check(penalty.is_finite() && penalty > 0.0, "repetition_penalty", "more than 0", penalty)?;
        Ok(Self { options, random: SplitMix64(seed) })
    }

    /// The options.
    pub fn options(&self) -> &SamplerOptions {
        &self.options
    }

    /// Whether the likeliest token is always chosen.
    pub fn is_greedy(&self) -> bool {
        self.options.temperature == 0.0
    }

    /// Whether on-device sampling is possible: the choice depends on the logits only.
    pub fn is_independent(&self) -> bool {
        self.options.repetition_penalty == 1.0
    }

    /// Options for on-device sampling of the next token, as [`sample`](Self::sample) would choose it: with the same random number,
    /// of which the device gets the upper 32 bits.
    pub fn sampling(&mut self) -> Sampling {
        let SamplerOptions { temperature, top_k, top_p, min_p, .. } = self.options;
        if self.is_greedy() {
            return Sampling::Greedy;
        }
        let top_k = u32::try_from(top_k).unwrap_or(u32::MAX);
        Sampling::Random { temperature, top_k, top_p, min_p, draw: (self.random.next() >> 32) as u32 }
    }

    /// Chooses a token. `past` is the text so far, prompt included; `logits` are overwritten.
    ///
    /// # Errors
    /// There are no logits, or some are not finite.
    pub fn sample(&mut self, past: &[u32], logits: &mut [f32]) -> Result<u32, SamplerError> {
        self.penalise(past, logits)?;
        if self.is_greedy() {
            return Ok(argmax(logits));
        }
        let candidates = self.candidates(logits);
        let weights = weights(&candidates);
        let mut left = self.random.unit() * weights.iter().sum::<f64>();
        let mut chosen = 0;
        for (i, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
            chosen = i;
            left -= weight;
            if left < 0.0 {
                break;
            }
        }
        Ok(candidates[chosen].id)
    }

    /// Applies the options to the logits; a token that cannot be chosen gets minus infinity. With temperature 0 only the penalty
    /// is applied.
    ///
    /// # Errors
    /// There are no logits, or some are not finite.
    pub fn process(&self, past: &[u32], logits: &mut [f32]) -> Result<(), SamplerError> {
        self.penalise(past, logits)?;
        if self.is_greedy() {
            return Ok(());
        }
        let candidates = self.candidates(logits);
        logits.fill(f32::NEG_INFINITY);
        for Candidate { id, logit } in candidates {
            logits[id as usize] = logit;
        }
        Ok(())
    }

    /// The probability of every token to be chosen; `logits` are overwritten.
    ///
    /// # Errors
    /// There are no logits, or some are not finite.
    pub fn probabilities(&self, past: &[u32], logits: &mut [f32]) -> Result<Vec<f32>, SamplerError> {
        self.penalise(past, logits)?;
        let mut probabilities = vec![0.0; logits.len()];
        if self.is_greedy() {
            probabilities[argmax(logits) as usize] = 1.0;
            return Ok(probabilities);
        }
        let candidates = self.candidates(logits);
        let weights = weights(&candidates);
        let total: f64 = weights.iter().sum();
        for (candidate, weight) in candidates.iter().zip(weights) {
            probabilities[candidate.id as usize] = (weight / total) as f32;
        }
        Ok(probabilities)
    }

    /// Checks the logits and applies the repetition penalty, once to each token of the text.
    fn penalise(&self, past: &[u32], logits: &mut [f32]) -> Result<(), SamplerError> {
        if logits.is_empty() {
            return Err(SamplerError::NoLogits);
        }
        if let Some(token) = logits.iter().position(|logit| !logit.is_finite()) {
            return Err(SamplerError::NotFinite { token, value: logits[token] });
        }
        let penalty = self.options.repetition_penalty;
        if penalty == 1.0 {
            return Ok(());
        }
        let mut seen = vec![0u64; logits.len().div_ceil(64)];
        for &token in past {
            let token = token as usize;
            let Some(logit) = logits.get_mut(token) else { continue };
            let (word, bit) = (token / 64, 1 << (token % 64));
            if seen[word] & bit == 0 {
                seen[word] |= bit;
                let changed = if *logit < 0.0 { *logit * penalty } else { *logit / penalty };
                *logit = changed.clamp(f32::MIN, f32::MAX);
            }
        }
        Ok(())
    }

    /// The tokens that can be chosen, with their logits after all options. Overwrites `logits` with the scaled ones.
    fn candidates(&self, logits: &mut [f32]) -> Vec<Candidate> {
        self.divide_by_temperature(logits);
        let floor = match self.options.top_k {
            k if k > 0 && k < logits.len() => kth_largest(logits, k),
            _ => f32::NEG_INFINITY,
        };
        let mut candidates: Vec<Candidate> = (0..)
            .zip(logits.iter())
            .filter(|(_, logit)| **logit >= floor)
            .map(|(id, &logit)| Candidate { id, logit })
            .collect();
        if self.options.top_p < 1.0 {
            keep_top_p(&mut candidates, f64::from(self.options.top_p));
        }
        if self.options.min_p > 0.0 {
            let (max, min_p) = (max_logit(&candidates), f64::from(self.options.min_p));
            candidates.retain(|candidate| exp(f64::from(candidate.logit) - max) >= min_p);
        }
        candidates
    }

    fn divide_by_temperature(&self, logits: &mut [f32]) {
        let temperature = self.options.temperature;
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        // A shift changes no probability, and prevents an overflow with a tiny temperature.
        let shift = if (max / temperature).is_finite() { 0.0 } else { max };
        logits.iter_mut().for_each(|logit| *logit = (*logit - shift) / temperature);
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

/// The `k`-th largest value, without sorting: most values are below the best `k` so far and cost one comparison.
fn kth_largest(values: &[f32], k: usize) -> f32 {
    let descending = |a: &f32, b: &f32| b.total_cmp(a);
    let mut best = Vec::with_capacity(2 * k);
    let mut floor = f32::NEG_INFINITY;
    for &value in values {
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

/// Drops the least likely tokens, up to a total probability of `1 - top_p`, but never the likeliest. Of equal ones, those with
/// the lower id stay.
fn keep_top_p(candidates: &mut Vec<Candidate>, top_p: f64) {
    let max = max_logit(candidates);
    let weights = weights(candidates);
    let total: f64 = weights.iter().sum();
    let budget = (1.0 - top_p) * total;
    // A token below the budget's mean per candidate is dropped in any case, and needs no sorting.
    let share = budget / candidates.len() as f64;
    let mut dropped: f64 = weights.iter().filter(|weight| **weight < share).sum();
    let mut weights = weights.into_iter();
    candidates.retain(|_| weights.next().is_some_and(|weight| weight >= share));
    candidates.sort_unstable_by(|a, b| a.logit.total_cmp(&b.logit).then(b.id.cmp(&a.id)));
    let last = candidates.len().saturating_sub(1);
    let first_kept = candidates[..last].iter().position(|candidate| {
        dropped += exp(f64::from(candidate.logit) - max);
        dropped > budget
    });
    candidates.drain(..first_kept.unwrap_or(last));
    // sampling goes through the candidates by id, as on-device sampling does
    candidates.sort_unstable_by_key(|candidate| candidate.id);
}

/// Weights in proportion to the probabilities; the largest is 1.
fn weights(candidates: &[Candidate]) -> Vec<f64> {
    let max = max_logit(candidates);
    candidates.iter().map(|candidate| exp(f64::from(candidate.logit) - max)).collect()
}

fn max_logit(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|candidate| f64::from(candidate.logit)).fold(f64::NEG_INFINITY, f64::max)
}

/// `e^x` for `x <= 0`, of basic operations only: the system's own differs between platforms in the last bit.
fn exp(x: f64) -> f64 {
    if x < -700.0 {
        return 0.0;
    }
    let k = (x * std::f64::consts::LOG2_E).round_ties_even();
    // ln 2 in two parts, the first with zeros at its end, so that its product with k is exact.
    let r = (x - k * 6.931_471_803_691_238e-1) - k * 1.908_214_929_270_587_7e-10;
    let mut sum = 1.0;
    for n in (1..=13).rev() {
        sum = 1.0 + sum * r / f64::from(n);
    }
    sum * f64::from_bits(((1023 + k as i64) as u64) << 52)
}

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014): a counter and a mixing function.
#[derive(Debug, Clone)]
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// In [0, 1).
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(change: impl FnOnce(&mut SamplerOptions)) -> Sampler {
        let mut options = SamplerOptions { temperature: 1.0, ..SamplerOptions::default() };
        change(&mut options);
        Sampler::new(options).unwrap()
    }

    #[test]
    fn random_numbers_are_the_published_ones() {
        let mut random = SplitMix64(1_234_567);
        assert_eq!([random.next(), random.next()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }

    #[test]
    fn exp_is_exp() {
        for i in 0..70_000 {
            let x = -f64::from(i) * 0.01;
            assert!((exp(x) - x.exp()).abs() <= 4.0 * f64::EPSILON * x.exp(), "{x}");
        }
        assert_eq!((exp(0.0), exp(f64::NEG_INFINITY)), (1.0, 0.0));
    }

    #[test]
    fn kth_largest_of_many() {
        let mut random = SplitMix64(3);
        let values: Vec<f32> = (0..5000).map(|_| (random.next() % 1000) as f32).collect();
        let mut sorted = values.clone();
        sorted.sort_unstable_by(|a, b| b.total_cmp(a));
        for k in [1, 2, 7, 100, 2499, 4999, 5000] {
            assert_eq!(kth_largest(&values, k), sorted[k - 1], "{k}");
        }
    }

    #[test]
    fn choices_follow_the_probabilities() {
        let logits = [0.5, -1.0, 2.0, 1.5, 0.0, -3.0, 1.0];
        let mut sampler = sampler(|o| (o.temperature, o.top_k, o.top_p, o.seed) = (0.9, 6, 0.95, 7));
        let expected = sampler.probabilities(&[], &mut logits.clone()).unwrap();
        let draws = 200_000;
        let mut counts = [0u32; 7];
        for _ in 0..draws {
            counts[sampler.sample(&[], &mut logits.clone()).unwrap() as usize] += 1;
        }
        for (count, p) in counts.iter().zip(expected) {
            let (n, p) = (f64::from(draws), f64::from(p));
            let sigma = (n * p * (1.0 - p)).sqrt();
            assert!((f64::from(*count) - n * p).abs() <= 5.0 * sigma, "{count} of {n} for {p}");
        }
    }

    #[test]
    fn seeds_repeat() {
        let draw = |seed| {
            let mut sampler = sampler(|o| o.seed = seed);
            (0..32).map(|_| sampler.sample(&[], &mut [0.0; 100]).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn greedy_takes_the_first_of_equals_and_still_penalises() {
        let mut greedy = Sampler::new(SamplerOptions::default()).unwrap();
        assert!(greedy.is_independent());
        assert_eq!(greedy.sample(&[], &mut [0.0, 2.0, 2.0]), Ok(1));
        let mut greedy = Sampler::new(SamplerOptions { repetition_penalty: 2.0, ..SamplerOptions::default() }).unwrap();
        assert!(!greedy.is_independent());
        assert_eq!(greedy.sample(&[1, 1, 9999], &mut [0.0, 2.0, 1.5]), Ok(2));
        let mut logits = [4.0, -4.0, 1.0];
        greedy.process(&[0, 1, 0], &mut logits).unwrap();
        assert_eq!(logits, [2.0, -8.0, 1.0]);
    }

    #[test]
    fn ties_at_the_edge() {
        let mut logits = [1.0, 3.0, 1.0, 0.0];
        sampler(|o| o.top_k = 2).process(&[], &mut logits).unwrap();
        assert_eq!(logits, [1.0, 3.0, 1.0, f32::NEG_INFINITY]);
        let kept = |top_p| {
            let mut logits = [0.0; 4];
            sampler(|o| o.top_p = top_p).process(&[], &mut logits).unwrap();
            logits.map(f32::is_finite)
        };
        assert_eq!(kept(0.6), [true, true, true, false]);
        assert_eq!(kept(1e-9), [true, false, false, false]);
    }

    #[test]
    fn extreme_values() {
        let mut cold = sampler(|o| o.temperature = 1e-38);
        assert_eq!(cold.sample(&[], &mut [1.0, 30.0, -30.0]), Ok(1));
        let mut wide = sampler(|o| (o.top_p, o.min_p) = (0.5, 1.0));
        assert_eq!(wide.sample(&[], &mut [f32::MIN, f32::MAX]), Ok(1));
        let mut penalty = sampler(|o| o.repetition_penalty = 1e-30);
        assert_eq!(penalty.sample(&[0], &mut [1e30, 1.0]), Ok(0));
        let mut one = sampler(|o| (o.top_k, o.top_p) = (usize::MAX, 0.1));
        assert_eq!(one.sample(&[], &mut [5.0]), Ok(0));
    }

    #[test]
    fn faults_are_named() {
        for (change, name) in [
            (SamplerOptions { temperature: -1.0, ..Default::default() }, "temperature"),
            (SamplerOptions { temperature: f32::NAN, ..Default::default() }, "temperature"),
            (SamplerOptions { top_p: 0.0, ..Default::default() }, "top_p"),
            (SamplerOptions { top_p: f32::NAN, ..Default::default() }, "top_p"),
            (SamplerOptions { min_p: 1.5, ..Default::default() }, "min_p"),
            (SamplerOptions { repetition_penalty: 0.0, ..Default::default() }, "repetition_penalty"),
        ] {
            let error = Sampler::new(change).unwrap_err();
            assert!(matches!(error, SamplerError::Option { option, .. } if option == name), "{error}");
        }
        let mut sampler = sampler(|_| ());
        assert_eq!(sampler.sample(&[], &mut []), Err(SamplerError::NoLogits));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error = sampler.sample(&[], &mut [0.0, bad]).unwrap_err();
            assert!(matches!(error, SamplerError::NotFinite { token: 1, .. }), "{error}");
        }
    }
}
