//! The container of WebP (RFC 9649, section 2): the first frame and its place on the canvas.

use std::io::Cursor;

use image::ImageDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;

use crate::bytes::{Header, array};
use crate::picture::{check_size, zeroed};
use crate::{Error, Format, Result, vp8l};

/// A file whose lengths have been compared with the bytes that are there.
pub(crate) struct WebP<'a> {
    /// Width and height of the canvas.
    canvas: (u32, u32),
    /// Column and row of the frame on the canvas.
    place: (u32, u32),
    /// Width and height of the frame.
    size: (u32, u32),
    /// The frame: a chunk VP8 or VP8L.
    frame: Chunk<'a>,
    exif: Option<&'a [u8]>,
}

impl<'a> WebP<'a> {
    /// Finds the first frame. Planes of alpha are skipped.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self> {
        let format = Format::WebP;
        let riff = u32::from_le_bytes(array(bytes, 4, format, "the RIFF header")?) as usize;
        let Some(file) = bytes.get(..riff.saturating_add(8)) else {
            let expected = "the number of bytes in the RIFF header";
            return Err(Error::Truncated { format, expected, found: bytes.len() });
        };
        let chunks = chunks(file, 12)?;
        let missing = || Error::Truncated { format, expected: "a picture", found: bytes.len() };
        let canvas = chunks.first().ok_or_else(missing)?.size()?;
        check_size(canvas.0, canvas.1)?;
        let find = |kind: &[u8; 4]| chunks.iter().find(|chunk| chunk.kind == *kind);
        let exif = find(b"EXIF").map(|chunk| chunk.data);
        let frame = chunks.iter().find(|chunk| chunk.is_frame() || chunk.kind == *b"ANMF").ok_or_else(missing)?;
        if frame.is_frame() {
            let size = frame.size()?;
            if size != canvas {
                let found = format!("{} x {} on {} x {}", size.0, size.1, canvas.0, canvas.1);
                return Err(Error::Damaged { format, expected: "a picture of its canvas' size", found });
            }
            return Ok(Self { canvas, place: (0, 0), size, frame: *frame, exif });
        }
        let header: [u8; 12] = array(frame.data, 0, format, "a frame's place and size")?;
        let [x, y, width, height] =
            [0, 3, 6, 9].map(|at| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], 0]));
        let parts = self::chunks(frame.data, 16)?;
        let inner = parts.into_iter().find(Chunk::is_frame).ok_or_else(missing)?;
        let found = inner.size()?;
        if found != (width + 1, height + 1) {
            let found = format!("{} x {} in {} x {}", found.0, found.1, width + 1, height + 1);
            return Err(Error::Damaged { format, expected: "a picture of its frame's size", found });
        }
        let (x, y) = (2 * x, 2 * y);
        if x + found.0 > canvas.0 || y + found.1 > canvas.1 {
            let found = format!("{} x {} pixels at {x}, {y} on {} x {}", found.0, found.1, canvas.0, canvas.1);
            return Err(Error::Damaged { format, expected: "a frame within the canvas", found });
        }
        Ok(Self { canvas, place: (x, y), size: found, frame: inner, exif })
    }

    /// Size and memory cost of the canvas. Two pictures are in memory at a time: the decoder's (4 bytes a pixel and 1 for
    /// transforms, or 4:2:0 planes) and the RGB of the frame; then those of frame and canvas.
    pub(crate) fn header(&self) -> Header {
        Header { width: self.canvas.0, height: self.canvas.1, cost: 8, used: 0 }
    }

    /// EXIF's orientation, 1 where there is none.
    pub(crate) fn orientation(&self) -> u8 {
        // some files have the prefix of JPEG's EXIF segment
        let exif = self.exif.map(|exif| exif.strip_prefix(b"Exif\0\0").unwrap_or(exif));
        exif.and_then(Orientation::from_exif_chunk).map_or(1, Orientation::to_exif)
    }

    /// The canvas with its first frame as RGB; pixels outside the frame are black.
    pub(crate) fn rgb(&self, decoder_error: impl Fn(&image::ImageError) -> Error) -> Result<Vec<u8>> {
        let (width, height) = self.size;
        let pixels = check_size(width, height)?;
        let frame = if self.frame.kind == *b"VP8L" {
            vp8l::decode(self.frame.data, width as usize, height as usize)?
        } else {
            let file = self.frame.alone();
            let decoder = WebPDecoder::new(Cursor::new(file)).map_err(|error| decoder_error(&error))?;
            let mut rgb = zeroed(pixels * 3)?;
            if decoder.total_bytes() != rgb.len() as u64 {
                let found = format!("{} bytes", decoder.total_bytes());
                return Err(Error::Damaged { format: Format::WebP, expected: "RGB of the frame's size", found });
            }
            decoder.read_image(&mut rgb).map_err(|error| decoder_error(&error))?;
            rgb
        };
        if self.size == self.canvas {
            return Ok(frame);
        }
        let mut canvas = zeroed(check_size(self.canvas.0, self.canvas.1)? * 3)?;
        let left = self.place.0 as usize * 3;
        let rows = canvas.chunks_exact_mut(self.canvas.0 as usize * 3).skip(self.place.1 as usize);
        for (to, from) in rows.zip(frame.chunks_exact(width as usize * 3)) {
            to[left..left + from.len()].copy_from_slice(from);
        }
        Ok(canvas)
    }
}

/// A chunk of RIFF.
#[derive(Clone, Copy)]
struct Chunk<'a> {
    kind: [u8; 4],
    data: &'a [u8],
}

impl Chunk<'_> {
    fn is_frame(&self) -> bool {
        [*b"VP8 ", *b"VP8L"].contains(&self.kind)
    }

    /// Width and height that a chunk VP8, VP8L or VP8X states.
    fn size(&self) -> Result<(u32, u32)> {
        let format = Format::WebP;
        let expected = "the size of the picture";
        match &self.kind {
            b"VP8 " => {
                let [w0, w1, h0, h1] = array(self.data, 6, format, expected)?;
                let side = |low, high| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
                Ok((side(w0, w1), side(h0, h1)))
            }
            b"VP8L" => {
                let bits = u32::from_le_bytes(array(self.data, 1, format, expected)?);
                Ok(((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1))
            }
            b"VP8X" => {
                let [w0, w1, w2, h0, h1, h2] = array(self.data, 4, format, expected)?;
                Ok((u32::from_le_bytes([w0, w1, w2, 0]) + 1, u32::from_le_bytes([h0, h1, h2, 0]) + 1))
            }
            kind => {
                let found = format!("{:?}", String::from_utf8_lossy(kind));
                Err(Error::Damaged { format, expected: "VP8, VP8L or VP8X as the first chunk", found })
            }
        }
    }

    /// A WebP file of this chunk only.
    fn alone(&self) -> Vec<u8> {
        let padded = self.data.len().next_multiple_of(2);
        let mut file = Vec::with_capacity(20 + padded);
        file.extend(b"RIFF");
        file.extend((12 + padded as u32).to_le_bytes());
        file.extend(b"WEBP");
        file.extend(self.kind);
        file.extend((self.data.len() as u32).to_le_bytes());
        file.extend(self.data);
        file.resize(20 + padded, 0);
        file
    }
}

/// The chunks of `data` from `at`; all are within `data`.
fn chunks(data: &[u8], mut at: usize) -> Result<Vec<Chunk<'_>>> {
    let mut chunks = Vec::new();
    while at.saturating_add(8) <= data.len() {
        let [k0, k1, k2, k3, s0, s1, s2, s3] = array(data, at, Format::WebP, "a chunk")?;
        let size = u32::from_le_bytes([s0, s1, s2, s3]) as usize;
        let end = at.saturating_add(8).saturating_add(size);
        let Some(inside) = data.get(at + 8..end) else {
            let found = format!("{size} bytes where {} are left", data.len() - at - 8);
            return Err(Error::Damaged { format: Format::WebP, expected: "a chunk's bytes within the file", found });
        };
        chunks.push(Chunk { kind: [k0, k1, k2, k3], data: inside });
        at = end + size % 2;
    }
    Ok(chunks)
}
