//! Models of the hand-over between threads: loom runs them in the orders in which their threads can meet.
//!
//! The modules `engine::shared` and `generate::events` are the texts of `crates/runner`, with loom's locks in place of the standard
//! library's. What they use beside locks is replaced by the least that they need. A thread that is never woken is a deadlock, which loom
//! reports. Models of three threads have at most five preemptions, the others any number.

#![cfg(test)]
#![allow(dead_code, reason = "what the engine uses and no model does")]

extern crate self as phi3_model;

mod sync {
    pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard, mpsc};
    pub(crate) use std::sync::PoisonError;
}

#[derive(Debug, PartialEq)]
pub(crate) enum Error {
    Unfinished,
    Refused,
}

impl From<scheduler::Refused> for Error {
    fn from(_: scheduler::Refused) -> Self {
        Self::Refused
    }
}

/// Runs a model of three threads.
fn bounded(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(5);
    builder.check(model);
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// The model of tasks, which are not run here.
pub(crate) trait Model {}

mod scheduler;

mod generate {
    #[path = "../../../../crates/runner/src/generate/events.rs"]
    pub(crate) mod events;

    #[derive(Debug, PartialEq)]
    pub(crate) enum Event {
        Token(usize),
        Done(FinishReason),
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    pub(crate) enum FinishReason {
        Length,
        Interrupted,
    }

    mod models;
}

mod engine {
    mod job;
    #[path = "../../../../crates/runner/src/engine/shared.rs"]
    mod shared;

    mod models;
}
