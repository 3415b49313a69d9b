//! Bytes of an image file, and the sizes that its header gives.

use crate::{Error, Format, Result};

/// What is known of a file before it is decoded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Most bytes per pixel that live at one time, from the decoder's buffers to the RGB8 picture.
    pub(crate) cost: u64,
    /// Bytes of the file that belong to the picture.
    pub(crate) used: usize,
}

/// `N` bytes at `at`, or the error that the file ends there.
pub(crate) fn array<const N: usize>(
    bytes: &[u8],
    at: usize,
    format: Format,
    expected: &'static str,
) -> Result<[u8; N]> {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk::<N>()).copied();
    found.ok_or(Error::Truncated { format, expected, found: bytes.len() })
}
