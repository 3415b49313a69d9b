//! Pictures in memory, their size limits and their EXIF orientation.

use crate::{Error, Result};

/// Most pixels of a picture: 128 Mi, an RGB8 buffer of 384 MiB.
pub const MAX_PIXELS: u64 = 1 << 27;

/// Longest side of a picture in pixels.
pub const MAX_SIDE: u32 = 1 << 20;

/// Side in pixels of the tiles in which a picture is turned; a tile fits into a cache.
const TILE: usize = 64;

/// A picture of 8-bit RGB, rows from the top, pixels from the left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
}

impl Picture {
    /// A picture of `rgb`, [height, width, 3].
    ///
    /// # Errors
    ///
    /// [`Error::NoPixels`] for a side of 0, [`Error::TooLarge`] beyond [`MAX_PIXELS`] or [`MAX_SIDE`], [`Error::Length`] where
    /// `rgb` does not have 3 · width · height bytes.
    pub fn new(width: u32, height: u32, rgb: Vec<u8>) -> Result<Self> {
        let expected = check_size(width, height)? * 3;
        if rgb.len() != expected {
            return Err(Error::Length { what: "RGB picture", expected, found: rgb.len() });
        }
        Ok(Self { width, height, rgb })
    }

    /// Width in pixels, at least 1.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels, at least 1.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The samples, [height, width, 3].
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// The samples, [height, width, 3].
    pub fn into_rgb(self) -> Vec<u8> {
        self.rgb
    }

    /// Rows of 3 · width bytes.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &[u8]> {
        self.rgb.chunks_exact(self.width as usize * 3)
    }

    /// The picture with EXIF's `orientation` applied, 1 to 8 (EXIF 2.32, tag 0x0112); other values count as 1.
    pub(crate) fn turned(self, orientation: u8) -> Result<Self> {
        // (rows become columns, the source is read from the right, the source is read from below)
        let (transpose, flip_x, flip_y) = match orientation {
            2 => (false, true, false),
            3 => (false, true, true),
            4 => (false, false, true),
            5 => (true, false, false),
            6 => (true, false, true),
            7 => (true, true, true),
            8 => (true, true, false),
            _ => return Ok(self),
        };
        let (from_width, from_height) = (self.width as usize, self.height as usize);
        let (width, height) = if transpose { (self.height, self.width) } else { (self.width, self.height) };
        let (pixels, _) = self.rgb.as_chunks::<3>();
        let mut rgb = zeroed(self.rgb.len())?;
        let (turned, _) = rgb.as_chunks_mut::<3>();
        let (to_width, to_height) = (width as usize, height as usize);
        for top in (0..to_height).step_by(TILE) {
            for left in (0..to_width).step_by(TILE) {
                for y in top..to_height.min(top + TILE) {
                    let row = &mut turned[y * to_width..(y + 1) * to_width];
                    for (x, pixel) in row.iter_mut().enumerate().skip(left).take(TILE) {
                        let (from_x, from_y) = if transpose { (y, x) } else { (x, y) };
                        let from_x = if flip_x { from_width - 1 - from_x } else { from_x };
                        let from_y = if flip_y { from_height - 1 - from_y } else { from_y };
                        *pixel = pixels[from_y * from_width + from_x];
                    }
                }
            }
        }
        Ok(Self { width, height, rgb })
    }
}

/// Number of pixels of a size, checked against the limits of this crate; three times the number fits in `usize`.
pub(crate) fn check_size(width: u32, height: u32) -> Result<usize> {
    if width == 0 || height == 0 {
        return Err(Error::NoPixels { width, height });
    }
    let pixels = u64::from(width) * u64::from(height);
    if pixels > MAX_PIXELS || width.max(height) > MAX_SIDE {
        let expected = format!("at most {MAX_PIXELS} pixels, at most {MAX_SIDE} a side");
        return Err(Error::TooLarge { expected, width, height });
    }
    Ok(pixels as usize)
}

/// Returns `bytes` zeros, or [`Error::Memory`] where they cannot be allocated.
pub(crate) fn zeroed(bytes: usize) -> Result<Vec<u8>> {
    let mut zeros = Vec::new();
    zeros.try_reserve_exact(bytes).map_err(|_| Error::Memory { bytes })?;
    zeros.resize(bytes, 0);
    Ok(zeros)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Width 3, height 2: pixels 0 1 2 / 3 4 5.
    fn picture() -> Picture {
        Picture::new(3, 2, (0..6).flat_map(|pixel| [pixel; 3]).collect()).unwrap()
    }

    #[test]
    fn every_orientation() {
        let cases: [(u8, u32, [u8; 6]); 10] = [
            (0, 3, [0, 1, 2, 3, 4, 5]),
            (1, 3, [0, 1, 2, 3, 4, 5]),
            (2, 3, [2, 1, 0, 5, 4, 3]),
            (3, 3, [5, 4, 3, 2, 1, 0]),
            (4, 3, [3, 4, 5, 0, 1, 2]),
            (5, 2, [0, 3, 1, 4, 2, 5]),
            (6, 2, [3, 0, 4, 1, 5, 2]),
            (7, 2, [5, 2, 4, 1, 3, 0]),
            (8, 2, [2, 5, 1, 4, 0, 3]),
            (9, 3, [0, 1, 2, 3, 4, 5]),
        ];
        for (orientation, width, expected) in cases {
            let turned = picture().turned(orientation).unwrap();
            let pixels: Vec<u8> = turned.rgb().iter().copied().step_by(3).collect();
            assert_eq!(
                (turned.width(), turned.height() * width, &pixels[..]),
                (width, 6, &expected[..]),
                "{orientation}"
            );
        }
    }

    #[test]
    fn turning_beyond_a_tile() {
        let rgb: Vec<u8> = (0..150 * 131 * 3u32).map(|at| (at * at % 255) as u8).collect();
        let picture = Picture::new(150, 131, rgb).unwrap();
        for (orientation, back) in [(2, 2), (3, 3), (4, 4), (5, 5), (6, 8), (7, 7), (8, 6)] {
            let turned = picture.clone().turned(orientation).unwrap();
            assert_ne!(turned, picture);
            assert_eq!(turned.turned(back).unwrap(), picture, "{orientation}");
        }
    }

    #[test]
    fn sizes_and_lengths() {
        assert_eq!(Picture::new(0, 4, vec![]), Err(Error::NoPixels { width: 0, height: 4 }));
        assert_eq!(Picture::new(2, 1, vec![0; 5]), Err(Error::Length { what: "RGB picture", expected: 6, found: 5 }));
        for (width, height) in [(u32::MAX, u32::MAX), (MAX_SIDE + 1, 1), (1, MAX_SIDE + 1), (11586, 11586)] {
            assert!(matches!(check_size(width, height), Err(Error::TooLarge { .. })), "{width} x {height}");
        }
        assert_eq!(check_size(MAX_SIDE, 128), Ok(1 << 27));
    }
}
