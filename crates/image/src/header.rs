//! Size and memory cost of a picture file from its header, before decoding.
//!
//! Decoders allocate memory by the sizes in a file. These sizes are read first, compared with the length of the file, and refused
//! where decoding would take more memory than [`MAX_MEMORY`].

use crate::bytes::{Header, array};
use crate::picture::check_size;
use crate::webp::WebP;
use crate::{Error, Format, Result};

/// Most memory of a file and its decoding in bytes; a process that does nothing else stays below one gigabyte.
pub const MAX_MEMORY: u64 = 960_000_000;

/// Most scans of a JPEG file. Encoders write up to 11. Each scan visits every block of a component, even if it has no bytes.
const MAX_SCANS: usize = 100;

/// Reads the header of `bytes`, and checks its size against the limits.
pub(crate) fn read(bytes: &[u8], format: Format) -> Result<Header> {
    let header = match format {
        Format::Jpeg => jpeg(bytes)?,
        Format::Png => png(bytes)?,
        Format::WebP => WebP::read(bytes)?.header(),
        Format::Gif => gif(bytes)?,
    };
    let (width, height) = (header.width, header.height);
    let pixels = check_size(width, height)? as u64;
    if pixels * header.cost + bytes.len() as u64 > MAX_MEMORY {
        let most = MAX_MEMORY.saturating_sub(bytes.len() as u64) / header.cost;
        let expected = format!("at most {most} pixels in a {format} file of this kind");
        return Err(Error::TooLarge { expected, width, height });
    }
    Ok(header)
}

/// ISO/IEC 15948, 11.2.1: IHDR is the first chunk.
fn png(bytes: &[u8]) -> Result<Header> {
    let expected = "the chunk IHDR";
    let [.., k0, k1, k2, k3] = array::<8>(bytes, 8, Format::Png, expected)?;
    if [k0, k1, k2, k3] != *b"IHDR" {
        let found = format!("the chunk {:?}", String::from_utf8_lossy(&[k0, k1, k2, k3]));
        return Err(Error::Damaged { format: Format::Png, expected, found });
    }
    let width = u32::from_be_bytes(array(bytes, 16, Format::Png, expected)?);
    let height = u32::from_be_bytes(array(bytes, 20, Format::Png, expected)?);
    let [depth, colour] = array(bytes, 24, Format::Png, expected)?;
    // a later chunk may add transparency to gray, RGB and palettes
    let channels = if matches!(colour, 0 | 4) { 2 } else { 4 };
    let sample = if depth == 16 { 2 } else { 1 };
    Ok(Header { width, height, cost: (channels * sample + 3).max(6), used: bytes.len() })
}

/// GIF89a, 18 to 24: the logical screen, and blocks up to the end of the first frame.
fn gif(bytes: &[u8]) -> Result<Header> {
    let format = Format::Gif;
    let [w0, w1, h0, h1, flags] = array(bytes, 6, format, "the logical screen")?;
    let (width, height) = (u16::from_le_bytes([w0, w1]).into(), u16::from_le_bytes([h0, h1]).into());
    let mut at = 13 + palette(flags);
    let used = loop {
        match array(bytes, at, format, "a frame")? {
            [0x21] => at = after_blocks(bytes, at + 2)?,
            [0x2c] => {
                let [flags] = array(bytes, at + 9, format, "a frame's flags")?;
                break after_blocks(bytes, at + 11 + palette(flags))?;
            }
            [other] => {
                let found = format!("the byte {other:#04x} at byte {at}");
                return Err(Error::Damaged { format, expected: "a frame or an extension", found });
            }
        }
    };
    // RGBA screen and RGBA frame, then the RGB picture
    Ok(Header { width, height, cost: 11, used })
}

/// Bytes of a GIF's palette, by its flags.
fn palette(flags: u8) -> usize {
    if flags & 0x80 == 0 { 0 } else { 6 << (flags & 7) }
}

/// Position after GIF's blocks of data, the last of which is empty.
fn after_blocks(bytes: &[u8], mut at: usize) -> Result<usize> {
    loop {
        let [length] = array(bytes, at, Format::Gif, "a block of data")?;
        at += 1 + usize::from(length);
        if length == 0 {
            return Ok(at);
        }
    }
}

/// ITU T.81, annex B: markers up to EOI.
fn jpeg(bytes: &[u8]) -> Result<Header> {
    let format = Format::Jpeg;
    let truncated = |expected| Error::Truncated { format, expected, found: bytes.len() };
    let damaged = |expected, found: String| Error::Damaged { format, expected, found };
    let (mut at, mut frame, mut scans) = (2, None, 0);
    let used = loop {
        let expected = if scans == 0 { "a start of scan" } else { "an end of image" };
        let (marker, after) = next_marker(bytes, at).ok_or_else(|| truncated(expected))?;
        if matches!(marker, 0x01 | 0xd0..=0xd8) {
            at = after;
            continue;
        }
        if marker == 0xd9 {
            break after;
        }
        let length = usize::from(u16::from_be_bytes(array(bytes, after, format, "a segment's length")?));
        if length < 2 {
            return Err(damaged("a segment of at least 2 bytes", format!("{length} bytes at byte {after}")));
        }
        at = after + length;
        if at > bytes.len() {
            return Err(truncated("the rest of a segment"));
        }
        match marker {
            0xda => scans += 1,
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                if frame.is_some() {
                    return Err(damaged("one frame", "another one".into()));
                }
                let [_, h0, h1, w0, w1, components] = array(bytes, after + 2, format, "a frame's size")?;
                frame = Some((marker, u16::from_be_bytes([w0, w1]), u16::from_be_bytes([h0, h1]), components));
            }
            _ => {}
        }
        if scans > MAX_SCANS {
            return Err(damaged("at most 100 scans", "more".into()));
        }
    };
    let Some((marker, width, height, components)) = frame.filter(|_| scans > 0) else {
        return Err(damaged("a frame and a scan before the end of image", "none".into()));
    };
    // one scan is decoded row by row; for a progressive file or several scans the decoder keeps all coefficients, 16 bits each
    let cost = if scans == 1 && marker != 0xc2 { 6 } else { 2 * u64::from(components.max(1)) + 3 };
    Ok(Header { width: width.into(), height: height.into(), cost: cost.max(6), used })
}

/// The next marker at or after `at`, and the position after it. Entropy-coded data and stray bytes are skipped.
fn next_marker(bytes: &[u8], mut at: usize) -> Option<(u8, usize)> {
    loop {
        at += bytes.get(at..)?.iter().position(|&byte| byte == 0xff)?;
        at += bytes.get(at..)?.iter().position(|&byte| byte != 0xff)?;
        let marker = *bytes.get(at)?;
        at += 1;
        if marker != 0 {
            return Some((marker, at));
        }
    }
}
