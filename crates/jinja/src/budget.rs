//! Limits of one rendering.

use crate::depth::Limit;
use crate::error::{Result, fail};

/// Maximum number of steps: expressions, statements, items. The longest chat templates take some hundred per message.
const STEPS: u64 = 20_000_000;

/// Maximum total size in bytes of all created texts and lists, dropped ones included.
pub(crate) const BYTES: u64 = 512 << 20;

/// Maximum nesting of calls and expressions.
const DEPTH: Limit = Limit::new(48, 4000);

/// Remaining budget of a rendering.
#[derive(Debug)]
pub(crate) struct Budget {
    steps: u64,
    bytes: u64,
    depth: usize,
}

impl Budget {
    pub(crate) fn new() -> Self {
        Self { steps: STEPS, bytes: BYTES, depth: 0 }
    }

    /// Charges one step.
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

    /// Charges memory before it is filled, and one step per 64 bytes for the time to fill it.
    pub(crate) fn charge(&mut self, bytes: usize) -> Result<()> {
        match self.bytes.checked_sub(bytes as u64) {
            Some(left) => self.bytes = left,
            None => return fail!(Limit, "the template makes more than {} MiB of text and lists", BYTES >> 20),
        }
        self.steps(bytes / 64)
    }

    /// Charges `count` pieces of `bytes` each.
    pub(crate) fn charge_many(&mut self, count: usize, bytes: usize) -> Result<()> {
        self.charge(count.saturating_mul(bytes))
    }

    pub(crate) fn enter(&mut self) -> Result<()> {
        if let Some(limit) = DEPTH.reached(self.depth) {
            return fail!(Limit, "the template nests calls and expressions more than {limit} deep");
        }
        self.depth += 1;
        Ok(())
    }

    pub(crate) fn leave(&mut self) {
        self.depth -= 1;
    }
}
