//! Every error of the crate.

use crate::Format;

/// An error of decoding or preprocessing: what was expected, what was found and a hint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes are not a picture of a supported format.
    #[error("expected a picture (JPEG, PNG, WebP or GIF), found {found}; hint: {hint}")]
    Format {
        /// The kind of file by its first bytes.
        found: String,
        /// What to do.
        hint: &'static str,
    },

    /// The file ends before the picture does.
    #[error(
        "{format}: expected {expected}, found the end of the file at byte {found}; hint: the file was cut off, copy or download it again"
    )]
    Truncated {
        /// The file's format.
        format: Format,
        /// The part that is missing.
        expected: &'static str,
        /// Length of the file in bytes.
        found: usize,
    },

    /// The file breaks the rules of its format.
    #[error(
        "{format}: expected {expected}, found {found}; hint: the file is damaged, save it again with a picture editor"
    )]
    Damaged {
        /// The file's format.
        format: Format,
        /// The valid content.
        expected: &'static str,
        /// The content of the file.
        found: String,
    },

    /// The file uses a feature of its format that is not supported.
    #[error("{format}: expected a common kind of file, found {found}; hint: save it as an 8-bit PNG or JPEG")]
    Unsupported {
        /// The file's format.
        format: Format,
        /// The unsupported feature.
        found: String,
    },

    /// A width or a height is 0.
    #[error("expected at least 1 x 1 pixels, found {width} x {height}; hint: the picture is empty, use another one")]
    NoPixels {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },

    /// The picture would take too much memory.
    #[error("expected {expected}, found {width} x {height} pixels; hint: scale the picture down first")]
    TooLarge {
        /// The limit.
        expected: String,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },

    /// The memory for the picture cannot be allocated.
    #[error("expected {bytes} bytes of free memory, found less; hint: scale the picture down first")]
    Memory {
        /// Requested bytes.
        bytes: usize,
    },

    /// The shorter side of the picture would be scaled to 0 pixels.
    #[error(
        "{width} x {height} pixels: expected sides in a ratio of at most {ratio} to 1 with {max_crops} crops, found more, so that the shorter side is scaled to 0 pixels; hint: cut the picture, or pad its shorter side"
    )]
    TooThin {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Crops that are allowed.
        max_crops: usize,
        /// Longest side of the crops' grid in pixels.
        ratio: usize,
    },

    /// A value of the preprocessor's configuration cannot be used.
    #[error(
        "{field}: expected {expected}, found {found}; hint: compare preprocessor_config.json with the published one"
    )]
    Setting {
        /// Name of the value.
        field: &'static str,
        /// The valid values.
        expected: &'static str,
        /// The configured value.
        found: String,
    },

    /// The number of values does not match the size.
    #[error(
        "{what}: expected {expected} values, found {found}; hint: the size and the values are of different pictures"
    )]
    Length {
        /// Name of the values.
        what: &'static str,
        /// Number of values of the size.
        expected: usize,
        /// Number of values given.
        found: usize,
    },
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
