//! Sampled tokens of passes in flight, and the buffers in which they come back.

use super::device::{Buffer, Device, STORAGE, Submission};
use crate::Result;
use std::collections::VecDeque;

/// Passes that may be in flight.
pub(crate) const PIPELINE_DEPTH: usize = 4;

/// Sampled tokens of the passes in flight.
pub(crate) struct InFlight {
    /// Tokens of the last pass.
    pub(crate) sampled: Buffer,
    /// Rows of the last pass that sampled.
    pub(crate) rows: usize,
    /// Buffers that tokens are copied to, in turn.
    pub(crate) ring: [Option<Buffer>; PIPELINE_DEPTH],
    pub(crate) next: usize,
    pub(crate) pending: VecDeque<Flight>,
}

/// A pass in flight.
pub(crate) struct Flight {
    /// Index into the ring.
    pub(crate) index: usize,
    pub(crate) rows: usize,
    pub(crate) submission: Submission,
}

impl InFlight {
    pub(crate) fn new(device: &mut Device) -> Result<Self> {
        let sampled = device.buffer("sampled tokens", 16, STORAGE)?;
        Ok(Self { sampled, rows: 0, ring: Default::default(), next: 0, pending: VecDeque::new() })
    }
}
