//! Scheduler of requests: which rows are computed next, and in which pages.
//!
//! It has no device, no threads and no clock; [`Time`] is given with each call. The caller's loop plans passes while fewer than the
//! pipeline's depth are in flight, submits them in order, and reports each result in the same order:
//!
//! ```text
//! while let Some(pass) = scheduler.plan(now, &mut events) { submit(pass) }
//! scheduler.complete(pass, &tokens, elapsed, now, &mut events)
//! ```
//!
//! A device executes passes in order, so pages of an ended or paused request are given to others at once, even while its passes are in
//! flight. Pausing, and LongRoPE's change of factors, are one transition: the pages are released, and the request waits again with
//! nothing computed. Its tokens stay, and what is still cached is found again.

mod complete;
mod costs;
mod error;
mod keys;
mod pass;
mod plan;
mod prompts;
mod request;
mod state;

pub use error::{Busy, QueueLimit, SubmitError};
pub use pass::{Event, NewRequest, Pass, PassId, RequestId, Segment, Slot, Time};
pub use phi3_tensor::Phase;
pub use state::{Scheduler, SchedulerOptions, SchedulerStats};

#[cfg(test)]
mod tests;
