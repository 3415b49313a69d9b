//! The state of a device that outlives a call: submissions in flight, and failures. Readbacks share it with the device.

use crate::{Error, Result};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Handles of an open device for waiting. Clones share one state.
#[derive(Clone)]
pub(crate) struct Driver {
    raw: wgpu::Device,
    queue: wgpu::Queue,
    pub(crate) name: Arc<str>,
    shared: Arc<Mutex<Shared>>,
    failure: Arc<Mutex<Option<Failure>>>,
}

struct Shared {
    /// Time limit of a submission.
    timeout: Duration,
    /// Submissions without a wait so far, oldest first.
    outstanding: VecDeque<Submission>,
    #[cfg(test)]
    waits: u64,
    /// Failure that the driver reports while the next submission is waited for.
    #[cfg(test)]
    wrong_wait: Option<&'static str>,
}

/// Submitted work.
#[derive(Clone, Debug)]
pub(crate) struct Submission {
    raw: wgpu::SubmissionIndex,
    number: u64,
}

/// The first failure.
struct Failure {
    message: String,
    state: State,
}

/// State of a device after a failure.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The device is usable; only the work during the failure is lost.
    Usable,
    Lost,
    /// A submission did not complete within this number of seconds.
    Hung(u64),
}

/// Longer waits are endless.
const ENDLESS: Duration = Duration::from_secs(1 << 32);

/// Largest number of submissions in `outstanding`.
const MOST_OUTSTANDING: usize = 256;

impl Driver {
    pub(crate) fn new(raw: &wgpu::Device, queue: &wgpu::Queue, name: &str, timeout: Duration) -> Self {
        let failure = Arc::new(Mutex::new(None));
        let errors = Arc::clone(&failure);
        raw.on_uncaptured_error(Arc::new(move |error: wgpu::Error| record(&errors, error.to_string(), State::Usable)));
        let losses = Arc::clone(&failure);
        raw.set_device_lost_callback(move |reason, message| {
            let message = format!("device lost ({reason:?}): {message}");
            record(&losses, message.trim_end_matches([':', ' ']).into(), State::Lost);
        });
        let shared = Shared {
            timeout,
            outstanding: VecDeque::new(),
            #[cfg(test)]
            waits: 0,
            #[cfg(test)]
            wrong_wait: None,
        };
        let shared = Arc::new(Mutex::new(shared));
        Self { raw: raw.clone(), queue: queue.clone(), name: name.into(), shared, failure }
    }

    /// Time limit of a submission.
    pub(crate) fn timeout(&self) -> Duration {
        locked(&self.shared).timeout
    }

    pub(crate) fn set_timeout(&self, timeout: Duration) {
        locked(&self.shared).timeout = timeout;
    }

    /// Records a submission to the queue.
    pub(crate) fn submitted(&self, raw: wgpu::SubmissionIndex, number: u64) -> Submission {
        let submission = Submission { raw, number };
        let outstanding = &mut locked(&self.shared).outstanding;
        if outstanding.len() == MOST_OUTSTANDING {
            outstanding.pop_front();
        }
        outstanding.push_back(submission.clone());
        submission
    }

    /// Lets wgpu run the callbacks of completed work; waits for nothing.
    pub(crate) fn poll(&self) {
        // wgpu panics where the device is lost while it is polled; the failure is recorded
        let _ = catch_unwind(AssertUnwindSafe(|| self.raw.poll(wgpu::PollType::Poll)));
    }

    /// Waits until a submission and those before it are complete. The time limit applies to each of them.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] beyond the time limit, and the errors of [`check`](Self::check).
    pub(crate) fn wait(&self, submission: &Submission) -> Result<()> {
        #[cfg(test)]
        {
            let mut shared = locked(&self.shared);
            shared.waits += 1;
            if let Some(message) = shared.wrong_wait.take() {
                record(&self.failure, message.into(), State::Usable);
            }
        }
        if self.is_gone() {
            return self.check();
        }
        loop {
            // the lock is released before the wait, which reads the time limit
            let before = locked(&self.shared).outstanding.pop_front_if(|before| before.number < submission.number);
            let Some(before) = before else { break };
            self.wait_for(before.raw)?;
        }
        locked(&self.shared).outstanding.pop_front_if(|own| own.number == submission.number);
        self.wait_for(submission.raw.clone())?;
        self.check()
    }

    fn wait_for(&self, submission: wgpu::SubmissionIndex) -> Result<()> {
        let timeout = Some(self.timeout()).filter(|timeout| *timeout < ENDLESS);
        let poll = wgpu::PollType::Wait { submission_index: Some(submission), timeout };
        // wgpu panics if the device is lost during the wait
        match catch_unwind(AssertUnwindSafe(|| self.raw.poll(poll))) {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(wgpu::PollError::Timeout)) => self.give_up(),
            Ok(Err(error)) => return Err(self.failed(error.to_string())),
            Err(_) => record(&self.failure, "device lost during a wait".into(), State::Lost),
        }
        self.check()
    }

    /// Leaks the handles of a device whose work never ends, because wgpu would wait for that work at the drop of the last handle.
    fn give_up(&self) {
        let seconds = self.timeout().as_secs();
        record(&self.failure, format!("a kernel did not end within {seconds} s"), State::Hung(seconds));
        std::mem::forget((self.raw.clone(), self.queue.clone()));
    }

    /// The message of the failure by which the device was lost or given up, if it was.
    pub(crate) fn lost(&self) -> Option<String> {
        // wgpu reports a loss when it is polled
        self.poll();
        let failure = locked(&self.failure);
        failure.as_ref().filter(|failure| failure.state != State::Usable).map(|failure| failure.message.clone())
    }

    pub(crate) fn is_gone(&self) -> bool {
        locked(&self.failure).as_ref().is_some_and(|failure| failure.state != State::Usable)
    }

    /// Returns the first failure that the driver reported since the last call, as an error of the work in between. A failure is
    /// returned once, unless the device is lost.
    ///
    /// # Errors
    ///
    /// [`Error::Device`]; [`Error::Lost`] and [`Error::Timeout`] on every call from then on.
    pub(crate) fn check(&self) -> Result<()> {
        if locked(&self.failure).is_none() {
            return Ok(());
        }
        // failures on a lost device may be reported before the loss
        self.lost();
        let mut failure = locked(&self.failure);
        let device = self.name.to_string();
        let error = match &*failure {
            None => return Ok(()),
            Some(Failure { message, state: State::Usable }) => Error::Device { device, message: message.clone() },
            Some(Failure { message, state: State::Lost }) => Error::Lost { device, message: message.clone() },
            Some(Failure { state: State::Hung(seconds), .. }) => Error::Timeout { device, seconds: *seconds },
        };
        failure.take_if(|failure| failure.state == State::Usable);
        Err(error)
    }

    /// The error of a call that failed: the failure that the driver reported before, else `message`.
    pub(crate) fn failed(&self, message: String) -> Error {
        self.lost();
        self.check().err().unwrap_or(Error::Device { device: self.name.to_string(), message })
    }

    /// How often something was waited for.
    #[cfg(test)]
    pub(crate) fn waits(&self) -> u64 {
        locked(&self.shared).waits
    }

    /// Number of submissions that were not waited for.
    #[cfg(test)]
    pub(crate) fn outstanding(&self) -> usize {
        locked(&self.shared).outstanding.len()
    }

    /// Sets the failure that the driver reports while the next submission is waited for; returns the one that was set.
    #[cfg(test)]
    pub(crate) fn set_wrong_wait(&self, message: Option<&'static str>) -> Option<&'static str> {
        std::mem::replace(&mut locked(&self.shared).wrong_wait, message)
    }
}

/// Records a failure if it is the first one, or the first that makes the device unusable.
fn record(failure: &Mutex<Option<Failure>>, message: String, state: State) {
    let mut failure = locked(failure);
    if failure.as_ref().is_none_or(|first| first.state == State::Usable && state != State::Usable) {
        *failure = Some(Failure { message, state });
    }
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
