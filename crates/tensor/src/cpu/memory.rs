//! Large memory of the CPU.

use crate::{Error, Result};

/// Zeroed bytes, aligned to a cache line, in huge pages where the system has them: clearing pages of 4 KiB takes longer than
/// interleaving weights, and reading a cache in such pages waits for their addresses.
pub(super) struct AlignedBuf {
    #[cfg(target_os = "linux")]
    bytes: memmap2::MmapMut,
    #[cfg(not(target_os = "linux"))]
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuf {
    /// Bytes of a cache line.
    const LINE: usize = 64;

    /// `len` bytes for `what`.
    pub(super) fn new(len: usize, what: impl Fn() -> String) -> Result<Self> {
        let out = |detail: String| Error::OutOfMemory { device: "CPU".into(), what: what(), bytes: len as u64, detail };
        let padded = len.checked_add(Self::LINE).ok_or_else(|| out(String::new()))?;
        #[cfg(target_os = "linux")]
        let bytes = {
            let bytes = memmap2::MmapMut::map_anon(padded).map_err(|e| out(format!(" ({e})")))?;
            // a hint: without huge pages clearing is only slower
            let _ = bytes.advise(memmap2::Advice::HugePage);
            bytes
        };
        // the system provides zeroed pages, which are not written here
        #[cfg(not(target_os = "linux"))]
        let bytes: Vec<u8> = bytemuck::allocation::try_zeroed_vec(padded).map_err(|()| out(String::new()))?;
        let start = bytes.as_ptr().align_offset(Self::LINE).min(Self::LINE);
        Ok(Self { bytes, start, len })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..][..self.len]
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..][..self.len]
    }
}
