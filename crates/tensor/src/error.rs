//! Errors of the backends.

use std::fmt;

/// An error of a backend, with its subject, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A weight does not have the shape that its role requires.
    #[error("tensor {name}: shape {found:?}, expected {expected:?}; hint: the checkpoint may be damaged")]
    Shape {
        /// Name of the tensor as published.
        name: String,
        /// The required shape.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },

    /// The bytes of a weight do not fit its shape and type.
    #[error(
        "tensor {name}: {found} bytes, expected {expected} for shape {shape:?} of {dtype}; hint: the checkpoint may be damaged"
    )]
    Bytes {
        /// Name of the tensor as published.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Its type.
        dtype: crate::DType,
        /// Bytes by shape and type.
        expected: usize,
        /// Bytes of the weight.
        found: usize,
    },

    /// A row of a weight is no whole number of its type's blocks.
    #[error(
        "tensor {name}: rows of {cols} elements, expected a multiple of {block} (block size of {dtype}); hint: take another type"
    )]
    Blocks {
        /// Name of the tensor as published.
        name: String,
        /// Elements of a row.
        cols: usize,
        /// Its type.
        dtype: crate::DType,
        /// Elements of a block.
        block: usize,
    },

    /// Matrices that cannot be stacked: their types or widths differ.
    #[error("tensor {name}: a part is {found}, expected {expected}; hint: take a file whose parts are of one type")]
    Stacked {
        /// Name of the whole.
        name: String,
        /// Type and width of the first part.
        expected: String,
        /// Type and width of another part.
        found: String,
    },

    /// Arguments of an operation do not fit each other.
    #[error(
        "{op}: {what} is {found}, expected {expected}; hint: batches, buffers and caches of one model do not fit another"
    )]
    Mismatch {
        /// The operation.
        op: &'static str,
        /// The argument.
        what: &'static str,
        /// The valid values.
        expected: Expected,
        /// The given value.
        found: usize,
    },

    /// The rows of a matrix are ordered for another operation.
    #[error(
        "{op}: the matrix is laid out as {found}, expected {expected}; hint: a matrix has the role of its only use"
    )]
    Role {
        /// The operation.
        op: &'static str,
        /// The layouts that the operation takes.
        expected: &'static str,
        /// The layout of the matrix.
        found: &'static str,
    },

    /// A model needs more than this device's kernels support.
    #[error("{device}: {what} is {found}; the kernels take at most {limit}; hint: another device may take more")]
    Unsupported {
        /// The device.
        device: String,
        /// The property.
        what: &'static str,
        /// The value of the model.
        found: usize,
        /// The limit of the device.
        limit: usize,
    },

    /// A backend does not have the requested feature.
    #[error("{device} has no {what}; hint: take another backend")]
    Absent {
        /// The device.
        device: String,
        /// The missing feature.
        what: &'static str,
    },

    /// Memory could not be allocated.
    #[error(
        "out of memory on {device}: {what} needs {bytes} bytes{detail}; hint: a shorter context, a smaller type of cache or of weights, or another device"
    )]
    OutOfMemory {
        /// The device.
        device: String,
        /// Use of the memory.
        what: String,
        /// Requested bytes.
        bytes: u64,
        /// Message or limit of the device; may be empty.
        detail: String,
    },

    /// No adapter matches the selection.
    #[error("no GPU adapter {wanted}; hint: {hint}")]
    NoAdapter {
        /// The selection.
        wanted: String,
        /// What to do.
        hint: String,
    },

    /// The device cannot run the requested tier of kernels.
    #[error("{device} cannot run the {tier} kernels: it lacks {missing}; hint: the best that it runs are {has}")]
    Tier {
        /// The device.
        device: String,
        /// The tier.
        tier: &'static str,
        /// What the device lacks.
        missing: &'static str,
        /// The best tier that it has.
        has: &'static str,
    },

    /// The device or its driver failed. The device can still be used.
    #[error("{device} failed: {message}; hint: update its driver, or take another device")]
    Device {
        /// The device.
        device: String,
        /// Message of the driver.
        message: String,
    },

    /// The device is lost: nothing more can be computed on it.
    #[error(
        "{device} is lost: {message}; hint: open the device again; where it happens often, update its driver or take another device"
    )]
    Lost {
        /// The device.
        device: String,
        /// Message of the driver.
        message: String,
    },

    /// A submission did not complete in time, and the device was given up: nothing more can be computed on it.
    #[error(
        "{device} did not finish its work within {seconds} s and is given up; hint: open the device again; where it happens often, allow more time, update its driver or take another device"
    )]
    Timeout {
        /// The device.
        device: String,
        /// Time limit in seconds.
        seconds: u64,
    },

    /// The threads of the CPU backend could not be started.
    #[error("cannot start {threads} threads: {source}; hint: take fewer threads")]
    Threads {
        /// Requested threads.
        threads: usize,
        /// Error of the system.
        source: std::io::Error,
    },
}

/// The valid values of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expected {
    /// This value.
    Exactly(usize),
    /// This value or a larger one.
    AtLeast(usize),
    /// This value or a smaller one.
    AtMost(usize),
    /// A smaller value.
    Below(usize),
    /// A multiple of this value.
    MultipleOf(usize),
}

impl Expected {
    /// Returns [`Error::Mismatch`] where `found` is not a valid value.
    pub(crate) fn check(self, op: &'static str, what: &'static str, found: usize) -> Result<()> {
        let holds = match self {
            Self::Exactly(value) => found == value,
            Self::AtLeast(least) => found >= least,
            Self::AtMost(most) => found <= most,
            Self::Below(bound) => found < bound,
            Self::MultipleOf(unit) => found.is_multiple_of(unit),
        };
        if holds { Ok(()) } else { Err(Error::Mismatch { op, what, expected: self, found }) }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(value) => write!(f, "{value}"),
            Self::AtLeast(least) => write!(f, "at least {least}"),
            Self::AtMost(most) => write!(f, "at most {most}"),
            Self::Below(bound) => write!(f, "less than {bound}"),
            Self::MultipleOf(unit) => write!(f, "a multiple of {unit}"),
        }
    }
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
