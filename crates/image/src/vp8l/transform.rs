//! Transforms of a VP8L picture, undone (RFC 9649, 3.5).

use super::Plane;

/// A pixel of opaque black.
const BLACK: u32 = 0xff00_0000;

/// A transform with its data.
pub(super) enum Transform {
    /// Pixels are differences from a prediction by their neighbours; the green of `modes` is the mode of a block.
    Predictor { bits: u32, modes: Plane },
    /// Red and blue are differences from multiples of green and red.
    Color { bits: u32, multipliers: Plane },
    /// Red and blue are differences from green.
    SubtractGreen,
    /// Pixels are indices of a palette, 2^`bits` of them in one green.
    Palette { bits: u32, colors: Vec<u32>, width: usize },
}

impl Transform {
    /// The picture before the transform.
    pub(super) fn undo(&self, mut plane: Plane) -> Plane {
        match self {
            Self::Predictor { bits, modes } => predict(&mut plane, *bits, modes),
            Self::Color { bits, multipliers } => {
                let width = plane.width;
                for (y, row) in plane.pixels.chunks_exact_mut(width).enumerate() {
                    for (x, pixel) in row.iter_mut().enumerate() {
                        *pixel = recolor(*pixel, multipliers.block(x, y, *bits));
                    }
                }
            }
            Self::SubtractGreen => {
                for pixel in &mut plane.pixels {
                    let green = *pixel >> 8 & 0xff;
                    *pixel = add(*pixel, green << 16 | green);
                }
            }
            Self::Palette { bits, colors, width } => return unpack(&plane, *bits, colors, *width),
        }
        plane
    }
}

/// The sum of two pixels, channel by channel, modulo 256.
pub(super) fn add(a: u32, b: u32) -> u32 {
    let even = (a & 0x00ff_00ff).wrapping_add(b & 0x00ff_00ff) & 0x00ff_00ff;
    let odd = (a & 0xff00_ff00).wrapping_add(b & 0xff00_ff00) & 0xff00_ff00;
    odd | even
}

fn predict(plane: &mut Plane, bits: u32, modes: &Plane) {
    let width = plane.width;
    for y in 0..plane.height() {
        for x in 0..width {
            let (at, pixels) = (y * width + x, &mut plane.pixels);
            let prediction = match (x, y) {
                (0, 0) => BLACK,
                (_, 0) => pixels[at - 1],
                (0, _) => pixels[at - width],
                _ => {
                    let mode = modes.block(x, y, bits) >> 8 & 15;
                    // at the right edge, the top right pixel is the first one of this row
                    let (left, top, top_right) = (pixels[at - 1], pixels[at - width], pixels[at - width + 1]);
                    from_neighbours(mode, left, top, top_right, pixels[at - width - 1])
                }
            };
            pixels[at] = add(pixels[at], prediction);
        }
    }
}

fn from_neighbours(mode: u32, left: u32, top: u32, top_right: u32, top_left: u32) -> u32 {
    match mode {
        1 => left,
        2 => top,
        3 => top_right,
        4 => top_left,
        5 => average(average(left, top_right), top),
        6 => average(left, top_left),
        7 => average(left, top),
        8 => average(top_left, top),
        9 => average(top, top_right),
        10 => average(average(left, top_left), average(top, top_right)),
        11 => select(left, top, top_left),
        12 => channels(|shift| channel(left, shift) + channel(top, shift) - channel(top_left, shift)),
        13 => {
            let mean = average(left, top);
            channels(|shift| channel(mean, shift) + (channel(mean, shift) - channel(top_left, shift)) / 2)
        }
        _ => BLACK,
    }
}

fn channel(pixel: u32, shift: u32) -> i32 {
    (pixel >> shift & 0xff) as i32
}

/// A pixel of four channels, clamped.
fn channels(value: impl Fn(u32) -> i32) -> u32 {
    [0, 8, 16, 24].into_iter().fold(0, |pixel, shift| pixel | (value(shift).clamp(0, 255) as u32) << shift)
}

/// The mean of two pixels, channel by channel, rounded down.
fn average(a: u32, b: u32) -> u32 {
    (((a ^ b) & 0xfefe_fefe) >> 1) + (a & b)
}

/// Left or top, whichever is nearer to left + top - top left.
fn select(left: u32, top: u32, top_left: u32) -> u32 {
    let distance = |pixel: u32| -> u32 {
        [0, 8, 16, 24].into_iter().map(|shift| channel(pixel, shift).abs_diff(channel(top_left, shift))).sum()
    };
    if distance(top) < distance(left) { left } else { top }
}

/// Red and blue with the multiples of green and red added.
fn recolor(pixel: u32, multipliers: u32) -> u32 {
    let multiple = |shift: u32, color: u32| {
        let product = i32::from((multipliers >> shift) as u8 as i8) * i32::from(color as u8 as i8);
        (product >> 5) as u32
    };
    let green = pixel >> 8;
    let red = (pixel >> 16).wrapping_add(multiple(0, green)) & 0xff;
    let blue = pixel.wrapping_add(multiple(8, green)).wrapping_add(multiple(16, red)) & 0xff;
    pixel & 0xff00_ff00 | red << 16 | blue
}

/// Replaces indices by the colours of a palette; an index beyond the palette is transparent black.
fn unpack(plane: &Plane, bits: u32, colors: &[u32], width: usize) -> Plane {
    let depth = 8 >> bits;
    let mut pixels = Vec::with_capacity(width * plane.height());
    for row in plane.pixels.chunks_exact(plane.width) {
        pixels.extend((0..width).map(|x| {
            let green = row[x >> bits] >> 8 & 0xff;
            let place = green >> ((x & ((1 << bits) - 1)) as u32 * depth) & ((1 << depth) - 1);
            colors.get(place as usize).copied().unwrap_or(0)
        }));
    }
    Plane { width, pixels }
}
