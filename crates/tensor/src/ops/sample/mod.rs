//! Sampling: the next token of rows of logits, and log-probabilities.

#[cfg(any(test, feature = "reference"))]
pub(crate) mod cases;
mod cpu;
#[cfg(feature = "gpu")]
mod gpu;
mod host;
#[cfg(any(test, feature = "reference"))]
pub(crate) mod reference;
#[cfg(feature = "gpu")]
pub(crate) mod self_check;

use crate::checks::{Shape, at_most};
use crate::{Device, Expected, Readback, Result, Timed};
use std::ops::Range;

/// Sampling of a token from logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampling {
    /// The token of the largest logit; of equal logits the first.
    Greedy,
    /// A random token: temperature, top-k, top-p (Holtzman et al. 2019, arXiv 1904.09751) and min-p, each on the tokens that the
    /// one before kept, then the first token whose cumulative probability passes `draw / 2^32`.
    ///
    /// A machine computes the weights `exp((logit - largest) / temperature)` in single precision, and sums them exactly. Of
    /// tokens of equal weights top-p drops the later ones. The token is the one that exact arithmetic gives for a draw, a top-p
    /// and a min-p that differ from these by rounding.
    Random {
        /// Divisor of the logits; more than 0.
        temperature: f32,
        /// Number of the largest logits that are kept, with those equal to the last of them; 0 for all.
        top_k: u32,
        /// The least likely tokens are dropped as long as their probabilities add up to at most 1 - this; 1 keeps all.
        top_p: f32,
        /// Least probability of a token, relative to that of the likeliest; 0 for all.
        min_p: f32,
        /// The random number, of 32 bits.
        draw: u32,
    },
    /// This token, whatever the logits are: for log-probabilities of a text that is given.
    Given(u32),
}

/// Change of a logit before a token is sampled: `(logit + bias)`, multiplied by the penalty if negative, else divided by it, plus
/// offset. Results beyond the largest number become that.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogitEdit {
    /// The token; at most one edit of a row has it.
    pub token: u32,
    /// Added first; minus infinity excludes the token.
    pub bias: f32,
    /// More than 0; 1 is neutral.
    pub penalty: f32,
    /// Added last.
    pub offset: f32,
}

/// What is sampled from a row of logits.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleRow {
    /// Row of the logits.
    pub row: u32,
    /// Where the device keeps the token: [`Batch::SAMPLED`](crate::Batch::SAMPLED) + slot stands for it in later passes.
    pub slot: u32,
    /// How the token is chosen.
    pub sampling: Sampling,
    /// Number of the mask in [`masks`](field@Samples::masks) whose bits tell which tokens may be chosen; all where absent.
    pub mask: Option<u32>,
    /// Edits of this row, a range of [`edits`](field@Samples::edits).
    pub edits: Range<u32>,
    /// Number of the largest log-probabilities to return; none, nor that of the token, where absent.
    pub logprobs: Option<u8>,
}

/// Rows to sample, all in one step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    /// The rows.
    pub rows: Vec<SampleRow>,
    /// Masks of `vocab.div_ceil(32)` words each; bit `token % 32` of word `token / 32` is 1 where a token may be chosen.
    pub masks: Vec<u32>,
    /// Edits of all rows.
    pub edits: Vec<LogitEdit>,
}

impl Samples {
    /// Greedy sampling of the first rows of logits into slots of the same numbers.
    pub fn greedy(rows: usize) -> Self {
        Self::of(&vec![Sampling::Greedy; rows])
    }

    /// Sampling of the first rows of logits into slots of the same numbers.
    pub fn of(samplings: &[Sampling]) -> Self {
        let row = |(row, &sampling)| SampleRow { row, slot: row, sampling, mask: None, edits: 0..0, logprobs: None };
        Self { rows: (0..).zip(samplings).map(row).collect(), ..Self::default() }
    }

    /// Empties the lists and keeps their memory.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.masks.clear();
        self.edits.clear();
    }

    /// Most log-probabilities of a row; `None` where no row wants any.
    #[cfg(feature = "gpu")]
    pub(crate) fn most_logprobs(&self) -> Option<usize> {
        self.rows.iter().filter_map(|row| row.logprobs).max().map(usize::from)
    }

    /// The row's mask.
    pub(crate) fn mask(&self, row: &SampleRow, vocab: usize) -> Option<&[u32]> {
        let words = vocab.div_ceil(32);
        row.mask.and_then(|mask| self.masks.get(mask as usize * words..(mask as usize + 1) * words))
    }

    /// The row's edits.
    pub(crate) fn edits(&self, row: &SampleRow) -> &[LogitEdit] {
        self.edits.get(row.edits.start as usize..row.edits.end as usize).unwrap_or_default()
    }
}

/// Sampled tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sampled {
    /// Token of each row of [`Samples::rows`]; [`Batch::NO_TOKEN`](crate::Batch::NO_TOKEN) where a logit is not finite, or all tokens are excluded.
    pub tokens: Vec<u32>,
    /// Log-probabilities of the rows that want some.
    pub logprobs: Vec<Option<Logprobs>>,
}

/// Log-probabilities of a row, by its logits before edits, masks and temperature.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprobs {
    /// Natural logarithm of the token's probability.
    pub token: f32,
    /// The likeliest tokens with the natural logarithms of their probabilities, falling; of equals the first one first.
    pub top: Vec<(u32, f32)>,
}

/// The operation `sample`.
pub trait Sample: Device {
    /// Passes that may be in flight at once: on a device that computes while the host goes on, more than 1.
    fn pipeline_depth(&self) -> usize {
        1
    }

    /// Makes room for the tokens of slots `0 .. slots`; contents are kept.
    ///
    /// # Errors
    ///
    /// Those of the device's memory.
    fn reserve_slots(&mut self, slots: usize) -> Result<()>;

    /// Samples tokens from rows of logits, `[rows, vocab]`, whose contents are lost. Runs the recorded operations; does not wait.
    /// Without rows, the result is complete at the end of the recorded operations.
    /// The next pass may embed the token of a slot as [`Batch::SAMPLED`](crate::Batch::SAMPLED) + slot, before it is read back.
    ///
    /// # Errors
    ///
    /// [`Error::Mismatch`](crate::Error::Mismatch) where a row, slot, mask, edit or token does not exist.
    fn sample(&mut self, logits: &mut Self::Rows, samples: &Samples) -> Result<Readback<Sampled>>;
}

impl<D: Sample> Sample for Timed<D> {
    /// Passes follow one another, so that the operations of each are timed.
    fn pipeline_depth(&self) -> usize {
        1
    }

    fn reserve_slots(&mut self, slots: usize) -> Result<()> {
        self.inner.reserve_slots(slots)
    }

    fn sample(&mut self, logits: &mut D::Rows, samples: &Samples) -> Result<Readback<Sampled>> {
        let sampled = self.inner.sample(logits, samples)?;
        self.end()?;
        Ok(sampled)
    }
}

/// Arguments of [`Sample::sample`].
pub(crate) fn check(samples: &Samples, logits: Shape, slots: usize) -> Result<()> {
    const OP: &str = "sample";
    let vocab = logits.cols;
    let words = vocab.div_ceil(32);
    Expected::MultipleOf(words).check(OP, "words of masks", samples.masks.len())?;
    let masks = samples.masks.len() / words;
    for row in &samples.rows {
        Expected::Below(logits.rows).check(OP, "row", row.row as usize)?;
        Expected::Below(slots).check(OP, "slot", row.slot as usize)?;
        if let Some(mask) = row.mask {
            Expected::Below(masks).check(OP, "mask", mask as usize)?;
        }
        at_most(OP, "edits", samples.edits.len(), row.edits.end as usize)?;
        at_most(OP, "edits", row.edits.end as usize, row.edits.start as usize)?;
        if let Sampling::Given(token) = row.sampling {
            Expected::Below(vocab).check(OP, "token", token as usize)?;
        }
        for edit in samples.edits(row) {
            Expected::Below(vocab).check(OP, "token", edit.token as usize)?;
        }
    }
    Ok(())
}
