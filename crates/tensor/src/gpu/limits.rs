//! Peak rates of the device: bytes copied and multiply-adds per second.

use super::device::STORAGE;
use super::machine::Gpu;
use super::pipelines::Bindings;
use crate::{Device, DeviceKind, Limits, Result};
use phi3_shaders::{CHAINS, Op, Tier, binding};

/// Bytes that are copied: more than the caches hold.
const BYTES: u64 = 256 << 20;

/// Threads of a workgroup of copy.wgsl and multiply.wgsl.
const THREADS: u64 = 256;

/// Workgroups that keep any device busy.
const GROUPS: u64 = 4096;

/// Least seconds of a run that is long enough.
const LONG: f64 = 0.02;

/// Runs; the fastest counts.
const RUNS: usize = 5;

impl Gpu {
    pub(super) fn measure_limits(&mut self) -> Result<Limits> {
        // a larger copy would not be faster on a software device
        let software = self.info.kind == DeviceKind::SoftwareGpu;
        let (bytes, groups) = if software { (BYTES / 8, GROUPS / 128) } else { (BYTES, GROUPS) };
        let bytes = bytes.min(self.device.max_binding);
        let bandwidth = self.copied(bytes, groups)?;
        let (rate, numbers) = match (self.tier(), self.adapter.coop_matrix) {
            (Tier::Coop, Some(matrix)) if !self.exact => {
                let each = 4 * u64::from(CHAINS) * 2 * u64::from(matrix.side.pow(3));
                let out = groups * 4 * u64::from(matrix.side.pow(2)) * 4;
                (self.multiplied(Op::MultiplyCoop(matrix), out, groups, each)?, "f16 in matrix units")
            }
            _ => {
                let each = THREADS * u64::from(CHAINS) * 4 * 2;
                (self.multiplied(Op::Multiply, groups * THREADS * 4, groups, each)?, "f32")
            }
        };
        Ok(Limits { bandwidth, access: "copied, read and written", rate, numbers })
    }

    /// Bytes read and written per second.
    fn copied(&mut self, bytes: u64, groups: u64) -> Result<f64> {
        let source = self.device.buffer("memory to be copied", bytes, STORAGE)?;
        let target = self.device.buffer("memory to be written", bytes, STORAGE)?;
        let mut bindings = Bindings::default();
        bindings[binding::INPUT as usize] = Some(&source);
        bindings[binding::OUTPUT as usize] = Some(&target);
        let params = [(bytes / 16) as u32, (groups * THREADS) as u32, 0, 0];
        let mut best = f64::INFINITY;
        // the first run clears the buffers
        for _ in 0..=RUNS {
            self.timestamp()?;
            self.recorder.dispatch(&mut self.device, Op::Copy, &bindings, &params, [groups as u32, 1, 1])?;
            self.timestamp()?;
            best = self.elapsed()?.first().map_or(best, |seconds| best.min(*seconds));
        }
        Ok(2.0 * bytes as f64 / best)
    }

    /// Multiplications and additions per second; a workgroup does `each` in a step.
    fn multiplied(&mut self, op: Op, out: u64, groups: u64, each: u64) -> Result<f64> {
        let out = self.device.buffer("results", out, STORAGE)?;
        let mut bindings = Bindings::default();
        bindings[binding::OUTPUT as usize] = Some(&out);
        let (mut steps, mut best) = (16u32, 0.0f64);
        for _ in 0..4 * RUNS {
            let params = [steps, 0.5f32.to_bits(), 0, 0];
            self.timestamp()?;
            self.recorder.dispatch(&mut self.device, op, &bindings, &params, [groups as u32, 1, 1])?;
            self.timestamp()?;
            let Some(seconds) = self.elapsed()?.first().copied() else { continue };
            best = best.max((u64::from(steps) * each * groups) as f64 / seconds);
            if seconds < LONG {
                steps = (steps * 4).min(1 << 20);
            } else if seconds > 10.0 * LONG {
                break;
            }
        }
        Ok(best)
    }
}
