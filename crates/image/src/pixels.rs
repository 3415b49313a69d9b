//! Normalized values of a picture, and the global view of its crops.

use crate::{Error, Hd, Picture, Result};

/// Parameter of torch's bicubic interpolation.
const A: f32 = -0.75;

/// Input of a vision tower for one picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Pixels {
    /// Rows and columns of crops ([`Hd`]) or of patches ([`Naflex`](crate::Naflex)).
    pub grid: (usize, usize),
    /// Normalized values. For crops, [1 + crops, 3, crop, crop]: the global view, then the crops row by row, without the crops of
    /// zeros that the published processor appends up to `num_crops`. For patches, [patches, patch · patch · 3]: row by row, and
    /// in each patch rows of pixels of three channels.
    pub values: Vec<f32>,
    /// Height and width of the resized and padded picture in pixels.
    pub size: [usize; 2],
    /// Tokens of the picture.
    pub tokens: usize,
}

impl Hd {
    /// Resizes, pads, normalizes and cuts a picture.
    ///
    /// # Errors
    ///
    /// Those of [`Hd::layout`].
    pub fn pixels(&self, picture: &Picture) -> Result<Pixels> {
        let layout = self.layout(picture.width(), picture.height())?;
        let padded = self.padded(picture)?;
        let size = [padded.height() as usize, padded.width() as usize];
        let planes = self.normalise(&padded);
        let mut values = global_view(&planes, size, self.crop)?;
        let crops = layout.grid.0 * layout.grid.1;
        values.reserve_exact(planes.len());
        for crop in 0..crops {
            let (row, column) = (crop / layout.grid.1, crop % layout.grid.1);
            for plane in planes.chunks_exact(size[0] * size[1]) {
                let lines = plane.chunks_exact(size[1]).skip(row * self.crop).take(self.crop);
                for line in lines {
                    values.extend_from_slice(&line[column * self.crop..(column + 1) * self.crop]);
                }
            }
        }
        Ok(Pixels { grid: layout.grid, values, size, tokens: layout.tokens })
    }

    /// (x / 255 - mean) / std, [3, height, width].
    fn normalise(&self, picture: &Picture) -> Vec<f32> {
        let mut values = Vec::with_capacity(picture.rgb().len());
        for (channel, (mean, std)) in self.mean.into_iter().zip(self.std).enumerate() {
            let table: [f32; 256] = std::array::from_fn(|level| (level as f32 / 255.0 - mean) / std);
            values.extend(picture.rgb().as_chunks::<3>().0.iter().map(|pixel| table[usize::from(pixel[channel])]));
        }
        values
    }
}

/// Bicubic interpolation of planes [3, height, width] to [3, crop, crop], as `torch.nn.functional.interpolate` with
/// `mode="bicubic"`: a = -0.75, no antialiasing however large the reduction, `align_corners` false.
///
/// `size` is [height, width] in pixels. The results are not clamped.
///
/// # Errors
///
/// [`Error::Length`] where `values` does not have 3 · height · width values, or a side or `crop` is 0.
pub fn global_view(values: &[f32], size: [usize; 2], crop: usize) -> Result<Vec<f32>> {
    let [height, width] = size;
    let expected = height.saturating_mul(width).saturating_mul(3);
    if values.len() != expected || expected == 0 || crop == 0 {
        return Err(Error::Length {
            what: "planes of the global view",
            expected: expected.max(3),
            found: values.len(),
        });
    }
    let columns = taps(width, crop);
    let mut view = Vec::with_capacity(crop.saturating_mul(crop).saturating_mul(3));
    for plane in values.chunks_exact(height * width) {
        for (rows, down) in taps(height, crop) {
            let lines = rows.map(|row| &plane[row * width..(row + 1) * width]);
            view.extend(columns.iter().map(|(places, across)| {
                let inner = lines.map(|line| weighted(places.map(|place| line[place]), *across));
                weighted(inner, down)
            }));
        }
    }
    Ok(view)
}

/// Sum of four products, in order.
fn weighted(values: [f32; 4], weights: [f32; 4]) -> f32 {
    values.into_iter().zip(weights).fold(0.0, |sum, (value, weight)| sum + value * weight)
}

/// Four input positions, clamped to the edges, and their weights, for each of `to` outputs over `from` inputs.
fn taps(from: usize, to: usize) -> Vec<([usize; 4], [f32; 4])> {
    let scale = from as f32 / to as f32;
    let tap = |index: usize| {
        let source = (index as f32 + 0.5) * scale - 0.5;
        let floor = source.floor();
        let (first, t) = (floor as isize - 1, source - floor);
        let place = |offset: isize| (first + offset).clamp(0, from as isize - 1) as usize;
        ([0, 1, 2, 3].map(place), [outer(t + 1.0), inner(t), inner(1.0 - t), outer(2.0 - t)])
    };
    (0..to).map(tap).collect()
}

/// Weight at a distance of at most 1.
fn inner(x: f32) -> f32 {
    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
}

/// Weight at a distance of 1 to 2.
fn outer(x: f32) -> f32 {
    ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        for (values, size, crop) in [(11, [2, 2], 1), (12, [2, 2], 0), (0, [0, 2], 1), (3, [usize::MAX, 2], 1)] {
            assert!(matches!(global_view(&vec![0.0; values], size, crop), Err(Error::Length { .. })), "{size:?}");
        }
        assert_eq!(global_view(&[1.0, 2.0, 3.0], [1, 1], 2).unwrap(), [1., 1., 1., 1., 2., 2., 2., 2., 3., 3., 3., 3.]);
    }
}
