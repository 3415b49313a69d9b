//! Buffers of sampling.

use super::device::{Buffer, Device, STORAGE};
use crate::Result;

/// Buffers of sampling, kept from pass to pass.
pub(crate) struct Sampling {
    /// Sampled tokens, by slot.
    pub(crate) sampled: Buffer,
    pub(crate) slots: usize,
    /// Records of the rows to sample, masks and edits.
    pub(crate) samples: Option<Buffer>,
    /// Tokens and log-probabilities of the rows.
    pub(crate) results: Option<Buffer>,
    /// Copies of logits: edited and masked.
    pub(crate) edited: Option<Buffer>,
    pub(crate) words: Vec<u32>,
}

impl Sampling {
    pub(crate) fn new(device: &mut Device) -> Result<Self> {
        let sampled = device.buffer("sampled tokens", 16, STORAGE)?;
        Ok(Self { sampled, slots: 0, samples: None, results: None, edited: None, words: Vec::new() })
    }
}
