//! What goes into the scheduler and what comes out: requests, passes and events.

use crate::generate::FinishReason;
use phi3_model::{Input, Outputs, PageId, RopePolicy, RopeSet, RowInput};
use phi3_tensor::Phase;
use std::sync::Arc;
use std::time::Duration;

/// Time since a start that the caller chooses.
pub type Time = Duration;

/// A request. Later requests have greater numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub(super) u64);

/// A planned pass. Later passes have greater numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PassId(pub(super) u64);

/// Where the device keeps the last sampled token of a running request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub(super) u32);

impl Slot {
    /// Its number, less than [`max_running`](super::SchedulerOptions::max_running).
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A request as it is submitted.
#[derive(Clone, Debug)]
pub struct NewRequest {
    /// The prompt.
    pub inputs: Vec<Input>,
    /// Most new tokens. With 0, the prompt is computed and the request ends.
    pub max_tokens: usize,
    /// Tokens that end the answer.
    pub stop_tokens: Arc<[u32]>,
    /// Choice of the rope factors.
    pub rope: RopePolicy,
    /// Requests share cached prefixes if their salts are equal.
    pub salt: Option<Box<str>>,
    /// Who asks. The device is shared equally by the keys that have requests.
    pub key: Box<str>,
    /// Whether a row may be planned before the host knows its token. False where the host takes part in sampling.
    pub pipelined: bool,
    /// [`Outputs::All`] where the logits of every prompt row are wanted; cached prefixes are not used then. Else
    /// [`Outputs::Last`].
    pub outputs: Outputs,
    /// Most prompt rows of a pass.
    pub chunk: Option<usize>,
}

/// Rows of a request in a pass.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Whose they are.
    pub request: RequestId,
    /// Where the sampled token goes.
    pub slot: Slot,
    /// Kind of the rows; a segment has one kind.
    pub phase: Phase,
    /// Position of the first row.
    pub position: usize,
    /// The rows, at least one.
    pub rows: Vec<RowInput>,
    /// Pages of the positions from 0 to the last row's. Pages before a sliding window are
    /// [`Batch::NO_PAGE`](phi3_tensor::Batch::NO_PAGE).
    pub pages: Vec<PageId>,
    /// Rope factors of the rows and of the keys in the pages.
    pub rope: RopeSet,
    /// Rows whose logits are wanted.
    pub outputs: Outputs,
    /// Index of the new token that is sampled from the last row; `None` where none is.
    pub token_index: Option<usize>,
}

/// A pass: copies first, then the rows of all segments.
#[derive(Clone, Debug)]
pub struct Pass {
    /// Its number.
    pub id: PassId,
    /// Pages to copy, from and to. No page is in two copies as their target, and none is both a source and a target.
    pub copies: Vec<(PageId, PageId)>,
    /// At most one segment of each request, at least one in all; those of [`Phase::Decode`] first. No page is written by two.
    pub segments: Vec<Segment>,
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Its first rows are planned. Told once.
    Started {
        /// Inputs of the prompt that were cached.
        cached: usize,
        /// Time since its arrival.
        waited: Duration,
    },
    /// Inputs of the prompt were computed. After [`Paused`](Event::Paused) and [`RopeSwitch`](Event::RopeSwitch), they are counted again.
    Computed {
        /// Inputs that are computed, cached ones included.
        done: usize,
        /// Inputs of the prompt.
        total: usize,
    },
    /// The sequence has crossed LongRoPE's border and is computed again with the other factors.
    RopeSwitch {
        /// The factors from now on.
        set: RopeSet,
        /// Inputs whose keys and values are dropped.
        tokens: usize,
    },
    /// Its pages were given to older requests. It waits, and is computed again.
    Paused,
    /// A new token.
    Token {
        /// The token.
        id: u32,
        /// Its index among the new tokens.
        index: usize,
    },
    /// The end; nothing follows.
    Finished(FinishReason),
}
