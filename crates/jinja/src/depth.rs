//! Limits of nesting, and the stack that they need.
//!
//! Real templates and messages are nested a few levels deep and run on the caller's stack. What is nested deeper runs again from the
//! start on a thread with a large stack, where the platform has threads.

use crate::error::{Result, fail};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Size in bytes of the large stack. Only the used part takes physical memory.
#[cfg(not(target_family = "wasm"))]
const STACK: usize = 256 << 20;

/// A limit of nesting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// On the caller's stack.
    shallow: usize,
    /// On a large stack.
    deep: usize,
}

thread_local! {
    static IS_DEEP: Cell<bool> = const { Cell::new(false) };
    /// Whether a limit of the caller's stack was reached.
    static REACHED: Cell<bool> = const { Cell::new(false) };
}

impl Limit {
    pub(crate) const fn new(shallow: usize, deep: usize) -> Self {
        Self { shallow, deep }
    }

    /// The limit, if something is nested so deep that nothing can be nested in it.
    pub(crate) fn reached(self, depth: usize) -> Option<usize> {
        let is_deep = IS_DEEP.get();
        let limit = if is_deep { self.deep } else { self.shallow };
        let reached = depth >= limit;
        if reached && !is_deep {
            REACHED.set(true);
        }
        reached.then_some(limit)
    }
}

/// Runs `work` on the caller's stack, or on a large one if it is nested too deep for that.
pub(crate) fn on_enough_stack<T: Send>(work: impl Fn() -> Result<T> + Sync) -> Result<T> {
    REACHED.set(false);
    let result = caught(&work);
    if REACHED.get() { on_large_stack(&work).unwrap_or(result) } else { result }
}

/// `None` on a platform without threads.
#[cfg(target_family = "wasm")]
fn on_large_stack<T>(_: &impl Fn() -> Result<T>) -> Option<Result<T>> {
    None
}

#[cfg(not(target_family = "wasm"))]
fn on_large_stack<T: Send>(work: &(impl Fn() -> Result<T> + Sync)) -> Option<Result<T>> {
    let deep = || {
        IS_DEEP.set(true);
        caught(work)
    };
    Some(std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("jinja".into()).stack_size(STACK);
        match thread.spawn_scoped(scope, deep).map(|thread| thread.join()) {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => failed(),
            Err(error) => fail!(Limit, "cannot start a thread for the template: {error}"),
        }
    }))
}

/// The result of `work`; a panic is an error.
fn caught<T>(work: &impl Fn() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| failed())
}

fn failed<T>() -> Result<T> {
    fail!(Unsupported, "the template engine failed")
}
