//! What a download tells while it runs, and how it is stopped.

use crate::error::{Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

/// Something that happened during a download.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// What has to be fetched is known: files, and bytes as far as the hub tells their lengths. What has arrived already in
    /// an earlier try counts.
    Planned {
        /// Files that are not there yet.
        files: usize,
        /// Bytes of all of them together.
        bytes: u64,
    },
    /// A file begins, or goes on.
    Started {
        /// Its path in the repository.
        file: String,
        /// Its length, where it is known.
        size: Option<u64>,
        /// Bytes that are there already from an earlier try.
        from: u64,
    },
    /// Bytes have arrived, or what is there of an earlier try is being read.
    Progress {
        /// The file.
        file: String,
        /// Bytes of it that are there.
        done: u64,
    },
    /// Another process is fetching the file; it is waited for.
    Waiting {
        /// The file.
        file: String,
    },
    /// A try failed; another one follows.
    Retrying {
        /// The file, or what else was asked for.
        what: String,
        /// Why the try failed.
        reason: String,
        /// How long until the next one.
        pause: Duration,
    },
    /// A file is complete and checked.
    Finished {
        /// The file.
        file: String,
        /// Its length.
        size: u64,
    },
    /// The hub could not be asked; what is in the cache is used.
    Unreachable {
        /// Why it could not.
        reason: String,
    },
}

/// How a download is watched and stopped.
pub struct Watch<'a> {
    /// Ends the download soon after it is set; what has arrived is kept.
    pub stop: &'a AtomicBool,
    /// Is called with every event, on the thread that asked for the download.
    pub tell: &'a mut dyn FnMut(Event),
}

/// How often waiting code looks whether it should go on.
const LOOK: Duration = Duration::from_millis(20);

/// The longest pause that a hub may ask for; its limits are counted over five minutes.
const LONGEST_PAUSE: Duration = Duration::from_secs(310);

/// Between two events about the progress of a file.
const BETWEEN: Duration = Duration::from_millis(50);

/// The watch as the threads of a download see it.
#[derive(Clone)]
pub(crate) struct Reports<'a> {
    pub(crate) stop: &'a AtomicBool,
    /// Set by the first thread that fails, for the others.
    pub(crate) failed: &'a AtomicBool,
    pub(crate) events: Sender<Event>,
}

impl Reports<'_> {
    pub(crate) fn tell(&self, event: Event) {
        // whoever asked has gone away with an error of its own
        let _ = self.events.send(event);
    }

    /// An error once the download is to end.
    pub(crate) fn check(&self) -> Result<()> {
        match self.stop.load(Ordering::Relaxed) || self.failed.load(Ordering::Relaxed) {
            true => Err(Error::Stopped),
            false => Ok(()),
        }
    }

    /// Waits, unless the download is to end.
    pub(crate) fn sleep(&self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        loop {
            self.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(LOOK));
        }
    }

    /// Waits before the next try after a failure; an error where no other try makes sense.
    pub(crate) fn pause(&self, what: &str, error: Error, failures: u32, first: Duration) -> Result<()> {
        let own = first.saturating_mul(1 << failures.saturating_sub(1).min(3));
        let pause = match &error {
            Error::RateLimited { wait: Some(wait) } if *wait > LONGEST_PAUSE => return Err(error),
            Error::RateLimited { wait: Some(wait) } => own.max(*wait),
            _ => own,
        };
        // the reason, without what it says to do about it
        let reason = error.to_string();
        let reason = reason.split("; hint: ").next().unwrap_or(&reason).to_owned();
        self.tell(Event::Retrying { what: what.to_owned(), reason, pause });
        self.sleep(pause)
    }

    /// Asks, and asks again after failures that may pass.
    pub(crate) fn patiently<T>(
        &self,
        what: &str,
        tries: u32,
        first: Duration,
        ask: impl Fn() -> Result<T>,
    ) -> Result<T> {
        let mut failures = 0;
        loop {
            self.check()?;
            match ask() {
                Err(error) if error.may_pass() && failures + 1 < tries => {
                    // a stopped connection looks like a broken one
                    self.check()?;
                    failures += 1;
                    self.pause(what, error, failures, first)?;
                }
                result => return result,
            }
        }
    }
}

/// Tells the progress of a file, not too often.
pub(crate) struct Meter<'r, 'a> {
    reports: &'r Reports<'a>,
    file: String,
    last: Instant,
}

impl<'r, 'a> Meter<'r, 'a> {
    pub(crate) fn new(reports: &'r Reports<'a>, file: &str) -> Self {
        Self { reports, file: file.to_owned(), last: Instant::now() }
    }

    pub(crate) fn tell(&mut self, done: u64) -> Result<()> {
        self.reports.check()?;
        if self.last.elapsed() >= BETWEEN {
            self.last = Instant::now();
            self.reports.tell(Event::Progress { file: self.file.clone(), done });
        }
        Ok(())
    }
}
