//! What the model sees, as a picture.

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

use crate::{Error, Format, Hd, Picture, Result};

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
        let padded = self.padded(picture)?;
        let (width, height) = (padded.width(), padded.height());
        let mut rgb = padded.into_rgb();
        for (y, row) in rgb.chunks_exact_mut(width as usize * 3).enumerate() {
            let (pixels, _) = row.as_chunks_mut::<3>();
            for (x, pixel) in pixels.iter_mut().enumerate() {
                if self.is_line(x) || self.is_line(y) {
                    *pixel = LINE;
                }
            }
        }
        let mut png = Vec::new();
        let written = PngEncoder::new(&mut png).write_image(&rgb, width, height, ExtendedColorType::Rgb8);
        written.map_err(|error| Error::Unsupported { format: Format::Png, found: error.to_string() })?;
        Ok(png)
    }

    /// Whether a place is next to a border between crops.
    fn is_line(&self, place: usize) -> bool {
        let inside = place % self.crop;
        inside < HALF_LINE || inside + HALF_LINE >= self.crop
    }
}
