//! What one rendering may take.

use crate::error::{Result, fail};

/// Steps: expressions, statements, items. The longest chat templates take some hundred for every message.
const STEPS: u64 = 20_000_000;

/// Bytes of all texts and lists that are made, also of those that are dropped again.
pub(crate) const BYTES: u64 = 512 << 20;

/// Calls and nested expressions within each other.
const DEPTH: u32 = 4000;

/// What is left for a rendering.
#[derive(Debug)]
pub(crate) struct Budget {
    steps: u64,
    bytes: u64,
    depth: u32,
}

impl Budget {
    pub(crate) fn new() -> Self {
        Self { steps: STEPS, bytes: BYTES, depth: 0 }
    }

    /// Takes a step.
    pub(crate) fn step(&mut self) -> Result<()> {
        self.steps(1)
    }

    pub(crate) fn steps(&mut self, count: usize) -> Result<()> {
        match self.steps.checked_sub(count as u64) {
            Some(left) => self.steps = left,
            None => return fail!(Limit, "the template takes more than {STEPS} steps"),
        }
        Ok(())
    }

    /// Takes room before it is filled; also a step for every 64 bytes, the time that filling them takes.
    pub(crate) fn charge(&mut self, bytes: usize) -> Result<()> {
        match self.bytes.checked_sub(bytes as u64) {
            Some(left) => self.bytes = left,
            None => return fail!(Limit, "the template makes more than {} MiB of text and lists", BYTES >> 20),
        }
        self.steps(bytes / 64)
    }

    /// Room for `count` pieces of `bytes` each.
    pub(crate) fn charge_many(&mut self, count: usize, bytes: usize) -> Result<()> {
        self.charge(count.saturating_mul(bytes))
    }

    pub(crate) fn enter(&mut self) -> Result<()> {
        if self.depth == DEPTH {
            return fail!(Limit, "the template nests calls and expressions more than {DEPTH} deep");
        }
        self.depth += 1;
        Ok(())
    }

    pub(crate) fn leave(&mut self) {
        self.depth -= 1;
    }
}
