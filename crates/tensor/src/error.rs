//! What can go wrong on a device.

use std::fmt;

/// An error of a backend: always which thing, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A weight does not have the shape that an operation wants.
    #[error("tensor {name}: shape {found:?}, expected {expected:?}; hint: the checkpoint may be damaged")]
    Shape {
        /// Name of the tensor as published.
        name: String,
        /// The shape that was wanted.
        expected: Vec<usize>,
        /// The shape that the file has.
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
        /// Bytes that shape and type ask for.
        expected: usize,
        /// Bytes that there are.
        found: usize,
    },

    /// A row of a weight is no whole number of its type's blocks.
    #[error(
        "tensor {name}: rows of {cols} elements, but {dtype} wants a multiple of {block} (its block size); hint: take another type"
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

    /// Matrices that do not fit below each other.
    #[error("tensor {name}: a part is {found}, expected {expected}; hint: take a file whose parts are of one type")]
    Stacked {
        /// Name of the whole.
        name: String,
        /// Type and width of the first part.
        expected: String,
        /// Those of another part.
        found: String,
    },

    /// An operation was called with arguments that do not fit each other.
    #[error(
        "{op}: {what} is {found}, expected {expected}; hint: batches, buffers and caches of one model do not fit another"
    )]
    Mismatch {
        /// The operation.
        op: &'static str,
        /// The argument.
        what: &'static str,
        /// The values that would be right.
        expected: Expected,
        /// The value that was given.
        found: usize,
    },

    /// An operation was given a matrix whose rows are laid out for another one.
    #[error(
        "{op}: the matrix is laid out as {found}, expected {expected}; hint: a matrix has the role of its only use"
    )]
    Role {
        /// The operation.
        op: &'static str,
        /// The layouts that it takes.
        expected: &'static str,
        /// The layout of the matrix.
        found: &'static str,
    },

    /// A model wants something that this device's kernels do not do.
    #[error("{device}: {what} is {found}; the kernels take at most {limit}; hint: another device may take more")]
    Unsupported {
        /// The device.
        device: String,
        /// The property.
        what: &'static str,
        /// What the model has.
        found: usize,
        /// What the device can.
        limit: usize,
    },

    /// A backend was asked for something that it does not do.
    #[error("{device} has no {what}; hint: take another backend")]
    Absent {
        /// The device.
        device: String,
        /// What it has not.
        what: &'static str,
    },

    /// Memory could not be had.
    #[error(
        "out of memory on {device}: {what} needs {bytes} bytes{detail}; hint: a shorter context, a smaller type of cache or of weights, or another device"
    )]
    OutOfMemory {
        /// The device.
        device: String,
        /// What the memory was for.
        what: String,
        /// How much was asked for.
        bytes: u64,
        /// What the device said, or its limit; may be empty.
        detail: String,
    },

    /// No device answers to what was asked for.
    #[error("no GPU adapter {wanted}; hint: {hint}")]
    NoAdapter {
        /// What was asked for.
        wanted: String,
        /// What to do about it.
        hint: String,
    },

    /// A tier of kernels was asked for that the device cannot run.
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

    /// The device or its driver failed, and can be used further.
    #[error("{device} failed: {message}; hint: update its driver, or take another device")]
    Device {
        /// The device.
        device: String,
        /// What the driver said.
        message: String,
    },

    /// The device is lost: nothing more can be computed on it.
    #[error(
        "{device} is lost: {message}; hint: open the device again; where it happens often, update its driver or take another device"
    )]
    Lost {
        /// The device.
        device: String,
        /// What the driver said.
        message: String,
    },

    /// A submission did not end, and the device was given up: nothing more can be computed on it.
    #[error(
        "{device} did not finish its work within {seconds} s and is given up; hint: open the device again; where it happens often, allow more time, update its driver or take another device"
    )]
    Timeout {
        /// The device.
        device: String,
        /// How long was waited.
        seconds: u64,
    },

    /// The threads of the CPU backend could not be started.
    #[error("cannot start {threads} threads: {source}; hint: ask for fewer")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What an argument should be.
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
    /// An [`Error::Mismatch`] where `found` is something else.
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
