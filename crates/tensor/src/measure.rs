//! Measurements of a device.

use std::fmt;
use std::time::Instant;

/// Source of timestamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The device writes timestamps while it works.
    Device,
    /// The host's clock, for a device whose operations have run when they return.
    Wall,
    /// The host's clock, with a wait for the device at every timestamp, which itself takes time: for a device without timestamps.
    WallAndWait,
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Clock::Device => "timestamps of the device",
            Clock::Wall => "wall clock",
            Clock::WallAndWait => "wall clock, waiting for the device at every timestamp",
        })
    }
}

/// Peak rates of a device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Bytes of memory per second.
    pub bandwidth: f64,
    /// Kind of the measured access.
    pub access: &'static str,
    /// Multiplications and additions per second.
    pub rate: f64,
    /// Type of the numbers.
    pub numbers: &'static str,
}

/// Seconds between neighbouring timestamps; removes the timestamps.
pub(crate) fn intervals(timestamps: &mut Vec<Instant>) -> Vec<f64> {
    let intervals = timestamps.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
    timestamps.clear();
    intervals
}
