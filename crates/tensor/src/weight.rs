//! Weights as a checkpoint holds them.

use crate::{DType, Error, Result};
use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Read-only memory that weights are parts of, such as a memory-mapped file.
pub trait Memory: Send + Sync {
    /// All of it; the same bytes at the same place every time.
    fn bytes(&self) -> &[u8];

    /// Is told that nobody needs `range` for now, so that a mapped file's pages may leave the process. The bytes stay
    /// readable.
    fn release(&self, _range: Range<usize>) {}
}

impl Memory for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

/// A part of shared read-only memory.
#[derive(Clone)]
pub struct Bytes {
    owner: Arc<dyn Memory>,
    range: Range<usize>,
}

impl Bytes {
    /// The bytes `range` of `owner`; `None` where the range lies outside.
    pub fn new(owner: Arc<dyn Memory>, range: Range<usize>) -> Option<Self> {
        owner.bytes().get(range.clone())?;
        Some(Self { owner, range })
    }

    /// Tells the owner that nobody needs these bytes for now.
    pub fn release(&self) {
        self.owner.release(self.range.clone());
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self { owner: Arc::new(bytes), range }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.owner.bytes()[self.range.clone()]
    }
}

/// A matrix `[rows, cols]`, row-major, in the file's own type: row r holds the weights of output r.
#[derive(Clone)]
pub struct Weight {
    /// Name as published, for messages.
    pub name: String,
    /// Type of the elements.
    pub dtype: DType,
    /// Outputs of the projection, or entries of an embedding.
    pub rows: usize,
    /// Inputs of the projection, or the embedding's width.
    pub cols: usize,
    bytes: Bytes,
}

impl Weight {
    /// A matrix over `bytes`, which must hold exactly `rows` rows of `cols` elements of `dtype`; each row is a whole number
    /// of blocks.
    pub fn new(name: impl Into<String>, dtype: DType, rows: usize, cols: usize, bytes: Bytes) -> Result<Self> {
        let name = name.into();
        let block = dtype.block().0;
        if !cols.is_multiple_of(block) {
            return Err(Error::Blocks { name, cols, dtype, block });
        }
        let expected = dtype.bytes(cols).and_then(|row| row.checked_mul(rows)).unwrap_or(usize::MAX);
        if bytes.len() != expected {
            return Err(Error::Bytes { name, shape: vec![rows, cols], dtype, expected, found: bytes.len() });
        }
        Ok(Self { name, dtype, rows, cols, bytes })
    }

    /// All bytes, little-endian; nothing is promised about their alignment.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Tells the owner of the bytes that nobody needs them for now.
    pub fn release(&self) {
        self.bytes.release();
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.bytes.len() / self.rows.max(1)
    }

    /// The bytes of row `row`.
    pub fn row(&self, row: usize) -> &[u8] {
        let len = self.row_bytes();
        &self.bytes[row * len..][..len]
    }

    /// The whole matrix as f32.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.rows * self.cols];
        self.dtype.widen(&self.bytes, &mut out);
        out
    }
}

impl fmt::Debug for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}[{}, {}]", self.name, self.dtype, self.rows, self.cols)
    }
}
