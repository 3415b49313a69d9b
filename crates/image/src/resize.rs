//! Resizing of 8-bit RGB, equal to Pillow's bit for bit.
//!
//! Two passes, each from u8 to u8. A weight is a fixed-point number with 22 fractional bits; a sum begins at one half and is
//! shifted and clamped. Reductions widen the filter (antialiasing).

use std::borrow::Cow;
use std::f64::consts::PI;

use crate::picture::{check_size, zeroed};
use crate::{Picture, Result};

/// Fractional bits of a weight: 32, less 8 of a sample and 2 for sums outside 0 to 255.
const BITS: u32 = 22;

/// A filter of Pillow's `Image.Resampling`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// Triangle over two pixels. Phi-3-vision's filter.
    Bilinear,
    /// Cubic convolution over four pixels, a = -0.5.
    Bicubic,
    /// Windowed sinc over six pixels.
    Lanczos,
}

impl Filter {
    /// Half the filter's width in pixels, at a scale of 1.
    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    fn weight(self, distance: f64) -> f64 {
        let x = distance.abs();
        match self {
            Self::Bilinear if x < 1.0 => 1.0 - x,
            Self::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5,
            Self::Lanczos if (-3.0..3.0).contains(&distance) => sinc(distance) * sinc(distance / 3.0),
            _ => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) }
}

/// Order of the passes, which changes the result: each pass rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    WidthFirst,
    HeightFirst,
}

impl Order {
    /// Pillow 13's choice: the height is resized first where it loses more than twice the pixels that the width loses. Earlier
    /// versions always begin with the width.
    fn of(picture: &Picture, width: u32, height: u32) -> Self {
        let [lost_width, lost_height] =
            [(picture.width(), width), (picture.height(), height)].map(|(from, to)| i64::from(from) - i64::from(to));
        if lost_height > 0 && lost_height > 2 * lost_width { Self::HeightFirst } else { Self::WidthFirst }
    }
}

/// Resizes `picture` to `width` · `height` pixels: `Image.resize` of Pillow 13, bit for bit.
///
/// Earlier versions of Pillow always resize the width first. They differ where the height loses more than twice the pixels that
/// the width loses, which does not occur in the HD transform.
///
/// # Errors
///
/// [`Error::NoPixels`](crate::Error::NoPixels) for a side of 0, [`Error::TooLarge`](crate::Error::TooLarge) beyond
/// [`MAX_PIXELS`](crate::MAX_PIXELS) or [`MAX_SIDE`](crate::MAX_SIDE). The picture between the passes is never larger than both
/// the source and the result.
///
/// # Source
///
/// Pillow, `src/libImaging/Resample.c`, the 8-bit passes; the order of the passes was measured on Pillow 13.0.
pub fn resize(picture: &Picture, width: u32, height: u32, filter: Filter) -> Result<Picture> {
    resize_in_order(picture, width, height, filter, Order::of(picture, width, height))
}

/// [`resize`] with a given order of the passes.
pub(crate) fn resize_in_order(
    picture: &Picture,
    width: u32,
    height: u32,
    filter: Filter,
    order: Order,
) -> Result<Picture> {
    check_size(width, height)?;
    match order {
        Order::WidthFirst => {
            let between = resize_width(picture, width, filter)?;
            Ok(resize_height(&between, height, filter)?.into_owned())
        }
        Order::HeightFirst => {
            let between = resize_height(picture, height, filter)?;
            Ok(resize_width(&between, width, filter)?.into_owned())
        }
    }
}

/// The inputs of one output: `count` of them from `first`.
struct Tap {
    first: usize,
    count: usize,
}

/// The weights of every output along one side.
struct Taps {
    taps: Vec<Tap>,
    /// The weights of all outputs, one after another.
    weights: Vec<i32>,
}

impl Taps {
    /// Computes the weights; both sides are within the limits, which bounds their number.
    fn new(from: u32, to: u32, filter: Filter) -> Self {
        let scale = f64::from(from) / f64::from(to);
        let widening = scale.max(1.0);
        let (support, narrowing) = (filter.support() * widening, 1.0 / widening);
        let (mut taps, mut weights, mut exact) = (Vec::with_capacity(to as usize), Vec::new(), Vec::new());
        for output in 0..to {
            let center = (f64::from(output) + 0.5) * scale;
            // casts truncate, and make numbers below 0 to 0
            let first = (center - support + 0.5) as u32;
            let end = ((center + support + 0.5) as u32).min(from);
            let weight = |input: u32| filter.weight((f64::from(input) - center + 0.5) * narrowing);
            exact.clear();
            exact.extend((first..end).map(weight));
            let sum: f64 = exact.iter().fold(0.0, |sum, weight| sum + weight);
            let unit = if sum == 0.0 { 1.0 } else { sum };
            weights.extend(exact.iter().map(|weight| fixed_point(weight / unit)));
            taps.push(Tap { first: first as usize, count: exact.len() });
        }
        Self { taps, weights }
    }

    /// First input and weights of every output.
    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        let mut rest = &self.weights[..];
        self.taps.iter().map(move |tap| {
            let (weights, after) = rest.split_at(tap.count);
            rest = after;
            (tap.first, weights)
        })
    }
}

/// A weight rounded to [`BITS`] bits, halves away from 0.
fn fixed_point(weight: f64) -> i32 {
    let scaled = weight * f64::from(1 << BITS);
    (if scaled < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
}

/// Converts a sum of weighted samples to a sample. Sums of 255 · 2^22 · Σ|weight| stay within i32: Σ|weight| is below 1.6.
fn sample(sum: i32) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}

/// The pass along rows.
fn resize_width(picture: &Picture, width: u32, filter: Filter) -> Result<Cow<'_, Picture>> {
    if width == picture.width() {
        return Ok(Cow::Borrowed(picture));
    }
    let height = picture.height();
    let mut rgb = zeroed(check_size(width, height)? * 3)?;
    let taps = Taps::new(picture.width(), width, filter);
    for (to, from) in rgb.chunks_exact_mut(width as usize * 3).zip(picture.rows()) {
        let (from, _) = from.as_chunks::<3>();
        for (pixel, (first, weights)) in to.as_chunks_mut::<3>().0.iter_mut().zip(taps.iter()) {
            let mut sums = [1 << (BITS - 1); 3];
            for (input, &weight) in from[first..first + weights.len()].iter().zip(weights) {
                for (sum, &value) in sums.iter_mut().zip(input) {
                    *sum += i32::from(value) * weight;
                }
            }
            *pixel = sums.map(sample);
        }
    }
    Picture::new(width, height, rgb).map(Cow::Owned)
}

/// The pass along columns: whole rows are weighted and added, many samples at a time.
fn resize_height(picture: &Picture, height: u32, filter: Filter) -> Result<Cow<'_, Picture>> {
    if height == picture.height() {
        return Ok(Cow::Borrowed(picture));
    }
    let width = picture.width();
    let mut rgb = zeroed(check_size(width, height)? * 3)?;
    let taps = Taps::new(picture.height(), height, filter);
    let row = width as usize * 3;
    let mut sums = vec![0; row];
    for (to, (first, weights)) in rgb.chunks_exact_mut(row).zip(taps.iter()) {
        sums.fill(1 << (BITS - 1));
        for (from, &weight) in picture.rgb()[first * row..].chunks_exact(row).zip(weights) {
            for (sum, &value) in sums.iter_mut().zip(from) {
                *sum += i32::from(value) * weight;
            }
        }
        for (to, &sum) in to.iter_mut().zip(&sums) {
            *to = sample(sum);
        }
    }
    Picture::new(width, height, rgb).map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, MAX_SIDE};

    /// No sum of weighted samples leaves i32, however the picture is scaled.
    #[test]
    fn weights_keep_sums_within_i32() {
        for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos] {
            for (from, to) in (1..40).flat_map(|from| (1..300).map(move |to| (from, to))) {
                let taps = Taps::new(from, to, filter);
                for (_, weights) in taps.iter() {
                    let sum: i64 = weights.iter().map(|weight| i64::from(weight.abs())).sum();
                    assert!(sum * 10 < 16 << BITS, "{filter:?} {from} to {to}: {sum}");
                }
            }
        }
    }

    fn squares(width: u32, height: u32) -> Picture {
        Picture::new(width, height, (0..width * height * 3).map(|at| (at * at * 7 % 256) as u8).collect()).unwrap()
    }

    #[test]
    fn order_of_the_passes() {
        let picture = squares(23, 17);
        let transposed = |picture: Picture| picture.turned(5).unwrap();
        let inner = resize_in_order(&transposed(picture.clone()), 29, 9, Filter::Bicubic, Order::WidthFirst);
        let height_first = resize_in_order(&picture, 9, 29, Filter::Bicubic, Order::HeightFirst).unwrap();
        assert_eq!(height_first, transposed(inner.unwrap()));
        assert_ne!(height_first, resize(&picture, 9, 29, Filter::Bicubic).unwrap());
        assert_eq!(resize(&picture, 23, 17, Filter::Lanczos).unwrap(), picture);
        for (width, height, order) in [
            (22, 15, Order::WidthFirst),
            (22, 14, Order::HeightFirst),
            (23, 16, Order::HeightFirst),
            (30, 16, Order::HeightFirst),
            (30, 18, Order::WidthFirst),
        ] {
            assert_eq!(Order::of(&picture, width, height), order, "{width} x {height}");
        }
    }

    /// `Image.resize((5, 2), BICUBIC)` of Pillow 13.0; the result of 11.3 is that of the other order.
    #[test]
    fn height_first_as_pillow_13() {
        let expected = [
            127, 96, 85, 112, 106, 189, 141, 128, 203, 152, 155, 143, 105, 175, 106, 123, 152, 107, 177, 160, 139, 146,
            145, 132, 98, 149, 114, 118, 194, 123,
        ];
        assert_eq!(resize(&squares(4, 9), 5, 2, Filter::Bicubic).unwrap().rgb(), expected);
    }

    #[test]
    fn sizes_that_are_refused() {
        let picture = Picture::new(1, 1000, vec![7; 3000]).unwrap();
        let resize = |width, height| resize(&picture, width, height, Filter::Bilinear);
        assert_eq!(resize(0, 5), Err(Error::NoPixels { width: 0, height: 5 }));
        assert!(resize(MAX_SIDE, 1).is_ok());
        assert!(matches!(resize(MAX_SIDE + 1, 1), Err(Error::TooLarge { .. })));
        assert!(matches!(resize(u32::MAX, u32::MAX), Err(Error::TooLarge { .. })));
    }
}
