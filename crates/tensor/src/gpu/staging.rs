//! Results on their way from the device to the host.

use super::device::{Buffer, Device};
use super::driver::{Driver, Submission, locked};
use crate::Result;
use crate::readback::{Pending, Readback};
use std::sync::{Arc, Mutex};
use std::task::Waker;

/// Buffers that the host can map, for one result each at a time.
#[derive(Default)]
pub(crate) struct Staging {
    free: Arc<Mutex<Vec<Buffer>>>,
    /// Bytes that were read back.
    pub(crate) read_bytes: u64,
}

/// A copy of `size` bytes in a buffer that the host can map.
pub(crate) struct Staged {
    pub(crate) buffer: Buffer,
    size: u64,
}

impl Staging {
    /// A free buffer of at least `size` bytes.
    pub(crate) fn take(&mut self, device: &mut Device, size: u64) -> Result<Staged> {
        let mut free = locked(&self.free);
        let found = free.iter().position(|buffer| buffer.size >= size).map(|at| free.swap_remove(at));
        drop(free);
        let buffer = match found {
            Some(buffer) => buffer,
            None => {
                let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
                device.buffer("results on their way", size.next_power_of_two(), usage)?
            }
        };
        Ok(Staged { buffer, size })
    }

    /// The result in a staged copy that `submission` makes.
    pub(crate) fn read<T: 'static>(
        &mut self,
        device: &Device,
        Staged { buffer, size }: Staged,
        submission: Submission,
        parse: impl FnOnce(&[u8]) -> T + Send + 'static,
    ) -> Readback<T> {
        self.read_bytes += size;
        let mapped = Arc::new(Mutex::new(Mapped::default()));
        let shared = mapped.clone();
        buffer.raw.map_async(wgpu::MapMode::Read, ..size, move |result| {
            let waker = {
                let mut mapped = locked(&shared);
                mapped.result = Some(result.map_err(|error| error.to_string()));
                mapped.waker.take()
            };
            waker.into_iter().for_each(Waker::wake);
        });
        let driver = device.driver.clone();
        Readback::pending(InFlight {
            driver,
            submission,
            buffer: Some(buffer),
            size,
            mapped,
            free: self.free.clone(),
            parse: Some(parse),
        })
    }
}

/// State of a buffer's mapping.
#[derive(Default)]
struct Mapped {
    result: Option<std::result::Result<(), String>>,
    waker: Option<Waker>,
}

struct InFlight<F> {
    driver: Driver,
    submission: Submission,
    buffer: Option<Buffer>,
    size: u64,
    mapped: Arc<Mutex<Mapped>>,
    free: Arc<Mutex<Vec<Buffer>>>,
    parse: Option<F>,
}

impl<T, F: FnOnce(&[u8]) -> T + Send> InFlight<F> {
    /// The result of a mapped buffer. The buffer is free again; if this fails, it is dropped, because it may stay mapped for good.
    fn finish(&mut self) -> Result<T> {
        let (Some(buffer), Some(parse)) = (self.buffer.take(), self.parse.take()) else {
            return Err(self.driver.failed("a result is read twice".into()));
        };
        self.driver.check()?;
        let failed = |error: String| self.driver.failed(error);
        if let Some(Err(error)) = locked(&self.mapped).result.take() {
            return Err(failed(error));
        }
        let view = buffer.raw.get_mapped_range(..self.size).map_err(|error| failed(error.to_string()))?;
        let value = parse(&view);
        drop(view);
        buffer.raw.unmap();
        locked(&self.free).push(buffer);
        Ok(value)
    }
}

impl<T, F: FnOnce(&[u8]) -> T + Send> Pending<T> for InFlight<F> {
    fn poll(&mut self, waker: Option<&Waker>) -> Option<Result<T>> {
        self.driver.poll();
        let mut mapped = locked(&self.mapped);
        if mapped.result.is_none() && !self.driver.is_gone() {
            mapped.waker = waker.cloned();
            return None;
        }
        drop(mapped);
        Some(self.finish())
    }

    fn wait(mut self: Box<Self>) -> Result<T> {
        self.driver.wait(&self.submission)?;
        self.finish()
    }
}
