//! The preprocessed picture with its grid, as a PNG file.

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

use crate::{Error, Format, Hd, Naflex, Picture, Result};

/// Red, green and blue of the grid's lines.
const LINE: [u8; 3] = [255, 0, 0];

/// Pixels of a line on either side of a border between crops.
const HALF_LINE: usize = 1;

impl Hd {
    /// The bytes of a PNG file: the resized and padded picture, with a red line of two pixels where one crop ends and the next
    /// begins, and of one pixel along the edges.
    ///
    /// # Errors
    ///
    /// Those of [`Hd::layout`].
    pub fn explain(&self, picture: &Picture) -> Result<Vec<u8>> {
        ruled(self.padded(picture)?, |place| {
            let inside = place % self.crop;
            inside < HALF_LINE || inside + HALF_LINE >= self.crop
        })
    }
}

impl Naflex {
    /// The bytes of a PNG file: the resized picture, with a red line of one pixel at the top and at the left of each patch.
    ///
    /// # Errors
    ///
    /// Those of [`Naflex::resized`].
    pub fn explain(&self, picture: &Picture) -> Result<Vec<u8>> {
        ruled(self.resized(picture)?, |place| place.is_multiple_of(self.patch))
    }
}

/// PNG file of a picture; rows and columns for which `is_line` is true are red.
fn ruled(picture: Picture, is_line: impl Fn(usize) -> bool) -> Result<Vec<u8>> {
    let (width, height) = (picture.width(), picture.height());
    let mut rgb = picture.into_rgb();
    for (y, row) in rgb.chunks_exact_mut(width as usize * 3).enumerate() {
        let (pixels, _) = row.as_chunks_mut::<3>();
        for (x, pixel) in pixels.iter_mut().enumerate() {
            if is_line(x) || is_line(y) {
                *pixel = LINE;
            }
        }
    }
    let mut png = Vec::new();
    let written = PngEncoder::new(&mut png).write_image(&rgb, width, height, ExtendedColorType::Rgb8);
    written.map_err(|error| Error::Unsupported { format: Format::Png, found: error.to_string() })?;
    Ok(png)
}
