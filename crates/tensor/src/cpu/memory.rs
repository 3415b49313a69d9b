//! Large memory of the CPU.

use crate::{Error, Result};

/// Zeroed bytes, aligned to a cache line, in huge pages where the system has them: clearing pages of 4 KiB takes longer than
/// interleaving weights, and reading a cache in such pages waits for their addresses.
pub(super) struct AlignedBuf {
    #[cfg(target_os = "linux")]
    _owner: memmap2::MmapMut,
    #[cfg(not(target_os = "linux"))]
    _owner: Vec<u8>,
    first: *mut u8,
    len: usize,
}

// SAFETY: the memory is the buffer's own, and any thread may free it.
unsafe impl Send for AlignedBuf {}
// SAFETY: a shared buffer is only read, except through `first`, whose users exclude each other.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// Bytes of a cache line.
    const LINE: usize = 64;

    /// `len` bytes for `what`.
    pub(super) fn new(len: usize, what: impl Fn() -> String) -> Result<Self> {
        let out = |detail: String| Error::OutOfMemory { device: "CPU".into(), what: what(), bytes: len as u64, detail };
        let padded = len.checked_add(Self::LINE).ok_or_else(|| out(String::new()))?;
        #[cfg(target_os = "linux")]
        let mut owner = {
            let owner = memmap2::MmapMut::map_anon(padded).map_err(|e| out(format!(" ({e})")))?;
            // a hint: without huge pages clearing is only slower
            let _ = owner.advise(memmap2::Advice::HugePage);
            owner
        };
        // the system provides zeroed pages, which are not written here
        #[cfg(not(target_os = "linux"))]
        let mut owner: Vec<u8> = bytemuck::allocation::try_zeroed_vec(padded).map_err(|()| out(String::new()))?;
        let start = owner.as_ptr().align_offset(Self::LINE).min(Self::LINE);
        let first = owner.as_mut_ptr().wrapping_add(start);
        Ok(Self { _owner: owner, first, len })
    }

    /// The first byte. Who writes through it excludes all others from the bytes that it writes.
    pub(super) fn first(&self) -> *mut u8 {
        self.first
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes from `first` on belong to the buffer, as it is at most LINE bytes from the start of `len + LINE`.
        unsafe { std::slice::from_raw_parts(self.first, self.len) }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; the buffer is borrowed for writing.
        unsafe { std::slice::from_raw_parts_mut(self.first, self.len) }
    }
}
