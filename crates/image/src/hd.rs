//! The HD transform: the grid of crops that fits a picture, and the picture resized and padded to it.

use crate::resize::{Filter, Order, resize_in_order};
use crate::{Error, Picture, Result};

/// Most pixels of a grid of crops or patches: 142 crops of 336 · 336, 192 MiB of values.
pub(crate) const MAX_GRID: usize = 1 << 24;

/// Largest crop or patch in pixels.
pub(crate) const MAX_CROP: usize = 4096;

/// Settings of the HD transform, from `preprocessor_config.json` and the vision tower's config.
///
/// [`Hd::default`] is Phi-3-vision: 16 crops of 336 pixels, patches of 14, CLIP's mean and standard deviation. Phi-3.5-vision
/// has 4 crops.
#[derive(Debug, Clone, PartialEq)]
pub struct Hd {
    /// Side of a crop in pixels (`image_size` of the tower).
    pub crop: usize,
    /// Side of a patch in pixels (`patch_size` of the tower); two patches a side make one token.
    pub patch: usize,
    /// Most crops of a picture, the global view not counted (`num_crops`).
    pub max_crops: usize,
    /// Mean of red, green and blue, on the scale of 0 to 1 (`image_mean`).
    pub mean: [f32; 3],
    /// Standard deviation of red, green and blue, on the scale of 0 to 1 (`image_std`).
    pub std: [f32; 3],
}

impl Default for Hd {
    fn default() -> Self {
        Self {
            crop: 336,
            patch: 14,
            max_crops: 16,
            mean: [0.48145466, 0.4578275, 0.40821073],
            std: [0.26862954, 0.261_302_6, 0.275_777_1],
        }
    }
}

/// A width and a height in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

/// Sizes, grid of crops and number of tokens of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Size after resizing.
    pub resized: Size,
    /// Size after padding, a multiple of the crop each way.
    pub padded: Size,
    /// Rows and columns of crops.
    pub grid: (usize, usize),
    /// Whether the picture is higher than wide. Such a picture is padded left and right, any other above and below.
    pub portrait: bool,
    /// Tokens of the picture: (crops + 1) · side² + 1 + (rows + 1) · side, with side = crop / patch / 2.
    pub tokens: usize,
}

impl Hd {
    /// The grid for a picture of `width` · `height` pixels.
    ///
    /// The longer side is scaled, usually up, to the largest number of crops whose grid has at most `max_crops` crops.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for invalid settings, [`Error::NoPixels`] and [`Error::TooLarge`] for sizes that
    /// [`Picture::new`] refuses, [`Error::TooThin`] where the shorter side is scaled to 0 pixels.
    ///
    /// # Source
    ///
    /// `image_processing_phi3_v.py` of Phi-3-vision, `HD_transform`, `calc_hd_transform_size`.
    pub fn layout(&self, width: u32, height: u32) -> Result<Layout> {
        self.check()?;
        crate::picture::check_size(width, height)?;
        let portrait = width < height;
        let (long, short) = if portrait { (height, width) } else { (width, height) };
        let ratio = f64::from(long) / f64::from(short);
        // `check` bounds max_crops, so the products are small; f64 rounds up as Python's math.ceil does
        let crops = |scale: usize| scale.saturating_mul((scale as f64 / ratio).ceil() as usize);
        let scale = (1..=self.max_crops).take_while(|&scale| crops(scale) <= self.max_crops).last().unwrap_or(1);
        let long = scale * self.crop;
        let short = (long as f64 / ratio) as usize;
        if short == 0 {
            let ratio = self.max_crops * self.crop;
            return Err(Error::TooThin { width, height, max_crops: self.max_crops, ratio });
        }
        let lines = short.div_ceil(self.crop);
        let size = |long: usize, short: usize| {
            let (long, short) = (long as u32, short as u32);
            if portrait { Size { width: short, height: long } } else { Size { width: long, height: short } }
        };
        let grid = if portrait { (scale, lines) } else { (lines, scale) };
        let side = self.side();
        let tokens = (grid.0 * grid.1 + 1) * side * side + 1 + (grid.0 + 1) * side;
        Ok(Layout { resized: size(long, short), padded: size(long, lines * self.crop), grid, portrait, tokens })
    }

    /// Tokens along a side of one crop: 12 for crops of 336 pixels and patches of 14.
    pub fn side(&self) -> usize {
        self.crop.checked_div(self.patch).unwrap_or(0) / 2
    }

    /// The picture resized (bilinear, as Pillow) and padded with white to its grid.
    ///
    /// The extra pixel of an odd padding is below or at the right.
    ///
    /// # Errors
    ///
    /// Those of [`Hd::layout`].
    pub fn padded(&self, picture: &Picture) -> Result<Picture> {
        let layout = self.layout(picture.width(), picture.height())?;
        // a portrait is transposed, resized and transposed back: its height is resized first
        let order = if layout.portrait { Order::HeightFirst } else { Order::WidthFirst };
        let Size { width, height } = layout.resized;
        let resized = resize_in_order(picture, width, height, Filter::Bilinear, order)?;
        if layout.padded == layout.resized {
            return Ok(resized);
        }
        let left = (layout.padded.width - width) as usize / 2 * 3;
        let top = (layout.padded.height - height) as usize / 2;
        let mut rgb = vec![255; layout.padded.width as usize * layout.padded.height as usize * 3];
        let rows = rgb.chunks_exact_mut(layout.padded.width as usize * 3).skip(top);
        for (to, from) in rows.zip(resized.rows()) {
            to[left..left + from.len()].copy_from_slice(from);
        }
        Picture::new(layout.padded.width, layout.padded.height, rgb)
    }

    /// Checks the settings.
    fn check(&self) -> Result<()> {
        let bad = |field, expected, found: String| Err(Error::Setting { field, expected, found });
        let (crop, patch) = (self.crop, self.patch);
        if !(1..=MAX_CROP).contains(&crop) {
            return bad("image_size", "a crop of 1 to 4096 pixels", crop.to_string());
        }
        if patch == 0 || crop % patch != 0 || crop / patch % 2 != 0 {
            return bad(
                "patch_size",
                "an even number of patches along a crop",
                format!("{patch} for a crop of {crop}"),
            );
        }
        if self.max_crops == 0 || self.max_crops > MAX_GRID / (crop * crop) {
            return bad("num_crops", "1 or more crops, 16 Mi pixels together", self.max_crops.to_string());
        }
        check_colors(&self.mean, &self.std)
    }
}

/// Checks means and standard deviations.
pub(crate) fn check_colors(mean: &[f32; 3], std: &[f32; 3]) -> Result<()> {
    let bad = |field, expected, found| Err(Error::Setting { field, expected, found });
    if mean.iter().any(|mean| !mean.is_finite()) {
        return bad("image_mean", "finite numbers", format!("{mean:?}"));
    }
    if std.iter().any(|std| !(std.is_finite() && *std > 0.0)) {
        return bad("image_std", "finite numbers above 0", format!("{std:?}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_no_tower_has() {
        let good = Hd::default();
        let cases = [
            ("image_size", Hd { crop: 0, ..good.clone() }),
            ("image_size", Hd { crop: usize::MAX, ..good.clone() }),
            ("patch_size", Hd { patch: 0, ..good.clone() }),
            ("patch_size", Hd { patch: 112, ..good.clone() }),
            ("patch_size", Hd { patch: 13, ..good.clone() }),
            ("num_crops", Hd { max_crops: 0, ..good.clone() }),
            ("num_crops", Hd { max_crops: usize::MAX, ..good.clone() }),
            ("image_mean", Hd { mean: [0.0, f32::NAN, 0.0], ..good.clone() }),
            ("image_std", Hd { std: [0.0, 1.0, 1.0], ..good.clone() }),
        ];
        for (expected, hd) in cases {
            assert!(matches!(hd.layout(10, 10), Err(Error::Setting { field, .. }) if field == expected), "{hd:?}");
        }
        assert_eq!((good.side(), Hd { patch: 0, ..good }.side()), (12, 0));
    }

    #[test]
    fn thin_pictures() {
        let hd = Hd { max_crops: 4, ..Hd::default() };
        assert_eq!(hd.layout(1344, 1).unwrap().resized, Size { width: 1344, height: 1 });
        let thin = |width, height| Err(Error::TooThin { width, height, max_crops: 4, ratio: 1344 });
        assert_eq!(hd.layout(1345, 1), thin(1345, 1));
        assert_eq!(hd.layout(1, 100_000), thin(1, 100_000));
        assert_eq!(hd.layout(0, 7), Err(Error::NoPixels { width: 0, height: 7 }));
    }
}
