//! Image preprocessing of either kind: the HD transform or naflex.

use crate::{Hd, Naflex, Picture, Pixels, Result};

/// Image preprocessing of a vision tower.
#[derive(Debug, Clone, PartialEq)]
pub enum Preparation {
    /// A grid of crops and a global view.
    Hd(Hd),
    /// The whole picture as patches.
    Naflex(Naflex),
}

impl Preparation {
    /// Resizes, pads, normalizes and cuts a picture.
    ///
    /// # Errors
    ///
    /// Those of [`Hd::layout`] or [`Naflex::layout`].
    pub fn pixels(&self, picture: &Picture) -> Result<Pixels> {
        match self {
            Self::Hd(hd) => hd.pixels(picture),
            Self::Naflex(naflex) => naflex.pixels(picture),
        }
    }

    /// The picture that is cut: resized and, by [`Hd`], padded.
    ///
    /// # Errors
    ///
    /// Those of [`Preparation::pixels`].
    pub fn seen(&self, picture: &Picture) -> Result<Picture> {
        match self {
            Self::Hd(hd) => hd.padded(picture),
            Self::Naflex(naflex) => naflex.resized(picture),
        }
    }

    /// The bytes of a PNG file: the picture that is cut, with the grid in red.
    ///
    /// # Errors
    ///
    /// Those of [`Preparation::pixels`].
    pub fn explain(&self, picture: &Picture) -> Result<Vec<u8>> {
        match self {
            Self::Hd(hd) => hd.explain(picture),
            Self::Naflex(naflex) => naflex.explain(picture),
        }
    }

    /// Name of the grid's cells: "crops" or "patches".
    pub fn unit(&self) -> &'static str {
        match self {
            Self::Hd(_) => "crops",
            Self::Naflex(_) => "patches",
        }
    }
}
