//! The ways in which pictures are prepared, behind one set of calls.

use crate::{Hd, Naflex, Picture, Pixels, Result};

/// How pictures are prepared for a tower.
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

    /// The picture as it is cut: resized, and padded where that is done.
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

    /// The bytes of a PNG file: the picture as it is cut, with the grid in red.
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

    /// What the grid is of: "crops" or "patches".
    pub fn unit(&self) -> &'static str {
        match self {
            Self::Hd(_) => "crops",
            Self::Naflex(_) => "patches",
        }
    }
}
