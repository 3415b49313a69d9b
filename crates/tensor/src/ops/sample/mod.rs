//! Sampling: the next token of each row of logits, on the device.

#[cfg(any(test, feature = "reference"))]
pub(crate) mod cases;
mod cpu;
#[cfg(feature = "gpu")]
mod gpu;
#[cfg(any(test, feature = "reference"))]
pub(crate) mod reference;
#[cfg(feature = "gpu")]
pub(crate) mod self_check;

use crate::{Device, Error, Result, Timed};

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
}

/// The operation `sample`. A machine that does not sample keeps the default methods.
pub trait Sample: Device {
    /// Passes that may be in flight at once whose tokens the machine samples; 0 where it samples none.
    fn pipeline_depth(&self) -> usize {
        0
    }

    /// Samples a token from each of the first rows of logits, `[rows, vocab]`, whose contents are lost, runs the recorded
    /// operations and waits for nothing. The next pass may embed the token of row i as
    /// [`Batch::SAMPLED`](crate::Batch::SAMPLED) + i, before it is read back.
    ///
    /// # Errors
    ///
    /// [`Error::Absent`] on a machine that does not sample, [`Error::Mismatch`] where `samplings` are not as many as the rows of
    /// the pass, or too many passes are in flight.
    fn sample(&mut self, _logits: &mut Self::Rows, _samplings: &[Sampling]) -> Result<()> {
        Err(not_sampled(self))
    }

    /// Waits for the oldest pass in flight and gives its tokens; [`Batch::NO_TOKEN`](crate::Batch::NO_TOKEN) where a logit was not
    /// finite.
    ///
    /// # Errors
    ///
    /// [`Error::Absent`] on a machine that does not sample, [`Error::Mismatch`] where no pass is in flight, or it had another
    /// number of rows.
    fn sampled(&mut self, _tokens: &mut [u32]) -> Result<()> {
        Err(not_sampled(self))
    }
}

/// Every pass ends with logits on the host, so that all its operations are timed.
impl<D: Device> Sample for Timed<D> {}

fn not_sampled(device: &impl Device) -> Error {
    Error::Absent { device: device.info().name.clone(), what: "sampling of tokens" }
}
