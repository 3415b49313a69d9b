//! Decoding of a picture file to RGB8.

use std::error::Error as _;
use std::fmt;
use std::io::{Cursor, ErrorKind};

use image::codecs::gif::GifDecoder;
use image::codecs::jpeg::JpegDecoder;
use image::codecs::png::PngDecoder;
use image::{ColorType, ImageDecoder, ImageError, ImageFormat, ImageResult, Limits};

use crate::header;
use crate::picture::{check_size, zeroed};
use crate::webp::WebP;
use crate::{Error, Picture, Result};

/// A supported file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// JPEG: baseline and progressive; gray, YCbCr, RGB, CMYK and YCCK.
    Jpeg,
    /// PNG: every colour type and depth.
    Png,
    /// WebP: lossy, lossless, animated.
    WebP,
    /// GIF: still, animated.
    Gif,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
            Self::Gif => "GIF",
        })
    }
}

/// Treatment of the EXIF orientation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Orientation {
    /// Turn the picture as a viewer does (transformers' `load_image`).
    #[default]
    Apply,
    /// Take the pixels as they are stored (the published processor, given a file that Pillow opened).
    Ignore,
}

/// Decodes a JPEG, PNG, WebP or GIF file.
///
/// Alpha and colour keys are dropped, not blended. Gray and palettes become RGB. 16-bit samples keep their high byte, gray
/// ones too (Pillow 13 clips 16-bit gray at 255 instead). Of an animated file the first frame is decoded.
///
/// PNG, GIF and WebP equal Pillow bit for bit. JPEG is within 5 levels of it, as the inverse transforms and the interpolation of
/// chroma differ; pixels at the right edge of a picture with 4:2:0 or 4:2:2 chroma may be 46 levels off.
///
/// # Errors
///
/// [`Error::Format`] for other files, [`Error::Truncated`], [`Error::Damaged`] and [`Error::Unsupported`] for files that cannot
/// be read, [`Error::NoPixels`] for a width or height of 0. [`Error::TooLarge`] beyond [`MAX_PIXELS`](crate::MAX_PIXELS) and
/// [`MAX_SIDE`](crate::MAX_SIDE), and where file and decoder may need more than [`MAX_MEMORY`](crate::MAX_MEMORY); the size is
/// read from the header, before memory is taken.
pub fn decode(bytes: &[u8], orientation: Orientation) -> Result<Picture> {
    let format = format(bytes)?;
    let header = header::read(bytes, format)?;
    let reader = || Cursor::new(bytes.get(..header.used).unwrap_or(bytes));
    let limits = || {
        let mut limits = Limits::no_limits();
        // bounds ancillary chunks of PNG, and the frame of GIF, which may be larger than the screen
        limits.max_alloc = Some(if format == Format::Png { 1 << 26 } else { header::MAX_MEMORY / 2 });
        limits
    };
    let size = (header.width, header.height);
    let source = Source { format, length: bytes.len(), size, orientation };
    match format {
        Format::Jpeg => source.read(JpegDecoder::new(reader())),
        Format::Png => source.read(PngDecoder::with_limits(reader(), limits())),
        Format::WebP => {
            let webp = WebP::read(bytes)?;
            let turn = if orientation == Orientation::Apply { webp.orientation() } else { 1 };
            Picture::new(header.width, header.height, webp.rgb(|error| source.error(error))?)?.turned(turn)
        }
        Format::Gif => source.read(GifDecoder::new(reader()).and_then(|mut decoder| {
            decoder.set_limits(limits())?;
            Ok(decoder)
        })),
    }
}

/// The format of a file by its first bytes.
fn format(bytes: &[u8]) -> Result<Format> {
    let convert = "save it as JPEG or PNG first";
    let (found, hint) = match image::guess_format(bytes) {
        Ok(ImageFormat::Jpeg) => return Ok(Format::Jpeg),
        Ok(ImageFormat::Png) => return Ok(Format::Png),
        Ok(ImageFormat::WebP) => return Ok(Format::WebP),
        Ok(ImageFormat::Gif) => return Ok(Format::Gif),
        Ok(other) => (format!("a file of the kind {other:?}"), convert),
        Err(_) if bytes.is_empty() => ("an empty file".into(), "copy or download it again"),
        Err(_) if bytes.get(4..8) == Some(b"ftyp") => ("HEIF or a video".into(), convert),
        Err(_) if bytes.starts_with(b"%PDF") => ("PDF".into(), convert),
        Err(_) => {
            let first = bytes.get(..bytes.len().min(12)).unwrap_or(bytes);
            (format!("a file that begins with \"{}\"", first.escape_ascii()), "check that it is the right file")
        }
    };
    Err(Error::Format { found, hint })
}

/// A file whose header has been read.
struct Source {
    format: Format,
    /// Bytes of the file.
    length: usize,
    size: (u32, u32),
    orientation: Orientation,
}

impl Source {
    fn read<D: ImageDecoder>(&self, decoder: ImageResult<D>) -> Result<Picture> {
        let mut decoder = decoder.map_err(|error| self.error(&error))?;
        let (width, height) = decoder.dimensions();
        if (width, height) != self.size {
            let found = format!("{width} x {height} pixels and {} x {}", self.size.0, self.size.1);
            return Err(Error::Damaged { format: self.format, expected: "one size", found });
        }
        let turn = match self.orientation {
            // damaged EXIF counts as none
            Orientation::Apply => decoder.orientation().map_or(1, image::metadata::Orientation::to_exif),
            Orientation::Ignore => 1,
        };
        let kind = decoder.color_type();
        let mut samples = zeroed(check_size(width, height)? * usize::from(kind.bytes_per_pixel()))?;
        decoder.read_image(&mut samples).map_err(|error| self.error(&error))?;
        Picture::new(width, height, self.rgb(samples, kind)?)?.turned(turn)
    }

    /// RGB8 of a decoder's samples.
    fn rgb(&self, samples: Vec<u8>, kind: ColorType) -> Result<Vec<u8>> {
        match kind {
            ColorType::Rgb8 => Ok(samples),
            ColorType::L8 => repack(&samples, |&[gray]| [gray; 3]),
            ColorType::La8 => repack(&samples, |&[gray, _]| [gray; 3]),
            ColorType::Rgba8 => repack(&samples, |&[red, green, blue, _]| [red, green, blue]),
            ColorType::L16 => repack(&samples, |&[a, b]| [high(a, b); 3]),
            ColorType::La16 => repack(&samples, |&[a, b, _, _]| [high(a, b); 3]),
            ColorType::Rgb16 => repack(&samples, |&[a, b, c, d, e, f]| [high(a, b), high(c, d), high(e, f)]),
            ColorType::Rgba16 => repack(&samples, |&[a, b, c, d, e, f, _, _]| [high(a, b), high(c, d), high(e, f)]),
            other => Err(Error::Unsupported { format: self.format, found: format!("samples of the kind {other:?}") }),
        }
    }

    /// Converts a decoder's error.
    fn error(&self, error: &ImageError) -> Error {
        let (format, found) = (self.format, error.to_string());
        if ends(error) {
            return Error::Truncated { format, expected: "the rest of the picture", found: self.length };
        }
        match error {
            ImageError::Unsupported(_) => Error::Unsupported { format, found },
            ImageError::Limits(_) => {
                let expected = format!("a {format} file that is decoded in less memory");
                Error::TooLarge { expected, width: self.size.0, height: self.size.1 }
            }
            _ => Error::Damaged { format, expected: "a valid file", found },
        }
    }
}

/// Converts pixels of `N` bytes to pixels of three.
fn repack<const N: usize>(samples: &[u8], pixel: impl Fn(&[u8; N]) -> [u8; 3]) -> Result<Vec<u8>> {
    let (pixels, _) = samples.as_chunks::<N>();
    let mut rgb = zeroed(pixels.len() * 3)?;
    for (to, from) in rgb.as_chunks_mut::<3>().0.iter_mut().zip(pixels) {
        *to = pixel(from);
    }
    Ok(rgb)
}

/// High byte of a 16-bit sample in native byte order.
fn high(first: u8, second: u8) -> u8 {
    (u16::from_ne_bytes([first, second]) >> 8) as u8
}

/// Whether an error, or one of its sources, is the unexpected end of the file.
fn ends(error: &ImageError) -> bool {
    let mut source = match error {
        ImageError::IoError(error) => return error.kind() == ErrorKind::UnexpectedEof,
        other => other.source(),
    };
    while let Some(error) = source {
        if error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::UnexpectedEof) {
            return true;
        }
        source = error.source();
    }
    false
}
