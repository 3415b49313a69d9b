//! Speed of a model: prompts and generated tokens at a depth, over several repetitions.
//!
//! The tests are llama-bench's: `pp512` is a prompt of 512 tokens, `tg128` are 128 tokens one after another, `@ d4096` after
//! 4096 that are not timed. Tokens are arbitrary, and nothing is sampled. [`measure_parallel`] times several sequences at once.

mod parallel;

pub use parallel::{ParallelSample, ParallelShape, measure_parallel};

use crate::Result;
use phi3_model::{Model, Outputs, PrefillOptions, PrefillProgress, RopePolicy, Sequence, Session};
use std::fmt;
use std::ops::{ControlFlow, Range};
use std::time::Instant;

/// A test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Tokens of a prompt.
    pub prompt: usize,
    /// Tokens generated one by one.
    pub generated: usize,
    /// Tokens before the test, which are not timed.
    pub depth: usize,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.prompt, self.generated) {
            (prompt, 0) => write!(f, "pp{prompt}")?,
            (0, generated) => write!(f, "tg{generated}")?,
            (prompt, generated) => write!(f, "pp{prompt}+tg{generated}")?,
        }
        if self.depth > 0 { write!(f, " @ d{}", self.depth) } else { Ok(()) }
    }
}

/// Result of a test.
#[derive(Clone, Debug)]
pub struct Samples {
    /// The test.
    pub shape: Shape,
    /// Start time, ISO 8601 in UTC.
    pub started: String,
    /// Nanoseconds of each repetition.
    pub ns: Vec<u64>,
}

impl Samples {
    /// Tokens per second of each repetition.
    pub fn rates(&self) -> Vec<f64> {
        let tokens = (self.shape.prompt + self.shape.generated) as f64;
        self.ns.iter().map(|&ns| 1e9 * tokens / (ns as f64).max(1.0)).collect()
    }
}

/// Mean and sample standard deviation; no deviation of a single value.
pub fn statistics(values: &[f64]) -> (f64, f64) {
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    let square = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
    (mean, if values.len() > 1 { (square / (count - 1.0)).sqrt() } else { 0.0 })
}

/// Options of a test.
#[derive(Clone, Copy, Debug)]
pub struct BenchOptions {
    /// Number of timed repetitions.
    pub repetitions: usize,
    /// Whether an untimed run precedes them.
    pub warm_up: bool,
    /// Tokens per pass.
    pub chunk: usize,
    /// Choice of the rope factors; [`RopePolicy::Ahead`] takes those of the whole length from the start.
    pub policy: RopePolicy,
}

/// Times a model. `watch` is called before every pass, untimed ones included. It cancels by returning `Break`: the result is then
/// `None`.
///
/// # Errors
///
/// More tokens than the model's context, and errors of the backend.
pub fn measure(
    model: &mut dyn Model,
    shape: Shape,
    options: BenchOptions,
    watch: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<Option<Samples>> {
    let session = Session::new(model);
    let mut run = Run { sequence: session.sequence(), session, shape, options, watch, logits: Vec::new() };
    let mut samples =
        Samples { shape, started: crate::text::clock::now(), ns: Vec::with_capacity(options.repetitions) };
    // as llama-bench: the whole prompt, but one token only
    let once = Shape { generated: shape.generated.min(1), ..shape };
    if options.warm_up && !(run.deepen()? && run.pass(once)?) {
        return Ok(None);
    }
    for _ in 0..options.repetitions {
        if !run.deepen()? {
            return Ok(None);
        }
        let since = Instant::now();
        if !run.pass(shape)? {
            return Ok(None);
        }
        samples.ns.push(since.elapsed().as_nanos() as u64);
    }
    Ok(Some(samples))
}

/// Arbitrary tokens, the same for the same positions.
fn arbitrary(positions: Range<usize>, vocab: usize) -> Vec<u32> {
    positions.map(|i| ((i * 53 + 7) % vocab.max(1)) as u32).collect()
}

/// Computes `tokens` after those of `sequence`. `watch` is called before every pass; the result is `false` if it returned `Break`.
fn prefill(
    session: &mut Session<'_>,
    sequence: &mut Sequence,
    tokens: &[u32],
    options: PrefillOptions,
    logits: &mut Vec<f32>,
    watch: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<bool> {
    if watch().is_break() {
        return Ok(false);
    }
    let between = &mut |step: PrefillProgress| match step {
        // after the last pass nothing is left to cancel
        PrefillProgress::Pass { done, total } if done == total => ControlFlow::Continue(()),
        _ => watch(),
    };
    Ok(session.prefill(sequence, tokens, options, logits, None, between)?)
}

/// A test in progress. Every step returns `false` if it was cancelled.
struct Run<'a> {
    session: Session<'a>,
    sequence: Sequence,
    shape: Shape,
    options: BenchOptions,
    watch: &'a mut dyn FnMut() -> ControlFlow<()>,
    logits: Vec<f32>,
}

impl Run<'_> {
    fn feed(&mut self, count: usize, outputs: Outputs) -> Result<bool> {
        let vocab = self.session.model().spec().vocab_size;
        let first = self.sequence.len();
        let tokens = arbitrary(first..first + count, vocab);
        let Shape { prompt, generated, depth } = self.shape;
        let BenchOptions { chunk, policy, .. } = self.options;
        let settings = PrefillOptions { chunk, policy, budget: depth + prompt + generated, outputs };
        prefill(&mut self.session, &mut self.sequence, &tokens, settings, &mut self.logits, self.watch)
    }

    /// Truncates or extends the sequence to `depth` tokens.
    fn deepen(&mut self) -> Result<bool> {
        let window = self.session.model().spec().window();
        let left = self.sequence.truncate(self.shape.depth, window);
        Ok(left >= self.shape.depth || self.feed(self.shape.depth - left, Outputs::Last)?)
    }

    fn pass(&mut self, shape: Shape) -> Result<bool> {
        if shape.prompt > 0 && !self.feed(shape.prompt, Outputs::Last)? {
            return Ok(false);
        }
        for _ in 0..shape.generated {
            if !self.feed(1, Outputs::Last)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_have_the_names_that_dashboards_know() {
        let name = |prompt, generated, depth| Shape { prompt, generated, depth }.to_string();
        assert_eq!(name(512, 0, 0), "pp512");
        assert_eq!(name(0, 128, 4096), "tg128 @ d4096");
        assert_eq!(name(512, 128, 0), "pp512+tg128");
    }

    #[test]
    fn deviation_is_the_sample_s() {
        assert_eq!(statistics(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).0, 5.0);
        assert!((statistics(&[1.0, 3.0]).1 - 2f64.sqrt()).abs() < 1e-12);
        assert_eq!(statistics(&[3.0]), (3.0, 0.0));
    }
}
