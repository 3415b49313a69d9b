//! Events of a generation on their way from the engine's thread.

use super::Event;
use crate::Result;
use crate::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::collections::VecDeque;
use std::task::{Poll, Waker};

/// A queue of events that ends.
#[derive(Default)]
pub(crate) struct Events {
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    events: VecDeque<Result<Event>>,
    closed: bool,
    waker: Option<Waker>,
}

impl Events {
    /// Adds an event. The engine does not wait for a reader.
    pub(crate) fn push(&self, event: Result<Event>) {
        let mut state = self.locked();
        state.events.push_back(event);
        self.notify(state);
    }

    /// Ends the queue: nothing follows.
    pub(crate) fn close(&self) {
        let mut state = self.locked();
        state.closed = true;
        self.notify(state);
    }

    /// Events that were not taken yet.
    pub(crate) fn len(&self) -> usize {
        self.locked().events.len()
    }

    /// Waits for the next event; `None` at the end.
    pub(crate) fn wait(&self) -> Option<Result<Event>> {
        let mut state = self.locked();
        loop {
            if let Some(event) = state.events.pop_front() {
                return Some(event);
            }
            if state.closed {
                return None;
            }
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The next event, without waiting.
    pub(crate) fn poll(&self, waker: &Waker) -> Poll<Option<Result<Event>>> {
        let mut state = self.locked();
        match state.events.pop_front() {
            Some(event) => Poll::Ready(Some(event)),
            None if state.closed => Poll::Ready(None),
            None => {
                state.waker = Some(waker.clone());
                Poll::Pending
            }
        }
    }

    fn notify(&self, mut state: MutexGuard<'_, State>) {
        let waker = state.waker.take();
        drop(state);
        self.arrived.notify_all();
        waker.into_iter().for_each(Waker::wake);
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
