//! An open device, its buffers and submissions, and its failures.

use super::adapter::{AdapterInfo, AdapterKind, Options, TIMESTAMP_FEATURES, needs};
use super::cached::Cached;
use crate::{Error, Result};
use phi3_shaders::{COOP_MEMORY, Tier};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Usage of the buffers of kernels.
pub(crate) const STORAGE: wgpu::BufferUsages =
    wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_SRC).union(wgpu::BufferUsages::COPY_DST);

/// An open device.
pub(crate) struct Device {
    pub(crate) raw: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    /// Largest storage buffer, which is bound as a whole.
    pub(crate) max_binding: u64,
    /// Largest piece of a weight.
    pub(crate) max_piece: u64,
    /// Whether kernels may compute in half precision.
    pub(crate) f16: bool,
    /// Whether a workgroup may have as much memory as attention on matrix units needs.
    pub(crate) coop_memory: bool,
    /// Compiled pipelines of earlier starts.
    pub(crate) cached: Option<Cached>,
    pub(crate) submits: u64,
    pub(crate) buffers: u64,
    /// Longest time of a submission.
    pub(crate) timeout: Duration,
    /// Submissions without a wait so far, oldest first.
    pub(crate) outstanding: VecDeque<Submission>,
    name: String,
    max_buffer: u64,
    failure: Arc<Mutex<Option<Failure>>>,
    /// Numbers of dropped buffers.
    dropped: Arc<Mutex<Vec<u32>>>,
    next_id: u32,
    #[cfg(test)]
    pub(crate) waits: u64,
    /// Failure that the driver reports during the next wait for a submission.
    #[cfg(test)]
    pub(crate) wrong_wait: Option<&'static str>,
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

/// Time limit of a submission. A GPU needs seconds at most, because systems reset a device that takes longer.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Time limit of a submission for a driver that computes on the processor, which may be busy.
const TIMEOUT_SOFTWARE: Duration = Duration::from_secs(600);

/// Longer waits are endless.
const ENDLESS: Duration = Duration::from_secs(1 << 32);

/// Largest number of submissions in `outstanding`.
const MOST_OUTSTANDING: usize = 256;

/// A buffer with a number that no other buffer of the device ever had.
pub(crate) struct Buffer {
    pub(crate) raw: wgpu::Buffer,
    pub(crate) id: u32,
    pub(crate) size: u64,
    dropped: Arc<Mutex<Vec<u32>>>,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        locked(&self.dropped).push(self.id);
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // pipelines of a lost device are not kept
        if !self.is_gone()
            && let Some(cached) = &self.cached
        {
            cached.keep();
        }
    }
}

impl Device {
    /// Opens an adapter with the features of a tier and the default limits, except for the largest buffers of the adapter and,
    /// for matrix units, more memory of a workgroup where the adapter has it.
    pub(crate) fn open(adapter: &wgpu::Adapter, info: &AdapterInfo, tier: Tier, options: &Options) -> Result<Self> {
        let has = adapter.limits();
        let max_buffer = has.max_buffer_size & !15;
        let max_binding =
            has.max_storage_buffer_binding_size.min(max_buffer).min(options.max_binding.unwrap_or(u64::MAX)) & !15;
        let coop_memory = tier == Tier::Coop && has.max_compute_workgroup_storage_size >= COOP_MEMORY;
        let defaults = wgpu::Limits::default();
        let workgroup = defaults.max_compute_workgroup_storage_size;
        let limits = wgpu::Limits {
            max_compute_workgroup_storage_size: if coop_memory { COOP_MEMORY } else { workgroup },
            max_buffer_size: has.max_buffer_size,
            max_storage_buffer_binding_size: max_binding,
            ..defaults
        };
        let failed = |message: String| Error::Device { device: info.name.clone(), message };
        let lesser = Tier::ALL.into_iter().filter(|lesser| *lesser <= tier);
        let wanted = lesser.fold(wgpu::Features::empty(), |all, tier| all | needs(tier).0);
        let features = (wanted | wgpu::Features::PIPELINE_CACHE | TIMESTAMP_FEATURES) & adapter.features();
        let experimental = match tier {
            // SAFETY: matrix units compute on buffers whose sizes the host checked; faults of a driver are found by
            // the check of the kernels
            Tier::Coop => unsafe { wgpu::ExperimentalFeatures::enabled() },
            _ => wgpu::ExperimentalFeatures::disabled(),
        };
        let (raw, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("phi3-tensor"),
            required_features: features,
            required_limits: limits,
            experimental_features: experimental,
            memory_hints: wgpu::MemoryHints::Performance,
            trace: wgpu::Trace::Off,
        }))
        .map_err(|e| failed(e.to_string()))?;

        let failure = Arc::new(Mutex::new(None));
        let errors = Arc::clone(&failure);
        raw.on_uncaptured_error(Arc::new(move |error: wgpu::Error| record(&errors, error.to_string(), State::Usable)));
        let losses = Arc::clone(&failure);
        raw.set_device_lost_callback(move |reason, message| {
            let message = format!("device lost ({reason:?}): {message}");
            record(&losses, message.trim_end_matches([':', ' ']).into(), State::Lost);
        });

        let cached = options.memory.as_ref().and_then(|folder| Cached::open(&raw, &adapter.get_info(), folder));
        let max_piece = max_binding.min(options.max_piece.unwrap_or(u64::MAX));
        Ok(Self {
            raw,
            queue,
            max_binding,
            max_piece,
            f16: features.contains(wgpu::Features::SHADER_F16),
            coop_memory,
            cached,
            submits: 0,
            buffers: 0,
            timeout: options.timeout.unwrap_or(match info.kind {
                AdapterKind::Software => TIMEOUT_SOFTWARE,
                _ => TIMEOUT,
            }),
            outstanding: VecDeque::new(),
            name: info.name.clone(),
            max_buffer,
            failure,
            dropped: Arc::default(),
            next_id: 1,
            #[cfg(test)]
            waits: 0,
            #[cfg(test)]
            wrong_wait: None,
        })
    }

    /// A zeroed buffer of at least `size` bytes; `what` is its purpose, for messages.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`] where that is more than a buffer may have, or than the device has left.
    pub(crate) fn buffer(&mut self, what: &str, size: u64, usage: wgpu::BufferUsages) -> Result<Buffer> {
        let size = size.max(16).checked_next_multiple_of(16).unwrap_or(u64::MAX);
        let limit = self.limit(usage);
        if size > limit {
            return Err(self.out_of_memory(what, size, format!("; a buffer may have {limit}")));
        }
        let memory = self.raw.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let internal = self.raw.push_error_scope(wgpu::ErrorFilter::Internal);
        let raw = self.raw.create_buffer(&wgpu::BufferDescriptor {
            label: Some(what),
            size,
            usage,
            mapped_at_creation: false,
        });
        let internal = pollster::block_on(internal.pop());
        if let Some(error) = pollster::block_on(memory.pop()).or(internal) {
            return Err(self.out_of_memory(what, size, format!(": {error}")));
        }
        self.check()?;
        let id = self.next_id;
        self.next_id += 1;
        self.buffers += 1;
        Ok(Buffer { raw, id, size, dropped: self.dropped.clone() })
    }

    /// Makes `buffer` at least `size` bytes large; contents are lost where it grows.
    pub(crate) fn grow(
        &mut self,
        buffer: &mut Option<Buffer>,
        what: &str,
        size: u64,
        usage: wgpu::BufferUsages,
    ) -> Result<()> {
        if buffer.as_ref().is_none_or(|buffer| buffer.size < size) {
            let roomy = size.checked_next_power_of_two().unwrap_or(size).min(self.limit(usage));
            *buffer = None;
            *buffer = Some(self.buffer(what, roomy.max(size), usage)?);
        }
        Ok(())
    }

    fn limit(&self, usage: wgpu::BufferUsages) -> u64 {
        if usage.contains(wgpu::BufferUsages::STORAGE) { self.max_binding } else { self.max_buffer }
    }

    /// Numbers of the buffers that were dropped since the last call.
    pub(crate) fn dropped(&self) -> Vec<u32> {
        std::mem::take(&mut *locked(&self.dropped))
    }

    pub(crate) fn submit(&mut self, commands: Option<wgpu::CommandBuffer>) -> Submission {
        self.submits += 1;
        let submission = Submission { raw: self.queue.submit(commands), number: self.submits };
        if self.outstanding.len() == MOST_OUTSTANDING {
            self.outstanding.pop_front();
        }
        self.outstanding.push_back(submission.clone());
        submission
    }

    /// Waits until a submission and those before it are complete. The time limit applies to each of them.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] beyond the time limit, and the errors of [`check`](Self::check).
    pub(crate) fn wait(&mut self, submission: Submission) -> Result<()> {
        #[cfg(test)]
        {
            self.waits += 1;
            if let Some(message) = self.wrong_wait.take() {
                record(&self.failure, message.into(), State::Usable);
            }
        }
        if self.is_gone() {
            return self.check();
        }
        while let Some(before) = self.outstanding.pop_front_if(|before| before.number < submission.number) {
            self.wait_for(before.raw)?;
        }
        self.outstanding.pop_front_if(|own| own.number == submission.number);
        self.wait_for(submission.raw)?;
        self.check()
    }

    fn wait_for(&self, submission: wgpu::SubmissionIndex) -> Result<()> {
        let timeout = Some(self.timeout).filter(|timeout| *timeout < ENDLESS);
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

    /// Calls `show` with the first `size` bytes of a buffer after a submission has written them. On a failure the buffer is
    /// dropped, because it may stay mapped.
    pub(crate) fn read(
        &mut self,
        buffer: &mut Option<Buffer>,
        size: u64,
        submission: Submission,
        show: impl FnOnce(&[u8]),
    ) -> Result<()> {
        let Some(mapped) = buffer else { return Ok(()) };
        mapped.raw.map_async(wgpu::MapMode::Read, ..size, |_| {});
        let shown = self.wait(submission).and_then(|()| {
            let view = mapped.raw.get_mapped_range(..size).map_err(|error| self.failed(error.to_string()))?;
            show(&view);
            Ok(())
        });
        match shown {
            Ok(()) => mapped.raw.unmap(),
            Err(_) => *buffer = None,
        }
        shown.and_then(|()| self.check())
    }

    /// Leaks the handles of a device whose work never ends, because wgpu would wait for that work at the drop of the last handle.
    fn give_up(&self) {
        let seconds = self.timeout.as_secs();
        record(&self.failure, format!("a kernel did not end within {seconds} s"), State::Hung(seconds));
        std::mem::forget((self.raw.clone(), self.queue.clone()));
    }

    /// The message of the failure by which the device was lost or given up, if it was.
    pub(crate) fn lost(&self) -> Option<String> {
        // wgpu reports a loss when it is polled
        let _ = catch_unwind(AssertUnwindSafe(|| self.raw.poll(wgpu::PollType::Poll)));
        let failure = locked(&self.failure);
        failure.as_ref().filter(|failure| failure.state != State::Usable).map(|failure| failure.message.clone())
    }

    fn is_gone(&self) -> bool {
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
        let device = self.name.clone();
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
        self.check().err().unwrap_or(Error::Device { device: self.name.clone(), message })
    }

    pub(crate) fn unsupported(&self, what: &'static str, found: usize, limit: usize) -> Error {
        Error::Unsupported { device: self.name.clone(), what, found, limit }
    }

    pub(crate) fn out_of_memory(&self, what: &str, bytes: u64, detail: String) -> Error {
        Error::OutOfMemory { device: self.name.clone(), what: what.into(), bytes, detail }
    }
}

/// Records a failure if it is the first one, or the first that makes the device unusable.
fn record(failure: &Mutex<Option<Failure>>, message: String, state: State) {
    let mut failure = locked(failure);
    if failure.as_ref().is_none_or(|first| first.state == State::Usable && state != State::Usable) {
        *failure = Some(Failure { message, state });
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
