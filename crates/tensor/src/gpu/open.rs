//! Opening of an adapter, with the self-check of its kernels.

use super::adapter::{self, Options, Select};
use super::machine::Gpu;
use super::memory::Memory;
use super::selfcheck;
use crate::{DeviceKind, Result};

impl Gpu {
    /// Opens an adapter.
    ///
    /// # Errors
    ///
    /// [`Error::NoAdapter`](crate::Error::NoAdapter) where no adapter matches, [`Error::Tier`](crate::Error::Tier) where it
    /// cannot run the tier, [`Error::Device`](crate::Error::Device) where it cannot be opened or fails the self-check.
    pub fn open(select: &Select, options: &Options) -> Result<Self> {
        Self::open_and(select, options, |_| {})
    }

    /// Opens an adapter; a test changes the backend by `then` before the check. If the check loses the device, the adapter is
    /// opened again for the next lower tier.
    pub(super) fn open_and(select: &Select, options: &Options, then: impl Fn(&mut Self)) -> Result<Self> {
        let forced = options.tier.is_some();
        let mut options = options.clone();
        let mut faults = Vec::new();
        loop {
            let mut gpu = Self::with(adapter::choose(select, &options)?, &options)?;
            then(&mut gpu);
            if !options.check {
                return Ok(gpu);
            }
            let memory = options.memory.as_ref().map(|folder| Memory::open(folder, &gpu.adapter));
            let timeout = gpu.device.driver.timeout();
            // a driver that computes on the processor may take long to compile
            if gpu.info.kind != DeviceKind::SoftwareGpu {
                gpu.device.driver.set_timeout(timeout.min(selfcheck::TIMEOUT));
            }
            let Err(error) = gpu.select_tier(memory, forced, &mut faults) else {
                gpu.device.driver.set_timeout(timeout);
                return Ok(gpu);
            };
            options.tier = gpu.next_lower().filter(|_| !forced && gpu.device.driver.lost().is_some());
            if options.tier.is_none() {
                return Err(error);
            }
        }
    }

    /// Opens wgpu's device that computes nothing; zeros are read from it. Pipelines are compiled and dispatches recorded as for
    /// any other device, so that their cost for the host can be measured.
    ///
    /// # Errors
    ///
    /// [`Error::Device`](crate::Error::Device) where the device cannot be opened.
    #[cfg(feature = "noop")]
    pub fn noop() -> Result<Self> {
        Self::with(adapter::noop()?, &Options::default())
    }
}
