//! Image preprocessing for the vision models of the family: from the bytes of a file to the input of a vision tower.
//!
//! [`decode`] reads JPEG, PNG, WebP and GIF. [`Preparation`] is the preprocessing of the published processors. Phi-3-vision has
//! [`Hd`]: the HD transform resizes a picture (Pillow's bilinear, bit for bit), pads it with white to a grid of crops, normalizes
//! it and adds a global view. Phi-4-reasoning-vision has [`Naflex`]: the picture is resized to whole patches near its own size,
//! normalized and cut into patches.
//!
//! ```
//! use phi3_image::{Hd, Orientation, Picture, decode};
//!
//! let gradient = (0..48 * 32 * 3).map(|at| (at % 251) as u8).collect();
//! let hd = Hd { max_crops: 4, ..Hd::default() }; // as Phi-3.5-vision
//! let picture = Picture::new(48, 32, gradient)?;
//! let pixels = hd.pixels(&picture)?;
//! assert_eq!((pixels.grid, pixels.size, pixels.tokens), ((2, 2), [672, 672], 757));
//! assert_eq!(pixels.values.len(), (1 + 4) * 3 * 336 * 336);
//!
//! let png = hd.explain(&picture)?; // the padded picture and its grid, for people
//! assert_eq!(decode(&png, Orientation::Apply)?.width(), 672);
//! # Ok::<(), phi3_image::Error>(())
//! ```
//!
//! A file may be hostile: sizes are read and bounded before memory is allocated, and every fault is an [`Error`] with what was
//! expected and what was found.

#![forbid(unsafe_code)]

mod bytes;
mod decode;
mod error;
mod explain;
mod hd;
mod header;
mod naflex;
mod picture;
mod pixels;
mod preparation;
mod resize;
mod vp8l;
mod webp;

pub use decode::{Format, Orientation, decode};
pub use error::{Error, Result};
pub use hd::{Hd, Layout, Size};
pub use header::MAX_MEMORY;
pub use naflex::{Naflex, NaflexLayout};
pub use picture::{MAX_PIXELS, MAX_SIDE, Picture};
pub use pixels::{Pixels, global_view};
pub use preparation::Preparation;
pub use resize::{Filter, resize};
