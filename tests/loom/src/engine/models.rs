//! Requests, cancellations and the end of the engine's thread, in any order.

use super::job::Job;
use super::shared::Shared;
use crate::generate::events::Events;
use crate::generate::{Event, FinishReason};
use crate::scheduler::{self, NewRequest, RequestId, Scheduler};
use crate::{Error, Result};
use loom::thread;
use std::sync::Arc;

/// The engine's thread: a token for each request in a turn, until it is stopped.
fn start(shared: &Arc<Shared>) -> thread::JoinHandle<()> {
    let shared = shared.clone();
    thread::spawn(move || {
        let mut state = shared.locked();
        while !state.stopping {
            let tokens: Vec<_> =
                state.jobs.iter().map(|(id, job)| (*id, scheduler::Event::Token(job.tokens))).collect();
            if tokens.is_empty() {
                state = shared.wait(state);
                continue;
            }
            state.deliver(tokens);
            drop(state);
            state = shared.locked();
        }
        state.ended = true;
        let open: Vec<RequestId> = state.jobs.keys().copied().collect();
        open.into_iter().for_each(|id| state.fail(id, Error::Unfinished));
    })
}

fn submit(shared: &Shared, limit: usize) -> Result<(RequestId, Arc<Events>)> {
    let events = Arc::new(Events::default());
    let id = shared.submit(NewRequest, Job { events: events.clone(), tokens: 0, limit })?;
    Ok((id, events))
}

fn all(events: &Events) -> Vec<Result<Event>> {
    std::iter::from_fn(|| events.wait()).collect()
}

/// Tokens in order, then one end.
fn check(events: &[Result<Event>]) {
    let Some((last, tokens)) = events.split_last() else { panic!("no end") };
    assert!(tokens.iter().enumerate().all(|(i, token)| *token == Ok(Event::Token(i))), "{events:?}");
    assert!(matches!(last, Ok(Event::Done(_)) | Err(Error::Unfinished)), "{events:?}");
}

#[test]
fn a_request_wakes_the_thread_and_is_answered() {
    loom::model(|| {
        let shared = Arc::new(Shared::new(Scheduler::default()));
        let thread = start(&shared);
        let (_, events) = submit(&shared, 2).unwrap();
        let events = all(&events);
        check(&events);
        assert_eq!((events.len(), events.last()), (3, Some(&Ok(Event::Done(FinishReason::Length)))));
        shared.stop();
        thread.join().unwrap();
        assert_eq!(submit(&shared, 2).err(), Some(Error::Unfinished));
    });
}

#[test]
fn a_request_that_is_cancelled_ends_once() {
    loom::model(|| {
        let shared = Arc::new(Shared::new(Scheduler::default()));
        let thread = start(&shared);
        let (id, events) = submit(&shared, 2).unwrap();
        // as a generation does that is dropped
        shared.cancel(id);
        check(&all(&events));
        shared.cancel(id);
        assert!(shared.locked().jobs.is_empty());
        shared.stop();
        thread.join().unwrap();
    });
}

#[test]
fn a_request_that_meets_the_end_of_the_thread_ends_too() {
    crate::bounded(|| {
        let shared = Arc::new(Shared::new(Scheduler::default()));
        let thread = start(&shared);
        let other = shared.clone();
        let stopping = thread::spawn(move || other.stop());
        match submit(&shared, 1) {
            Ok((_, events)) => check(&all(&events)),
            Err(error) => assert_eq!(error, Error::Unfinished),
        }
        stopping.join().unwrap();
        thread.join().unwrap();
    });
}
