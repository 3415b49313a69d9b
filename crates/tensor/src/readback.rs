//! Results of submitted passes that travel back to the host.

use crate::{Error, Result};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// A result that a backend computes: a future, which is never blocked on by polling it.
///
/// A CPU's result is complete at once. Dropping a readback gives the result up; the pass runs all the same.
pub struct Readback<T>(State<T>);

enum State<T> {
    Complete(Result<T>),
    #[cfg_attr(not(any(feature = "gpu", test)), allow(dead_code, reason = "results of the CPU are complete"))]
    Pending(Box<dyn Pending<T>>),
    Taken,
}

/// A result that is not complete yet.
pub(crate) trait Pending<T>: Send {
    /// The result if it is complete. Otherwise `waker` is woken when it is; on a native target something has to wait for the
    /// device, or poll it again.
    fn poll(&mut self, waker: Option<&Waker>) -> Option<Result<T>>;

    /// Waits for the result.
    fn wait(self: Box<Self>) -> Result<T>;
}

impl<T> Readback<T> {
    /// A complete result.
    pub fn complete(value: T) -> Self {
        Self(State::Complete(Ok(value)))
    }

    #[cfg(feature = "gpu")]
    pub(crate) fn pending(pending: impl Pending<T> + 'static) -> Self {
        Self(State::Pending(Box::new(pending)))
    }

    /// Whether the result is complete: [`wait`](Self::wait) returns at once.
    pub fn is_complete(&mut self) -> bool {
        self.advance(None);
        !matches!(self.0, State::Pending(_))
    }

    /// Waits for the result.
    ///
    /// # Errors
    ///
    /// Those of the device: a pass that failed, a lost device, or [`Error::Timeout`] where the pass takes longer than the device's
    /// limit.
    pub fn wait(self) -> Result<T> {
        match self.0 {
            State::Complete(result) => result,
            State::Pending(pending) => pending.wait(),
            State::Taken => Err(taken()),
        }
    }

    /// The result, changed by `change` once it is complete.
    pub fn map<U>(self, change: impl FnOnce(T) -> U + Send + 'static) -> Readback<U>
    where
        T: 'static,
        U: 'static,
    {
        match self.0 {
            State::Complete(result) => Readback(State::Complete(result.map(change))),
            State::Pending(inner) => Readback(State::Pending(Box::new(Mapped { inner, change: Some(change) }))),
            State::Taken => Readback(State::Taken),
        }
    }

    fn advance(&mut self, waker: Option<&Waker>) {
        if let State::Pending(pending) = &mut self.0
            && let Some(result) = pending.poll(waker)
        {
            self.0 = State::Complete(result);
        }
    }
}

impl<T: Unpin> Future for Readback<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        self.advance(Some(cx.waker()));
        match std::mem::replace(&mut self.0, State::Taken) {
            State::Complete(result) => Poll::Ready(result),
            State::Taken => Poll::Ready(Err(taken())),
            pending @ State::Pending(_) => {
                self.0 = pending;
                Poll::Pending
            }
        }
    }
}

struct Mapped<T, F> {
    inner: Box<dyn Pending<T>>,
    change: Option<F>,
}

impl<T, U, F: FnOnce(T) -> U + Send> Pending<U> for Mapped<T, F> {
    fn poll(&mut self, waker: Option<&Waker>) -> Option<Result<U>> {
        let result = self.inner.poll(waker)?;
        Some(result.and_then(|value| self.change.take().map(|change| change(value)).ok_or_else(taken)))
    }

    fn wait(self: Box<Self>) -> Result<U> {
        let value = self.inner.wait()?;
        self.change.map(|change| change(value)).ok_or_else(taken)
    }
}

/// A result that was taken before.
fn taken() -> Error {
    Error::Device { device: "readback".into(), message: "the result was taken before".into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    /// Complete at the third poll.
    struct Third(usize);

    impl Pending<usize> for Third {
        fn poll(&mut self, waker: Option<&Waker>) -> Option<Result<usize>> {
            self.0 += 1;
            waker.inspect(|waker| waker.wake_by_ref());
            (self.0 == 3).then_some(Ok(7))
        }

        fn wait(self: Box<Self>) -> Result<usize> {
            Ok(7)
        }
    }

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_readback_is_a_future_and_can_be_waited_for() {
        assert_eq!(Readback::complete(3).map(|n| n + 1).wait().unwrap(), 4);
        assert_eq!(Readback(State::Pending(Box::new(Third(0)))).map(|n| n + 1).wait().unwrap(), 8);

        let mut readback = Readback(State::Pending(Box::new(Third(0)))).map(|n| n * 2);
        assert!(!readback.is_complete());
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut cx = Context::from_waker(&waker);
        assert!(Pin::new(&mut readback).poll(&mut cx).is_pending());
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(matches!(Pin::new(&mut readback).poll(&mut cx), Poll::Ready(Ok(14))));
        assert!(matches!(Pin::new(&mut readback).poll(&mut cx), Poll::Ready(Err(_))));
        assert!(readback.is_complete() && readback.wait().is_err());
    }
}
