//! Timestamps of the device, and the time between them.

use super::adapter::TIMESTAMP_FEATURES;
use super::device::{Buffer, Device};
use super::recorder::Recorder;
use crate::Result;
use crate::measure::{Clock, intervals};
use std::time::Instant;

/// Timestamps of a query set.
const MOST: u32 = wgpu::QUERY_SET_MAX_QUERIES;

/// Timestamps that are not read yet.
#[derive(Default)]
pub(crate) struct Timestamps {
    queries: Option<QuerySet>,
    /// Timestamps of the host, for a device without timestamps.
    instants: Vec<Instant>,
}

struct QuerySet {
    set: wgpu::QuerySet,
    resolved: Buffer,
    readback: Option<Buffer>,
    used: u32,
}

impl Timestamps {
    pub(crate) fn clock(device: &Device) -> Clock {
        if device.raw.features().contains(TIMESTAMP_FEATURES) { Clock::Device } else { Clock::WallAndWait }
    }

    pub(crate) fn take(&mut self, device: &mut Device, recorder: &mut Recorder) -> Result<()> {
        if Self::clock(device) != Clock::Device {
            let submission = recorder.flush_with(device, |_| {})?;
            device.wait(submission)?;
            self.instants.push(Instant::now());
            return Ok(());
        }
        if self.queries.is_none() {
            self.queries = Some(QuerySet::new(device)?);
        }
        let Some(queries) = &mut self.queries else { return Ok(()) };
        if queries.used == MOST {
            let (what, found, limit) = ("timestamps before they are read", MOST as usize + 1, MOST as usize);
            return Err(device.unsupported(what, found, limit));
        }
        recorder.timestamp(device, &queries.set, queries.used);
        queries.used += 1;
        Ok(())
    }

    pub(crate) fn elapsed(&mut self, device: &mut Device, recorder: &mut Recorder) -> Result<Vec<f64>> {
        match &mut self.queries {
            Some(queries) => queries.read(device, recorder),
            None => Ok(intervals(&mut self.instants)),
        }
    }
}

impl QuerySet {
    fn new(device: &mut Device) -> Result<Self> {
        let descriptor =
            wgpu::QuerySetDescriptor { label: Some("timestamps"), ty: wgpu::QueryType::Timestamp, count: MOST };
        let set = device.raw.create_query_set(&descriptor);
        let size = u64::from(MOST) * u64::from(wgpu::QUERY_SIZE);
        let resolve = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        Ok(Self { set, resolved: device.buffer("timestamps", size, resolve)?, readback: None, used: 0 })
    }

    fn read(&mut self, device: &mut Device, recorder: &mut Recorder) -> Result<Vec<f64>> {
        let used = std::mem::take(&mut self.used);
        if used == 0 {
            return Ok(Vec::new());
        }
        let size = u64::from(used) * u64::from(wgpu::QUERY_SIZE);
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        device.grow(
            &mut self.readback,
            "readback of timestamps",
            u64::from(MOST) * u64::from(wgpu::QUERY_SIZE),
            usage,
        )?;
        let Some(readback) = &self.readback else { return Ok(Vec::new()) };
        let submission = recorder.flush_with(device, |encoder| {
            encoder.resolve_query_set(&self.set, 0..used, &self.resolved.raw, 0);
            encoder.copy_buffer_to_buffer(&self.resolved.raw, 0, &readback.raw, 0, size);
        })?;
        let mut ticks: Vec<u64> = Vec::new();
        device.read(&mut self.readback, size, submission, |bytes| {
            ticks.extend(bytes.chunks_exact(8).map(bytemuck::pod_read_unaligned::<u64>));
        })?;
        let second = f64::from(device.queue.get_timestamp_period()) * 1e-9;
        // a driver may give two timestamps in the wrong order if there is no work between them
        Ok(ticks.windows(2).map(|pair| pair[1].saturating_sub(pair[0]) as f64 * second).collect())
    }
}
