//! State that callers and the engine's thread share.

use super::job::Job;
use crate::generate::FinishReason;
use crate::scheduler::{self, NewRequest, RequestId, Scheduler, SchedulerStats, Time};
use crate::sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use crate::{Error, Result};
use phi3_model::Model;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// Work on the model between two passes. The result tells whether the KV cache is as it was.
pub(super) type Task = Box<dyn FnOnce(&mut dyn Model) -> Cache + Send>;

/// State of the KV cache after a [`Task`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cache {
    Kept,
    Lost,
}

/// The shared state, and the signal that it has changed.
pub(crate) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    started: Instant,
}

pub(super) struct State {
    pub(super) scheduler: Scheduler,
    pub(super) jobs: BTreeMap<RequestId, Job>,
    pub(super) tasks: VecDeque<Task>,
    /// Whether the thread is to end.
    pub(super) stopping: bool,
    /// Whether the thread has ended.
    pub(super) ended: bool,
}

impl Shared {
    pub(super) fn new(scheduler: Scheduler) -> Self {
        let state = State { scheduler, jobs: BTreeMap::new(), tasks: VecDeque::new(), stopping: false, ended: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), started: Instant::now() }
    }

    pub(super) fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the state changes.
    pub(super) fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the state changes, but not longer than `time`.
    pub(super) fn wait_for<'a>(&self, state: MutexGuard<'a, State>, time: Duration) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0
    }

    pub(crate) fn notify(&self) {
        self.changed.notify_all();
    }

    /// Time since the engine's start.
    pub(super) fn now(&self) -> Time {
        self.started.elapsed()
    }

    /// Ends the thread after the pass that it waits for.
    pub(super) fn stop(&self) {
        self.locked().stopping = true;
        self.notify();
    }

    pub(super) fn stats(&self) -> SchedulerStats {
        self.locked().scheduler.stats()
    }

    pub(super) fn busy(&self, tokens: usize) -> Option<scheduler::Busy> {
        self.locked().scheduler.busy(tokens)
    }

    /// Takes a request with its job.
    ///
    /// # Errors
    ///
    /// [`Error::Submit`] if it can never run, or too many wait; [`Error::Unfinished`] if the engine has ended.
    pub(super) fn submit(&self, request: NewRequest, job: Job) -> Result<RequestId> {
        let mut state = self.locked();
        if state.ended {
            return Err(Error::Unfinished);
        }
        let id = state.scheduler.submit(request, self.now())?;
        state.jobs.insert(id, job);
        drop(state);
        self.notify();
        Ok(id)
    }

    /// Ends a request, if it has not ended.
    pub(crate) fn cancel(&self, id: RequestId) {
        let mut state = self.locked();
        state.end(id, FinishReason::Interrupted);
        drop(state);
        self.notify();
    }

    /// Runs `task` on the engine's thread between two passes, and returns its result.
    pub(super) fn run<T: Send + 'static>(
        &self,
        cache: Cache,
        task: impl FnOnce(&mut dyn Model) -> T + Send + 'static,
    ) -> Result<T> {
        let (to, result) = mpsc::channel();
        let mut state = self.locked();
        if state.ended {
            return Err(Error::Unfinished);
        }
        state.tasks.push_back(Box::new(move |model| {
            // a caller that is gone needs no result
            let _ = to.send(task(model));
            cache
        }));
        drop(state);
        self.notify();
        // a thread that ends drops its tasks
        result.recv().map_err(|_| Error::Unfinished)
    }
}

impl State {
    /// Ends a request and its job.
    pub(super) fn end(&mut self, id: RequestId, reason: FinishReason) {
        let mut events = Vec::new();
        self.scheduler.cancel(id, reason, &mut events);
        self.deliver(events);
    }

    /// Ends a request with an error.
    pub(super) fn fail(&mut self, id: RequestId, error: Error) {
        if let Some(job) = self.jobs.remove(&id) {
            job.fail(error);
        }
        self.scheduler.cancel(id, FinishReason::Interrupted, &mut Vec::new());
    }

    /// Gives events to the jobs.
    pub(super) fn deliver(&mut self, events: Vec<(RequestId, scheduler::Event)>) {
        let mut ended = Vec::new();
        for (id, event) in events {
            if let scheduler::Event::Finished(reason) = event {
                self.jobs.remove(&id).into_iter().for_each(|job| job.finish(reason));
                continue;
            }
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            match job.take(event) {
                Ok(None) => {}
                Ok(Some(reason)) => ended.push((id, reason)),
                Err(error) => self.fail(id, error),
            }
        }
        for (id, reason) in ended {
            self.end(id, reason);
        }
    }
}
