//! An open device and its buffers.

use super::adapter::{AdapterInfo, AdapterKind, Options, TIMESTAMP_FEATURES, needs};
use super::cached::Cached;
use super::driver::{Driver, Submission, locked};
use crate::{Error, Result};
use phi3_shaders::{COOP_MEMORY, Tier};
use std::sync::{Arc, Mutex};
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
    pub(crate) driver: Driver,
    max_buffer: u64,
    /// Numbers of the buffers that were dropped.
    dropped: Arc<Mutex<Vec<u32>>>,
    next_id: u32,
}

/// Time limit of a submission. A GPU needs seconds at most, because systems reset a device that takes longer.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Time limit of a submission for a driver that computes on the processor, which may be busy.
const TIMEOUT_SOFTWARE: Duration = Duration::from_secs(600);

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
        if !self.driver.is_gone()
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

        let timeout = options.timeout.unwrap_or(match info.kind {
            AdapterKind::Software => TIMEOUT_SOFTWARE,
            _ => TIMEOUT,
        });
        let driver = Driver::new(&raw, &queue, &info.name, timeout);
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
            driver,
            max_buffer,
            dropped: Arc::default(),
            next_id: 1,
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
        self.driver.submitted(self.queue.submit(commands), self.submits)
    }

    /// As [`Driver::wait`].
    pub(crate) fn wait(&mut self, submission: Submission) -> Result<()> {
        self.driver.wait(&submission)
    }

    /// As [`Driver::check`].
    pub(crate) fn check(&self) -> Result<()> {
        self.driver.check()
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
        let shown = self.driver.wait(&submission).and_then(|()| {
            let view = mapped.raw.get_mapped_range(..size).map_err(|error| self.driver.failed(error.to_string()))?;
            show(&view);
            Ok(())
        });
        match shown {
            Ok(()) => mapped.raw.unmap(),
            Err(_) => *buffer = None,
        }
        shown.and_then(|()| self.check())
    }

    pub(crate) fn unsupported(&self, what: &'static str, found: usize, limit: usize) -> Error {
        Error::Unsupported { device: self.driver.name.to_string(), what, found, limit }
    }

    pub(crate) fn out_of_memory(&self, what: &str, bytes: u64, detail: String) -> Error {
        Error::OutOfMemory { device: self.driver.name.to_string(), what: what.into(), bytes, detail }
    }
}
