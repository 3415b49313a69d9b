//! Events of a download, and its stop flag.

use crate::error::{Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

/// An event of a download.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The files to fetch are known. Bytes of files with unknown lengths are not included; bytes received in an earlier try are.
    Planned {
        /// Number of missing files.
        files: usize,
        /// Their total length in bytes.
        bytes: u64,
    },
    /// The download of a file starts or resumes.
    Started {
        /// Its path in the repository.
        file: String,
        /// Its length in bytes, if known.
        size: Option<u64>,
        /// Bytes received in an earlier try.
        from: u64,
    },
    /// Bytes were received, or bytes of an earlier try were read for the checksum.
    Progress {
        /// The file.
        file: String,
        /// Bytes done so far.
        done: u64,
    },
    /// Another process is fetching the file; this one waits for it.
    Waiting {
        /// The file.
        file: String,
    },
    /// A try failed and is repeated.
    Retrying {
        /// The file or repository.
        what: String,
        /// The reason of the failure.
        reason: String,
        /// The pause before the next try.
        pause: Duration,
    },
    /// A file is complete and verified.
    Finished {
        /// The file.
        file: String,
        /// Its length in bytes.
        size: u64,
    },
    /// The hub was unreachable; the cached model is used.
    Unreachable {
        /// The reason.
        reason: String,
    },
}

/// Observer and stop flag of a download.
pub struct Watch<'a> {
    /// Stops the download soon after it is set; received bytes are kept.
    pub stop: &'a AtomicBool,
    /// Called with every event, on the thread that started the download.
    pub tell: &'a mut dyn FnMut(Event),
}

/// Interval between checks of the stop flag while waiting.
const LOOK: Duration = Duration::from_millis(20);

/// Longest pause accepted from the hub, whose rate limits are counted over five minutes.
const LONGEST_PAUSE: Duration = Duration::from_secs(310);

/// Minimum interval between two progress events of a file.
const BETWEEN: Duration = Duration::from_millis(50);

/// The part of a [`Watch`] shared by the threads of a download.
#[derive(Clone)]
pub(crate) struct Reports<'a> {
    pub(crate) stop: &'a AtomicBool,
    /// Set by the first thread that fails; stops the others.
    pub(crate) failed: &'a AtomicBool,
    pub(crate) events: Sender<Event>,
}

impl Reports<'_> {
    pub(crate) fn tell(&self, event: Event) {
        // the receiver is gone after an error of its own
        let _ = self.events.send(event);
    }

    /// [`Error::Stopped`] if the download was stopped or another thread failed.
    pub(crate) fn check(&self) -> Result<()> {
        match self.stop.load(Ordering::Relaxed) || self.failed.load(Ordering::Relaxed) {
            true => Err(Error::Stopped),
            false => Ok(()),
        }
    }

    /// Sleeps; returns early with an error if the download is stopped.
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

    /// Waits before the next try after a failure. Returns the error if the hub asks for a pause that is too long.
    pub(crate) fn pause(&self, what: &str, error: Error, failures: u32, first: Duration) -> Result<()> {
        let own = first.saturating_mul(1 << failures.saturating_sub(1).min(3));
        let pause = match &error {
            Error::RateLimited { wait: Some(wait) } if *wait > LONGEST_PAUSE => return Err(error),
            Error::RateLimited { wait: Some(wait) } => own.max(*wait),
            _ => own,
        };
        // the reason without the hint
        let reason = error.to_string();
        let reason = reason.split("; hint: ").next().unwrap_or(&reason).to_owned();
        self.tell(Event::Retrying { what: what.to_owned(), reason, pause });
        self.sleep(pause)
    }

    /// Calls `ask`, and repeats it after temporary failures, at most `tries` times in all.
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
                    // an aborted connection looks like a broken one
                    self.check()?;
                    failures += 1;
                    self.pause(what, error, failures, first)?;
                }
                result => return result,
            }
        }
    }
}

/// Progress events of a file, at a limited rate.
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
