//! A scheduler that knows which requests have not ended.

use crate::generate::FinishReason;
use std::collections::BTreeSet;
use std::time::Duration;

pub(crate) type Time = Duration;
pub(crate) type RequestId = usize;
pub(crate) struct NewRequest;
pub(crate) struct SchedulerStats;
pub(crate) struct Busy;
pub(crate) struct Refused;

pub(crate) enum Event {
    Token(usize),
    Finished(FinishReason),
}

#[derive(Default)]
pub(crate) struct Scheduler {
    submitted: RequestId,
    open: BTreeSet<RequestId>,
}

impl Scheduler {
    pub(crate) fn submit(&mut self, _: NewRequest, _: Time) -> Result<RequestId, Refused> {
        self.submitted += 1;
        self.open.insert(self.submitted);
        Ok(self.submitted)
    }

    pub(crate) fn cancel(&mut self, id: RequestId, reason: FinishReason, events: &mut Vec<(RequestId, Event)>) {
        if self.open.remove(&id) {
            events.push((id, Event::Finished(reason)));
        }
    }

    pub(crate) fn busy(&self, _: usize) -> Option<Busy> {
        None
    }

    pub(crate) fn stats(&self) -> SchedulerStats {
        SchedulerStats
    }
}
