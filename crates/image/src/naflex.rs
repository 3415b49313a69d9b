//! SigLIP2's naflex preprocessing: a picture at about its own aspect ratio, as whole patches.

use crate::hd::{MAX_CROP, MAX_GRID, Size, check_colors};
use crate::{Error, Filter, Picture, Pixels, Result, resize};

/// Width of the interval at which the bisection of the scale ends; the smallest scale is a tenth of it.
const STEP: f64 = 1e-5;

/// The largest scale.
const LARGEST: f64 = 100.0;

/// Settings of the naflex preprocessing, from `preprocessor_config.json` and the vision tower's config.
///
/// [`Naflex::default`] is Phi-4-reasoning-vision: 256 to 3600 patches of 16 pixels, values from -1 to 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Naflex {
    /// Side of a patch in pixels (`patch_size`); each patch is a token.
    pub patch: usize,
    /// Approximate number of patches to which a smaller picture is enlarged (`min_num_patches`).
    pub min_patches: usize,
    /// Most patches of a picture (`max_num_patches`).
    pub max_patches: usize,
    /// Mean of red, green and blue, on the scale of 0 to 1 (`image_mean`).
    pub mean: [f32; 3],
    /// Standard deviation of red, green and blue, on the scale of 0 to 1 (`image_std`).
    pub std: [f32; 3],
}

impl Default for Naflex {
    fn default() -> Self {
        Self { patch: 16, min_patches: 256, max_patches: 3600, mean: [0.5; 3], std: [0.5; 3] }
    }
}

/// The grid of patches of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NaflexLayout {
    /// Size after resizing, a multiple of the patch each way.
    pub resized: Size,
    /// Rows and columns of patches.
    pub grid: (usize, usize),
    /// Tokens of the picture: rows · columns.
    pub tokens: usize,
}

impl Naflex {
    /// The grid for a picture of `width` · `height` pixels.
    ///
    /// The grid has at most as many patches as fit in the picture itself, clamped to `min_patches ..= max_patches`. A bisection
    /// finds the largest scale at which the sides, rounded up to patches, stay within that bound. The scale is at most 100, so
    /// very small pictures have fewer than `min_patches`; so have some others, because sides are whole patches.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for invalid settings, [`Error::NoPixels`] and [`Error::TooLarge`] for sizes that
    /// [`Picture::new`] refuses.
    ///
    /// # Source
    ///
    /// `Siglip2ImageProcessorNoUpscale` of Phi-4-reasoning-vision's `modeling_phi4_visionr.py`, and
    /// `get_image_size_for_max_num_patches` of transformers.
    pub fn layout(&self, width: u32, height: u32) -> Result<NaflexLayout> {
        self.check()?;
        crate::picture::check_size(width, height)?;
        let own = (width as usize / self.patch) * (height as usize / self.patch);
        let most = own.clamp(self.min_patches, self.max_patches);
        // sides are bounded, so the products are small
        let patches = |scale: f64, side: u32| ((f64::from(side) * scale / self.patch as f64).ceil() as usize).max(1);
        let (mut low, mut high) = (STEP / 10.0, LARGEST);
        while high - low >= STEP {
            let scale = (low + high) / 2.0;
            if patches(scale, height).saturating_mul(patches(scale, width)) <= most {
                low = scale;
            } else {
                high = scale;
            }
        }
        let (rows, columns) = (patches(low, height), patches(low, width));
        let side = |patches: usize| u32::try_from(patches * self.patch).unwrap_or(u32::MAX);
        let resized = Size { width: side(columns), height: side(rows) };
        crate::picture::check_size(resized.width, resized.height)?;
        Ok(NaflexLayout { resized, grid: (rows, columns), tokens: rows * columns })
    }

    /// The picture resized (bilinear, as Pillow) to whole patches.
    ///
    /// # Errors
    ///
    /// Those of [`Naflex::layout`].
    pub fn resized(&self, picture: &Picture) -> Result<Picture> {
        let Size { width, height } = self.layout(picture.width(), picture.height())?.resized;
        resize(picture, width, height, Filter::Bilinear)
    }

    /// Resizes and normalizes a picture, and cuts it into patches.
    ///
    /// # Errors
    ///
    /// Those of [`Naflex::layout`].
    pub fn pixels(&self, picture: &Picture) -> Result<Pixels> {
        let NaflexLayout { grid, tokens, .. } = self.layout(picture.width(), picture.height())?;
        let resized = self.resized(picture)?;
        let tables = [0, 1, 2].map(|channel| self.values_of_levels(channel));
        let mut values = Vec::with_capacity(resized.rgb().len());
        let lines: Vec<&[u8]> = resized.rows().collect();
        for lines in lines.chunks_exact(self.patch) {
            for left in (0..grid.1).map(|column| column * self.patch * 3) {
                for line in lines {
                    for pixel in line[left..left + self.patch * 3].as_chunks::<3>().0 {
                        values.extend(pixel.iter().zip(&tables).map(|(&level, table)| table[usize::from(level)]));
                    }
                }
            }
        }
        Ok(Pixels { grid, values, size: [resized.height() as usize, resized.width() as usize], tokens })
    }

    /// Normalized values of all levels of a channel. As in the published processor, the division by 255 is in f64, the rest in
    /// f32.
    fn values_of_levels(&self, channel: usize) -> [f32; 256] {
        let (mean, std) = (self.mean[channel], self.std[channel]);
        std::array::from_fn(|level| ((level as f64 * (1.0 / 255.0)) as f32 - mean) / std)
    }

    /// Checks the settings.
    fn check(&self) -> Result<()> {
        let bad = |field, expected, found: String| Err(Error::Setting { field, expected, found });
        if !(1..=MAX_CROP).contains(&self.patch) {
            return bad("patch_size", "a patch of 1 to 4096 pixels", self.patch.to_string());
        }
        if self.max_patches == 0 || self.max_patches > MAX_GRID / (self.patch * self.patch) {
            return bad("max_num_patches", "1 or more patches, 16 Mi pixels together", self.max_patches.to_string());
        }
        if self.min_patches == 0 || self.min_patches > self.max_patches {
            let found = format!("{} with max_num_patches {}", self.min_patches, self.max_patches);
            return bad("min_num_patches", "1 or more patches, at most max_num_patches", found);
        }
        check_colors(&self.mean, &self.std)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_no_tower_has() {
        let good = Naflex::default();
        let cases = [
            ("patch_size", Naflex { patch: 0, ..good.clone() }),
            ("patch_size", Naflex { patch: usize::MAX, ..good.clone() }),
            ("max_num_patches", Naflex { max_patches: 0, ..good.clone() }),
            ("max_num_patches", Naflex { max_patches: usize::MAX, ..good.clone() }),
            ("min_num_patches", Naflex { min_patches: 0, ..good.clone() }),
            ("min_num_patches", Naflex { min_patches: 3601, ..good.clone() }),
            ("image_mean", Naflex { mean: [0.0, f32::INFINITY, 0.0], ..good.clone() }),
            ("image_std", Naflex { std: [0.0, 1.0, 1.0], ..good.clone() }),
        ];
        for (expected, naflex) in cases {
            assert!(
                matches!(naflex.layout(10, 10), Err(Error::Setting { field, .. }) if field == expected),
                "{naflex:?}"
            );
        }
        assert_eq!(good.layout(0, 7), Err(Error::NoPixels { width: 0, height: 7 }));
        assert!(matches!(good.layout(u32::MAX, u32::MAX), Err(Error::TooLarge { .. })));
        // a strip of patches would be longer than a picture may be
        let strips = Naflex { patch: 4, min_patches: 1 << 20, max_patches: 1 << 20, ..good };
        assert!(matches!(strips.layout(1_000_000, 1), Err(Error::TooLarge { .. })));
    }

    /// Order of the values: patches row by row; in a patch, the channels of a pixel side by side.
    #[test]
    fn order_of_values() {
        let naflex = Naflex { patch: 2, min_patches: 1, max_patches: 6, mean: [0.0; 3], std: [1.0 / 255.0; 3] };
        let picture = Picture::new(6, 4, (0..72).collect()).unwrap();
        let pixels = naflex.pixels(&picture).unwrap();
        assert_eq!((pixels.grid, pixels.size, pixels.tokens), ((2, 3), [4, 6], 6));
        let rounded: Vec<u8> = pixels.values.iter().map(|value| value.round() as u8).collect();
        let second = [6, 7, 8, 9, 10, 11, 24, 25, 26, 27, 28, 29];
        assert_eq!((&rounded[12..24], rounded[36], rounded.len()), (&second[..], 36, 72));
    }
}
