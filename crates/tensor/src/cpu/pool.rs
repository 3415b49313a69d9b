//! A thread pool for parallel loops of a few hundred microseconds.
//!
//! A loop ends when its tasks are done. It does not wait for threads that the system has not scheduled: the calling thread takes
//! tasks too. Idle threads spin for a moment, then sleep.

use crate::{Error, Result};
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time that an idle thread spins before it sleeps: about the pause between two loops of a token.
const SPIN: Duration = Duration::from_micros(30);

/// A value padded to cache lines of its own.
#[repr(align(128))]
struct CachePadded<T>(T);

type Job = *const (dyn Fn(usize) + Sync);

struct Shared {
    /// Number of the loop in the upper half, its tasks not yet taken in the lower half.
    epoch: CachePadded<AtomicU64>,
    /// Finished tasks of the loop.
    done: CachePadded<AtomicUsize>,
    /// The function of the loop, and the number of its tasks.
    job: UnsafeCell<Option<(Job, usize)>>,
    panicked: Mutex<Option<Box<dyn std::any::Any + Send>>>,
    sleeping: Vec<CachePadded<AtomicBool>>,
    stop: AtomicBool,
}

// SAFETY: `job` is written while all tasks of the last loop are finished, and read by threads that have taken a task of this
// loop; the exchange of `epoch` orders the two.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `job` is used only while its loop runs, and the function behind it is `Sync`.
unsafe impl Send for Shared {}

impl Shared {
    /// Takes a task. Returns the number of tasks that were left, this one included.
    fn take(&self) -> Option<usize> {
        let mut epoch = self.epoch.0.load(Acquire);
        loop {
            let left = epoch as u32;
            if left == 0 {
                return None;
            }
            match self.epoch.0.compare_exchange_weak(epoch, epoch - 1, AcqRel, Acquire) {
                Ok(_) => return Some(left as usize),
                Err(found) => epoch = found,
            }
        }
    }

    /// Runs tasks until none is left.
    fn work(&self) {
        while let Some(left) = self.take() {
            // SAFETY: `run` does not return before this task is finished, so the job is that of this loop and alive.
            let outcome = catch_unwind(AssertUnwindSafe(|| unsafe {
                if let Some((job, tasks)) = *self.job.get() {
                    (*job)(tasks - left);
                }
            }));
            if let Err(payload) = outcome {
                *self.panicked.lock().unwrap_or_else(PoisonError::into_inner) = Some(payload);
            }
            self.done.0.fetch_add(1, Release);
        }
    }

    fn idle(&self) -> bool {
        self.epoch.0.load(SeqCst) as u32 == 0 && !self.stop.load(SeqCst)
    }

    /// The body of thread `i`.
    fn serve(&self, i: usize) {
        while !self.stop.load(Acquire) {
            self.work();
            let since = Instant::now();
            let mut turns = 0u32;
            while self.idle() {
                turns = turns.wrapping_add(1);
                std::hint::spin_loop();
                // reading the clock takes longer than a turn of the loop
                if turns.is_multiple_of(16) && since.elapsed() > SPIN {
                    let sleeping = &self.sleeping[i].0;
                    sleeping.store(true, SeqCst);
                    if self.idle() {
                        std::thread::park();
                    }
                    sleeping.store(false, SeqCst);
                    break;
                }
            }
        }
    }
}

/// A pool of threads; the calling thread is one of them.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Held during a loop.
    running: Mutex<()>,
}

impl Pool {
    /// A pool of `threads` threads, the calling thread included.
    pub(crate) fn new(threads: usize) -> Result<Self> {
        let beside = threads.saturating_sub(1);
        let shared = Arc::new(Shared {
            epoch: CachePadded(AtomicU64::new(0)),
            done: CachePadded(AtomicUsize::new(0)),
            job: UnsafeCell::new(None),
            panicked: Mutex::new(None),
            sleeping: (0..beside).map(|_| CachePadded(AtomicBool::new(false))).collect(),
            stop: AtomicBool::new(false),
        });
        let mut pool = Self { shared, threads: Vec::with_capacity(beside), running: Mutex::new(()) };
        for i in 0..beside {
            let shared = pool.shared.clone();
            let thread = std::thread::Builder::new().name(format!("phi3-{}", i + 1)).spawn(move || shared.serve(i));
            pool.threads.push(thread.map_err(|source| Error::Threads { threads, source })?);
        }
        Ok(pool)
    }

    /// Number of threads, the calling thread included.
    pub(crate) fn threads(&self) -> usize {
        self.threads.len() + 1
    }

    /// Parallel loop: runs tasks `0 .. tasks`, each once, on all threads. A task must not call this function.
    pub(crate) fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        if tasks <= 1 || self.threads.is_empty() || u32::try_from(tasks).is_err() {
            return (0..tasks).for_each(task);
        }
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. This function returns when all tasks are done, and nothing uses `task` after that.
        let job: Job = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), Job>(task) };
        // SAFETY: all tasks of the last loop are finished and `running` is held, so no thread reads or writes `job`.
        unsafe { *shared.job.get() = Some((job, tasks)) };
        shared.done.0.store(0, Relaxed);
        let number = (shared.epoch.0.load(Relaxed) >> 32).wrapping_add(1);
        shared.epoch.0.store(number << 32 | tasks as u64, SeqCst);
        for (thread, sleeping) in self.threads.iter().zip(&shared.sleeping).take(tasks - 1) {
            if sleeping.0.load(SeqCst) {
                thread.thread().unpark();
            }
        }
        shared.work();
        let mut turns = 0u32;
        while shared.done.0.load(Acquire) != tasks {
            turns = turns.saturating_add(1);
            if turns < 200 { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        let payload = shared.panicked.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(running);
        if let Some(payload) = payload {
            resume_unwind(payload);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            // a panic of a task was resumed in `run`
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        let pool = Pool::new(5).expect("threads");
        let counts: Vec<AtomicUsize> = (0..23).map(|_| AtomicUsize::new(0)).collect();
        for epoch in 0..if cfg!(miri) { 30 } else { 5000 } {
            let tasks = 1 + epoch % counts.len();
            counts.iter().for_each(|count| count.store(0, Relaxed));
            pool.run(tasks, &|i| {
                counts[i].fetch_add(1, Relaxed);
            });
            let ran: Vec<_> = counts.iter().map(|count| count.load(Relaxed)).collect();
            assert!((0..counts.len()).all(|i| ran[i] == usize::from(i < tasks)), "loop {epoch}: {ran:?}");
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(3).expect("threads");
        let outcome = catch_unwind(AssertUnwindSafe(|| pool.run(8, &|i| assert_ne!(i, 5))));
        assert!(outcome.is_err());
        let count = AtomicUsize::new(0);
        pool.run(8, &|_| {
            count.fetch_add(1, Relaxed);
        });
        assert_eq!(count.into_inner(), 8);
    }

    #[test]
    fn threads_sleep_and_wake() {
        let pool = Pool::new(2).expect("threads");
        for _ in 0..20 {
            std::thread::sleep(2 * SPIN);
            let count = AtomicUsize::new(0);
            pool.run(64, &|_| {
                count.fetch_add(1, Relaxed);
            });
            assert_eq!(count.into_inner(), 64);
        }
    }
}
