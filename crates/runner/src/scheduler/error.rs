//! Why a request is refused.

use std::time::Duration;

/// A queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy {
    /// Estimated time until the prompts that wait now are computed.
    pub retry_after: Duration,
    /// Which limit is reached.
    pub limit: QueueLimit,
}

/// Limit of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueLimit {
    /// [`max_queued_requests`](super::SchedulerOptions::max_queued_requests).
    Requests,
    /// [`max_queued_tokens`](super::SchedulerOptions::max_queued_tokens).
    Tokens,
}

/// Refusals of a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// Too many wait already.
    #[error("too many {} wait; hint: try again in {:.0?}", match .0.limit {
        QueueLimit::Requests => "requests",
        QueueLimit::Tokens => "prompt tokens",
    }, .0.retry_after)]
    Busy(Busy),
    /// No requests are taken any more.
    #[error("the engine is ending its work; hint: try again when it has been started anew")]
    Draining,
    /// There is no prompt.
    #[error("the prompt is empty; hint: give at least one token")]
    Empty,
    /// The prompt is longer than the model's context.
    #[error("the prompt has {found} tokens; the model takes at most {limit}; hint: shorten the prompt")]
    TooLong {
        /// Tokens of the prompt.
        found: usize,
        /// Positions of the model.
        limit: usize,
    },
    /// The prompt needs more pages than there are.
    #[error(
        "the prompt needs {found} pages of the KV cache, which has {limit}; hint: give the cache more memory, or shorten the prompt"
    )]
    TooLarge {
        /// Pages that the prompt needs.
        found: usize,
        /// Pages of the cache.
        limit: usize,
    },
}
