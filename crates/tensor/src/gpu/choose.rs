//! Tokens that the device chooses, and how they come back.

use super::device::{Buffer, Device, STORAGE};
use super::pipelines::Slots;
use super::{Gpu, Rows};
use crate::checks::{at_most, same};
use crate::{Batch, Choice, Expected, Result};
use phi3_shaders::{CHOSEN, NO_TOKEN, Op, binding};
use std::collections::VecDeque;

const _: () = assert!(Batch::CHOSEN == CHOSEN && Batch::NO_TOKEN == NO_TOKEN);

/// Passes that may be under way.
pub(super) const AHEAD: usize = 4;

/// Tokens on their way from the device.
pub(super) struct Flights {
    /// What the last pass chose.
    pub(super) chosen: Buffer,
    /// Rows that the last pass chose for.
    pub(super) rows: usize,
    /// Where passes' tokens are copied to, in turn.
    ring: [Option<Buffer>; AHEAD],
    next: usize,
    pending: VecDeque<Flight>,
}

struct Flight {
    place: usize,
    rows: usize,
    submission: wgpu::SubmissionIndex,
}

impl Flights {
    pub(super) fn new(device: &mut Device) -> Result<Self> {
        let chosen = device.buffer("chosen tokens", 16, STORAGE)?;
        Ok(Self { chosen, rows: 0, ring: Default::default(), next: 0, pending: VecDeque::new() })
    }
}

impl Gpu {
    pub(super) fn choose(&mut self, logits: &Rows, choices: &[Choice]) -> Result<()> {
        at_most("choose", "passes under way", AHEAD - 1, self.flights.pending.len())?;
        Expected::AtLeast(1).check("choose", "rows", self.pass.rows)?;
        same("choose", "choices", self.pass.rows, choices.len())?;
        at_most("choose", "rows", logits.capacity, choices.len())?;
        let bytes = (size_of::<u32>() * choices.len()) as u64;
        if self.flights.chosen.size < bytes {
            self.flights.chosen = self.device.buffer("chosen tokens", bytes, STORAGE)?;
        }
        for (row, choice) in choices.iter().enumerate() {
            let mut slots = Slots::default();
            slots[binding::INPUT as usize] = Some(&logits.buffer);
            slots[binding::CHOSEN as usize] = Some(&self.flights.chosen);
            let (op, params) = kernel(logits, row, choice);
            self.recorder.dispatch(&mut self.device, op, &slots, &params, [1, 1, 1])?;
        }

        let place = self.flights.next;
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        self.device.grow(&mut self.flights.ring[place], "chosen tokens on their way", bytes, usage)?;
        let Some(to) = &self.flights.ring[place] else { return Ok(()) };
        let chosen = &self.flights.chosen;
        let submission = self.recorder.flush_with(&mut self.device, |encoder| {
            encoder.copy_buffer_to_buffer(&chosen.raw, 0, &to.raw, 0, bytes);
        })?;
        to.raw.map_async(wgpu::MapMode::Read, ..bytes, |_| {});
        self.flights.next = (place + 1) % AHEAD;
        self.flights.rows = choices.len();
        self.flights.pending.push_back(Flight { place, rows: choices.len(), submission });
        Ok(())
    }

    pub(super) fn chosen(&mut self, tokens: &mut [u32]) -> Result<()> {
        Expected::AtLeast(1).check("chosen", "passes under way", self.flights.pending.len())?;
        let Some(flight) = self.flights.pending.pop_front() else { return Ok(()) };
        let Some(buffer) = &self.flights.ring[flight.place] else { return Ok(()) };
        self.device.wait(flight.submission)?;
        let bytes = size_of::<u32>() * flight.rows;
        let view =
            buffer.raw.get_mapped_range(..bytes as u64).map_err(|error| self.device.failed(error.to_string()))?;
        for (token, bytes) in tokens.iter_mut().zip(view.chunks_exact(size_of::<u32>())) {
            *token = bytemuck::pod_read_unaligned(bytes);
        }
        drop(view);
        buffer.raw.unmap();
        self.read_bytes += bytes as u64;
        same("chosen", "rows", flight.rows, tokens.len())
    }
}

/// The kernel of a choice, and its parameters.
fn kernel(logits: &Rows, row: usize, choice: &Choice) -> (Op, [u32; 8]) {
    let (vocab, stride, row) = (logits.dim as u32, logits.stride as u32, row as u32);
    match *choice {
        Choice::Likeliest => (Op::Likeliest, [vocab, stride, row, 0, 0, 0, 0, 0]),
        Choice::Drawn { temperature, top_k, top_p, min_p, draw } => {
            let temperature = temperature.max(f32::MIN_POSITIVE);
            // casts of what is out of range give the nearest number in it
            let drop = ((1.0 - f64::from(top_p)) * 4_294_967_296.0) as u32;
            let floor = (f64::from(min_p).min(1.0) * 2_147_483_648.0).ceil() as u32;
            (Op::Sample, [vocab, stride, row, top_k, temperature.to_bits(), drop, floor, draw])
        }
    }
}
