//! Bytes of a picture file, and the sizes in its header.

use crate::{Error, Format, Result};

/// Size and memory cost of a file, from its header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Peak memory in bytes per pixel: the decoder's buffers and the RGB8 picture.
    pub(crate) cost: u64,
    /// Length in bytes of the part of the file that the decoder reads; not used for WebP.
    pub(crate) used: usize,
}

/// Returns `N` bytes at `at`, or [`Error::Truncated`] where the file ends before.
pub(crate) fn array<const N: usize>(
    bytes: &[u8],
    at: usize,
    format: Format,
    expected: &'static str,
) -> Result<[u8; N]> {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk::<N>()).copied();
    found.ok_or(Error::Truncated { format, expected, found: bytes.len() })
}
