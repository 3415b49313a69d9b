//! Lossless WebP (VP8L, RFC 9649, section 3).
//!
//! This decoder checks prefix codes exactly and bounds their memory. image-webp 0.2.4 panics on prefix codes with too many
//! symbols, takes 1.3 GB for the codes of a file of 4.7 MB, and differs from libwebp on some damaged files.

mod bits;
mod prefix;
mod transform;

use bits::Bits;
use prefix::Group;
use transform::Transform;

use crate::{Error, Format, Result};

/// Offsets (left, up) of distance codes 1 to 120.
#[rustfmt::skip]
const NEAR: [(i8, i8); 120] = [
    (0, 1), (1, 0), (1, 1), (-1, 1), (0, 2), (2, 0), (1, 2), (-1, 2),
    (2, 1), (-2, 1), (2, 2), (-2, 2), (0, 3), (3, 0), (1, 3), (-1, 3),
    (3, 1), (-3, 1), (2, 3), (-2, 3), (3, 2), (-3, 2), (0, 4), (4, 0),
    (1, 4), (-1, 4), (4, 1), (-4, 1), (3, 3), (-3, 3), (2, 4), (-2, 4),
    (4, 2), (-4, 2), (0, 5), (3, 4), (-3, 4), (4, 3), (-4, 3), (5, 0),
    (1, 5), (-1, 5), (5, 1), (-5, 1), (2, 5), (-2, 5), (5, 2), (-5, 2),
    (4, 4), (-4, 4), (3, 5), (-3, 5), (5, 3), (-5, 3), (0, 6), (6, 0),
    (1, 6), (-1, 6), (6, 1), (-6, 1), (2, 6), (-2, 6), (6, 2), (-6, 2),
    (4, 5), (-4, 5), (5, 4), (-5, 4), (3, 6), (-3, 6), (6, 3), (-6, 3),
    (0, 7), (7, 0), (1, 7), (-1, 7), (5, 5), (-5, 5), (7, 1), (-7, 1),
    (4, 6), (-4, 6), (6, 4), (-6, 4), (2, 7), (-2, 7), (7, 2), (-7, 2),
    (3, 7), (-3, 7), (7, 3), (-7, 3), (5, 6), (-5, 6), (6, 5), (-6, 5),
    (8, 0), (4, 7), (-4, 7), (7, 4), (-7, 4), (8, 1), (8, 2), (6, 6),
    (-6, 6), (8, 3), (5, 7), (-5, 7), (7, 5), (-7, 5), (8, 4), (6, 7),
    (-6, 7), (7, 6), (-7, 6), (8, 5), (7, 7), (-7, 7), (8, 6), (8, 7),
];

/// Pixels of alpha, red, green and blue, eight bits each from the highest.
pub(crate) struct Plane {
    width: usize,
    pixels: Vec<u32>,
}

impl Plane {
    fn height(&self) -> usize {
        self.pixels.len().checked_div(self.width).unwrap_or(0)
    }

    /// The pixel for the block of 2^`bits` · 2^`bits` pixels that contains x, y.
    fn block(&self, x: usize, y: usize, bits: u32) -> u32 {
        self.pixels[(y >> bits) * self.width + (x >> bits)]
    }
}

fn damaged(expected: &'static str, found: String) -> Error {
    Error::Damaged { format: Format::WebP, expected, found }
}

/// Decodes the data of a VP8L chunk, which has `width` · `height` pixels, to RGB; alpha is dropped.
pub(crate) fn decode(data: &[u8], width: usize, height: usize) -> Result<Vec<u8>> {
    let mut bits = Bits::new(data);
    let signature = bits.read(8)?;
    // width and height, which the container has read, and the flag of alpha
    bits.read(14)?;
    bits.read(15)?;
    let version = bits.read(3)?;
    if (signature, version) != (0x2f, 0) {
        return Err(damaged("the signature 0x2f and version 0", format!("{signature:#04x} and {version}")));
    }
    let (transforms, packed_width) = read_transforms(&mut bits, width, height)?;
    let plane = read_plane(&mut bits, packed_width, height, true)?;
    let plane = transforms.iter().rev().fold(plane, |plane, transform| transform.undo(plane));
    let mut rgb = crate::picture::zeroed(plane.pixels.len() * 3)?;
    for (to, pixel) in rgb.as_chunks_mut::<3>().0.iter_mut().zip(&plane.pixels) {
        let [_, red, green, blue] = pixel.to_be_bytes();
        *to = [red, green, blue];
    }
    Ok(rgb)
}

/// Reads the transforms in the order of the file. Returns them and the width of the coded picture.
fn read_transforms(bits: &mut Bits<'_>, width: usize, height: usize) -> Result<(Vec<Transform>, usize)> {
    let (mut transforms, mut seen, mut packed_width) = (Vec::new(), [false; 4], width);
    while bits.flag()? {
        let kind = bits.read(2)?;
        if std::mem::replace(&mut seen[kind as usize], true) {
            return Err(damaged("a transform at most once", format!("the transform {kind} again")));
        }
        transforms.push(match kind {
            0 | 1 => {
                let block = bits.read(3)? + 2;
                let (across, down) = (packed_width.div_ceil(1 << block), height.div_ceil(1 << block));
                let plane = read_plane(bits, across, down, false)?;
                match kind {
                    0 => Transform::Predictor { bits: block, modes: plane },
                    _ => Transform::Color { bits: block, multipliers: plane },
                }
            }
            2 => Transform::SubtractGreen,
            _ => {
                let count = bits.read(8)? as usize + 1;
                let mut colors = read_plane(bits, count, 1, false)?.pixels;
                for at in 1..colors.len() {
                    colors[at] = transform::add(colors[at], colors[at - 1]);
                }
                let packing = match count {
                    ..=2 => 3,
                    3..=4 => 2,
                    5..=16 => 1,
                    _ => 0,
                };
                let unpacked = packed_width;
                packed_width = unpacked.div_ceil(1 << packing);
                Transform::Palette { bits: packing, colors, width: unpacked }
            }
        });
    }
    Ok((transforms, packed_width))
}

/// Groups of prefix codes, and the group of each block.
struct Groups {
    groups: Vec<Group>,
    /// Side of a block, as a power of 2, and the group of each; none where there is one group.
    blocks: Option<(u32, Plane)>,
}

impl Groups {
    fn read(bits: &mut Bits<'_>, width: usize, height: usize, is_main: bool, cache: usize) -> Result<Self> {
        let (mut blocks, mut count) = (None, 1);
        if is_main && bits.flag()? {
            let block = bits.read(3)? + 2;
            let mut plane = read_plane(bits, width.div_ceil(1 << block), height.div_ceil(1 << block), false)?;
            for pixel in &mut plane.pixels {
                *pixel = *pixel >> 8 & 0xffff;
                count = count.max(*pixel as usize + 1);
            }
            blocks = Some((block, plane));
        }
        Ok(Self { groups: prefix::read_groups(bits, count, cache)?, blocks })
    }

    /// The group at a pixel.
    fn at(&self, x: usize, y: usize) -> &Group {
        let index = self.blocks.as_ref().map_or(0, |(bits, plane)| plane.block(x, y, *bits));
        &self.groups[index as usize]
    }

    /// Mask of a column's position in its block. The group may change where the masked column is 0.
    fn mask(&self) -> usize {
        self.blocks.as_ref().map_or(usize::MAX, |(bits, _)| (1 << bits) - 1)
    }
}

/// Colour cache: the last pixel of every hash (RFC 9649, 3.6.3).
struct Cache {
    bits: u32,
    pixels: Vec<u32>,
}

impl Cache {
    fn read(bits: &mut Bits<'_>) -> Result<Option<Self>> {
        if !bits.flag()? {
            return Ok(None);
        }
        match bits.read(4)? {
            bits @ 1..=11 => Ok(Some(Self { bits, pixels: vec![0; 1 << bits] })),
            other => Err(damaged("a colour cache of 1 to 11 bits", other.to_string())),
        }
    }

    fn insert(&mut self, pixel: u32) {
        let place = 0x1e35_a7bd_u32.wrapping_mul(pixel) >> (32 - self.bits);
        self.pixels[place as usize] = pixel;
    }
}

/// Reads a picture: the main one, which may have many groups of codes, or one of a transform.
fn read_plane(bits: &mut Bits<'_>, width: usize, height: usize, is_main: bool) -> Result<Plane> {
    let mut cache = Cache::read(bits)?;
    let groups = Groups::read(bits, width, height, is_main, cache.as_ref().map_or(0, |cache| cache.pixels.len()))?;
    let length = width * height;
    let mut pixels: Vec<u32> = Vec::new();
    pixels.try_reserve_exact(length).map_err(|_| Error::Memory { bytes: length.saturating_mul(4) })?;
    let (mut x, mut y) = (0, 0);
    let mut group = groups.at(0, 0);
    let mask = groups.mask();
    while pixels.len() < length {
        if x & mask == 0 {
            group = groups.at(x, y);
        }
        let [green, red, blue, alpha, distance] = group;
        let count = match usize::from(green.symbol(bits)?) {
            literal @ 0..=255 => {
                let (red, blue, alpha) = (red.symbol(bits)?, blue.symbol(bits)?, alpha.symbol(bits)?);
                let pixel = u32::from(alpha) << 24 | u32::from(red) << 16 | (literal as u32) << 8 | u32::from(blue);
                pixels.push(pixel);
                1
            }
            prefix @ 256..=279 => {
                let count = prefixed(bits, prefix - 256)?;
                let code = usize::from(distance.symbol(bits)?);
                let back = distance_of(prefixed(bits, code)?, width);
                copy(&mut pixels, back, count, length)?;
                count
            }
            place => {
                let cached = cache.as_ref().and_then(|cache| cache.pixels.get(place - 280));
                pixels.push(*cached.ok_or_else(|| damaged("a pixel of the cache", place.to_string()))?);
                1
            }
        };
        if let Some(cache) = &mut cache {
            let new = pixels.len() - count;
            pixels[new..].iter().for_each(|pixel| cache.insert(*pixel));
        }
        x += count;
        if x >= width {
            (x, y) = (x % width, y + x / width);
        }
        // a copy may end within a block
        if count > 1 && pixels.len() < length {
            group = groups.at(x, y);
        }
    }
    Ok(Plane { width, pixels })
}

/// A length or distance from its prefix and the bits after it (RFC 9649, 3.6.2.2).
fn prefixed(bits: &mut Bits<'_>, prefix: usize) -> Result<usize> {
    if prefix < 4 {
        return Ok(prefix + 1);
    }
    let extra = (prefix - 2) >> 1;
    let offset = (2 + (prefix & 1)) << extra;
    Ok(offset + bits.read(extra as u32)? as usize + 1)
}

/// Distance in pixels of a distance code.
fn distance_of(code: usize, width: usize) -> usize {
    match NEAR.get(code - 1) {
        Some(&(left, up)) => (isize::from(up) * width as isize + isize::from(left)).max(1) as usize,
        None => code - NEAR.len(),
    }
}

/// Appends `count` pixels from `back` pixels before the end; source and destination may overlap.
fn copy(pixels: &mut Vec<u32>, back: usize, count: usize, length: usize) -> Result<()> {
    let first = pixels.len().checked_sub(back);
    let Some(first) = first.filter(|_| count <= length - pixels.len()) else {
        return Err(damaged("a copy of pixels within the picture", format!("{count} pixels from {back} before")));
    };
    if back >= count {
        pixels.extend_from_within(first..first + count);
    } else {
        for at in first..first + count {
            pixels.push(pixels[at]);
        }
    }
    Ok(())
}
