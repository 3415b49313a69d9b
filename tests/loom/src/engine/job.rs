//! A job that counts its tokens.

use crate::generate::events::Events;
use crate::generate::{Event, FinishReason};
use crate::{Error, Result, scheduler};
use std::sync::Arc;

pub(super) struct Job {
    pub(super) events: Arc<Events>,
    pub(super) tokens: usize,
    /// Tokens of the whole answer.
    pub(super) limit: usize,
}

impl Job {
    pub(super) fn take(&mut self, event: scheduler::Event) -> Result<Option<FinishReason>> {
        if let scheduler::Event::Token(token) = event {
            self.events.push(Ok(Event::Token(token)));
            self.tokens += 1;
        }
        Ok((self.tokens == self.limit).then_some(FinishReason::Length))
    }

    pub(super) fn finish(self, reason: FinishReason) {
        self.events.push(Ok(Event::Done(reason)));
        self.events.close();
    }

    pub(super) fn fail(self, error: Error) {
        self.events.push(Err(error));
        self.events.close();
    }
}
