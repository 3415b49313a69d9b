//! Speed of several sequences that are decoded at once.
//!
//! The measurement is that of llama.cpp's `llama-batched-bench` with prompts that are not shared. Every sequence has a prompt
//! of its own. Then every pass has one row of each sequence. Tokens are arbitrary and differ between sequences, and nothing is
//! sampled.

use super::{BenchOptions, arbitrary};
use crate::{Error, Result};
use phi3_model::{Error as ModelError, Input, Model, Outputs, Sequence, SequenceRows, Session, check_length};
use phi3_tensor::PAGE;
use std::fmt;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// A test of several sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParallelShape {
    /// Prompt tokens of each sequence.
    pub prompt: usize,
    /// Tokens of each sequence that are generated one by one.
    pub generated: usize,
    /// Number of sequences.
    pub sequences: usize,
}

impl ParallelShape {
    /// Positions of all sequences in the KV cache after the test.
    pub fn positions(self) -> usize {
        self.sequences.saturating_mul(self.length())
    }

    /// Tokens of each sequence after the test.
    fn length(self) -> usize {
        self.prompt.saturating_add(self.generated)
    }
}

impl fmt::Display for ParallelShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pp{} tg{} np{}", self.prompt, self.generated, self.sequences)
    }
}

/// Result of a test of several sequences: medians of its repetitions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ParallelSample {
    /// The test.
    pub shape: ParallelShape,
    /// Time of all prompts.
    pub prompt: Duration,
    /// Time of all generated tokens.
    pub generated: Duration,
}

impl ParallelSample {
    /// Prompt tokens per second, of all sequences together.
    pub fn prompt_rate(&self) -> f64 {
        rate(self.shape.sequences * self.shape.prompt, self.prompt)
    }

    /// Generated tokens per second, of all sequences together.
    pub fn generated_rate(&self) -> f64 {
        rate(self.shape.sequences * self.shape.generated, self.generated)
    }

    /// Time of prompts and generated tokens.
    pub fn total(&self) -> Duration {
        self.prompt + self.generated
    }

    /// Prompt and generated tokens per second, of all sequences together.
    pub fn rate(&self) -> f64 {
        rate(self.shape.positions(), self.total())
    }
}

/// Tokens per second; 0 without tokens.
fn rate(tokens: usize, time: Duration) -> f64 {
    1e9 * tokens as f64 / (time.as_nanos() as f64).max(1.0)
}

/// Median; the mean of the middle two of an even number of times, and 0 of none.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    let middle = |at: usize| times.get(at).copied().unwrap_or_default();
    match times.len() {
        0 => Duration::ZERO,
        count => (middle((count - 1) / 2) + middle(count / 2)) / 2,
    }
}

/// Times several sequences of a model at once. `watch` is called before every pass, untimed ones included. It cancels by returning
/// `Break`: the result is then `None`.
///
/// A pass has [`chunk`](BenchOptions::chunk) rows of the prompts, where so many are left, of as many sequences as that takes. KV cache
/// pages of all sequences are reserved before the first pass.
///
/// # Errors
///
/// [`Error::Argument`] without sequences. Others of the request are more sequences than a pass takes rows or outputs, more tokens
/// than the model's context, and more pages than the device's KV cache takes. Errors of the backend.
pub fn measure_parallel(
    model: &mut dyn Model,
    shape: ParallelShape,
    options: BenchOptions,
    watch: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<Option<ParallelSample>> {
    model.reserve(check(model, shape, options)?)?;
    let session = Session::new(model);
    let sequences = (0..shape.sequences).map(|_| session.sequence()).collect();
    let mut run = Run { session, sequences, shape, options, watch, logits: Vec::new() };
    // as `measure`: the whole prompts, but one token only
    if options.warm_up && !(run.prompts()? && run.generate(shape.generated.min(1))?) {
        return Ok(None);
    }
    let (mut prompts, mut generated) = (Vec::new(), Vec::new());
    for _ in 0..options.repetitions {
        let since = Instant::now();
        if !run.prompts()? {
            return Ok(None);
        }
        prompts.push(since.elapsed());
        let since = Instant::now();
        if !run.generate(shape.generated)? {
            return Ok(None);
        }
        generated.push(since.elapsed());
    }
    Ok(Some(ParallelSample { shape, prompt: median(prompts), generated: median(generated) }))
}

/// Checks that a model can run a test. Returns the number of KV cache pages that it needs.
fn check(model: &dyn Model, shape: ParallelShape, options: BenchOptions) -> Result<usize> {
    if shape.sequences == 0 {
        return Err(Error::Argument {
            argument: "sequences",
            expected: "at least 1".into(),
            found: shape.sequences.to_string(),
        });
    }
    let most = |what: &'static str, limit: usize, hint: &'static str| match shape.sequences <= limit {
        true => Ok(()),
        false => Err(ModelError::Request {
            what: "too many sequences",
            found: format!("{} sequences with one row each", shape.sequences),
            limit: format!("a pass takes {limit} {what}"),
            hint,
        }),
    };
    most("rows", model.max_rows(), "take fewer sequences, or load the model with more rows per pass")?;
    most("outputs", model.max_outputs(), "take fewer sequences")?;
    check_length(model.spec(), shape.length())?;

    // pages that a window has passed are free for other sequences
    let chunk = options.chunk.clamp(1, model.max_rows());
    let window = model.spec().window().map_or(usize::MAX, |window| window.saturating_add(chunk + PAGE));
    let pages = shape.length().min(window).div_ceil(PAGE).saturating_mul(shape.sequences);
    if pages > model.max_pages() {
        return Err(Error::Model(ModelError::Request {
            what: "too many sequences",
            found: format!("{} sequences of {} tokens with {pages} pages", shape.sequences, shape.length()),
            limit: format!("the KV cache takes {} pages of {PAGE} tokens on this device", model.max_pages()),
            hint: "take fewer or shorter sequences",
        }));
    }
    Ok(pages)
}

/// A test in progress. Every step returns `false` if it was cancelled.
struct Run<'a> {
    session: Session<'a>,
    sequences: Vec<Sequence>,
    shape: ParallelShape,
    options: BenchOptions,
    watch: &'a mut dyn FnMut() -> ControlFlow<()>,
    logits: Vec<f32>,
}

/// Distance between the first tokens of neighbouring sequences.
const APART: usize = 1009;

impl Run<'_> {
    /// Computes the prompts of all sequences, which are empty before.
    fn prompts(&mut self) -> Result<bool> {
        let BenchOptions { chunk, policy, .. } = self.options;
        let (spec, prompt) = (self.session.model().spec(), self.shape.prompt);
        let set = spec.rope.choose(policy, prompt, self.shape.length());
        let of = |index: usize| arbitrary(index * APART..index * APART + prompt, spec.vocab_size);
        let inputs: Vec<Vec<Input>> =
            (0..self.sequences.len()).map(|index| of(index).into_iter().map(Input::from).collect()).collect();
        let chunk = chunk.clamp(1, self.session.model().max_rows());
        self.sequences = self.sequences.drain(..).map(|sequence| sequence.with_rope(set)).collect();

        // rows of all prompts, one after the other
        let rows = inputs.len() * prompt;
        for start in (0..rows).step_by(chunk) {
            if (self.watch)().is_break() {
                return Ok(false);
            }
            let end = (start + chunk).min(rows);
            let of_pass = start / prompt..end.div_ceil(prompt);
            let part = |(index, sequence): (usize, _)| {
                let first = index * prompt;
                let taken = start.max(first) - first..end.min(first + prompt) - first;
                let outputs = if taken.end == prompt { Outputs::Last } else { Outputs::None };
                SequenceRows { sequence, inputs: &inputs[index][taken], outputs }
            };
            let mut parts: Vec<_> = of_pass.clone().zip(&mut self.sequences[of_pass]).map(part).collect();
            self.session.forward(&mut parts, &mut self.logits, None)?;
        }
        Ok(true)
    }

    /// Adds `count` tokens to every sequence, in passes of one row of each.
    fn generate(&mut self, count: usize) -> Result<bool> {
        let vocab = self.session.model().spec().vocab_size;
        for step in self.shape.prompt..self.shape.prompt + count {
            if (self.watch)().is_break() {
                return Ok(false);
            }
            let of = |index: usize| index * APART + step;
            let inputs: Vec<Input> = (0..self.sequences.len())
                .flat_map(|index| arbitrary(of(index)..of(index) + 1, vocab))
                .map(Input::from)
                .collect();
            let rows = self.sequences.iter_mut().zip(inputs.chunks(1));
            let mut parts: Vec<SequenceRows<'_>> =
                rows.map(|(sequence, inputs)| SequenceRows { sequence, inputs, outputs: Outputs::Last }).collect();
            self.session.forward(&mut parts, &mut self.logits, None)?;
        }
        Ok(true)
    }
}

#[cfg(all(test, feature = "demo"))]
mod tests {
    use super::*;
    use crate::DeviceOptions;
    use phi3_model::RopePolicy;

    const OPTIONS: BenchOptions = BenchOptions { repetitions: 2, warm_up: true, chunk: 4, policy: RopePolicy::Ahead };

    /// Calls `test` with a model of 8 rows per pass.
    fn with_demo(test: impl FnOnce(&mut dyn Model)) {
        let checkpoint = crate::Source::Demo.checkpoint().unwrap();
        let options = DeviceOptions { device: crate::Device::Cpu, max_rows: Some(8), ..DeviceOptions::default() };
        test(&mut *options.load(&checkpoint, &mut |_| {}).unwrap().model);
    }

    #[test]
    fn every_sequence_has_a_prompt_and_a_row_in_every_pass() {
        with_demo(|model| {
            let shape = ParallelShape { prompt: 6, generated: 3, sequences: 3 };
            let mut passes = 0;
            let count = &mut || {
                passes += 1;
                ControlFlow::Continue(())
            };
            let sample = measure_parallel(model, shape, OPTIONS, count).unwrap().unwrap();
            assert_eq!((sample.shape, shape.positions()), (shape, 27));
            assert!(sample.prompt > Duration::ZERO && sample.generated > Duration::ZERO);
            // 18 rows of prompts in passes of 4; one token in the warm-up, three in both repetitions
            assert_eq!(passes, 3 * 5 + 1 + 2 * 3);

            for cancelled in [0, 5, 6, 8, 14] {
                let mut left = cancelled;
                let watch = &mut || match left {
                    0 => ControlFlow::Break(()),
                    _ => {
                        left -= 1;
                        ControlFlow::Continue(())
                    }
                };
                assert_eq!(measure_parallel(model, shape, OPTIONS, watch).unwrap(), None, "{cancelled}");
            }
            // no prompts
            let shape = ParallelShape { prompt: 0, ..shape };
            let sample = measure_parallel(model, shape, OPTIONS, &mut || ControlFlow::Continue(())).unwrap().unwrap();
            assert!(sample.prompt_rate() == 0.0 && sample.generated_rate() > 0.0);
        });
    }

    #[test]
    fn rows_and_context_are_limits() {
        with_demo(|model| {
            let context = model.spec().max_position_embeddings;
            for (prompt, generated, sequences, words) in [
                (1, 1, 0, ["sequences: expected at least 1", "found 0"]),
                (1, 1, 9, ["9 sequences", "a pass takes 8 rows; hint: take fewer sequences"]),
                (context, 1, 2, ["max_position_embeddings", "hint: "]),
                (usize::MAX, 1, 1, ["max_position_embeddings", "hint: "]),
            ] {
                let shape = ParallelShape { prompt, generated, sequences };
                let error = measure_parallel(model, shape, OPTIONS, &mut || ControlFlow::Continue(())).unwrap_err();
                assert!(words.iter().all(|words| error.to_string().contains(words)), "{error}");
            }
        });
    }

    #[test]
    fn medians_and_rates() {
        let of = |ms: &[u64]| median(ms.iter().copied().map(Duration::from_millis).collect());
        assert_eq!((of(&[]), of(&[7])), (Duration::ZERO, Duration::from_millis(7)));
        assert_eq!((of(&[9, 1, 2]), of(&[9, 1, 2, 4])), (Duration::from_millis(2), Duration::from_millis(3)));
        let shape = ParallelShape { prompt: 100, generated: 50, sequences: 4 };
        let sample = ParallelSample { shape, prompt: Duration::from_secs(2), generated: Duration::from_secs(4) };
        assert_eq!((sample.prompt_rate(), sample.generated_rate(), sample.rate()), (200.0, 50.0, 100.0));
        assert_eq!(shape.to_string(), "pp100 tg50 np4");
    }
}
