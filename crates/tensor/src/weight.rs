//! Weights in the layout of a checkpoint.

use crate::{DType, Error, Heads, Result, checks};
use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Read-only memory that weights are parts of, such as a memory-mapped file.
pub trait Memory: Send + Sync {
    /// All bytes; every call returns the same slice.
    fn bytes(&self) -> &[u8];

    /// Whether the bytes are those of a mapped file, and may stay there.
    fn is_mapped(&self) -> bool {
        false
    }

    /// Releases `range`, which is not needed for now: a mapped file's pages may leave the process. The bytes stay
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
    /// The bytes `range` of `owner`; `None` where the range is not within its bytes.
    pub fn new(owner: Arc<dyn Memory>, range: Range<usize>) -> Option<Self> {
        owner.bytes().get(range.clone())?;
        Some(Self { owner, range })
    }

    /// A part of these bytes; `range` is within them.
    fn part(&self, range: Range<usize>) -> Self {
        let range = self.range.start + range.start..self.range.start + range.end;
        debug_assert!(range.end <= self.range.end);
        Self { owner: self.owner.clone(), range }
    }

    /// Releases these bytes, which are not needed for now; see [`Memory::release`].
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

/// Order of the rows of a matrix in its file.
///
/// The order of operations is: gates before ups; queries, keys, values; the two halves of a rotated head one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RowOrder {
    /// In the order of operations.
    #[default]
    AsStored,
    /// Gate 0, up 0, gate 1, up 1, ... (Phi-3-small's `up_proj`).
    GateUpAlternating,
    /// For every key head its query heads, its key, its value (Phi-3-small's `query_key_value`).
    QkvByGroup(Heads),
    /// The two dimensions of a rotated pair of a head side by side, in the first rows (llama.cpp's `attn_q` and `attn_k` of
    /// architecture llama).
    RotatedPairs {
        /// Width of a head.
        head_dim: usize,
        /// Number of leading rows in this order; the others are in the order of operations.
        rows: usize,
    },
}

impl RowOrder {
    /// The row in the file of row `row` of `rows` in the order of operations.
    pub fn stored(self, row: usize, rows: usize) -> usize {
        match self {
            RowOrder::AsStored => row,
            RowOrder::GateUpAlternating => {
                let half = rows / 2;
                if row < half { 2 * row } else { 2 * (row - half) + 1 }
            }
            RowOrder::QkvByGroup(heads) => {
                let (q_dim, kv_dim, width) = (heads.q_dim(), heads.kv_dim(), heads.head_dim);
                let group = heads.heads / heads.kv_heads.max(1);
                let at = |kv: usize, place: usize, i: usize| (kv * (group + 2) + place) * width + i;
                if row < q_dim {
                    let head = row / width;
                    return at(head / group.max(1), head % group.max(1), row % width);
                }
                let row = row - q_dim;
                let (place, row) = if row < kv_dim { (group, row) } else { (group + 1, row - kv_dim) };
                at(row / width, place, row % width)
            }
            RowOrder::RotatedPairs { head_dim, rows } => {
                let (i, half) = (row % head_dim.max(1), head_dim / 2);
                match row {
                    row if row >= rows => row,
                    row if i < half => row - i + 2 * i,
                    row => row - i + 2 * (i - half) + 1,
                }
            }
        }
    }
}

/// Consecutive rows of a matrix.
#[derive(Clone)]
struct Piece {
    /// Rows in the file's order.
    rows: Range<usize>,
    bytes: Bytes,
}

/// A matrix `[rows, cols]` in the file's own type, from one tensor or several: row r holds the weights of output r. With it
/// the bias that is added to the outputs, where there is one.
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
    row_bytes: usize,
    pieces: Vec<Piece>,
    order: RowOrder,
    bias: Option<Vec<f32>>,
}

impl Weight {
    /// A matrix over `bytes`, which must hold exactly `rows` rows of `cols` elements of `dtype`; each row is a whole number
    /// of blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Blocks`], [`Error::Bytes`].
    pub fn new(name: impl Into<String>, dtype: DType, rows: usize, cols: usize, bytes: Bytes) -> Result<Self> {
        let name = name.into();
        let block = dtype.block().0;
        if !cols.is_multiple_of(block) {
            return Err(Error::Blocks { name, cols, dtype, block });
        }
        let row_bytes = dtype.bytes(cols).unwrap_or(usize::MAX);
        let expected = row_bytes.saturating_mul(rows);
        if bytes.len() != expected {
            return Err(Error::Bytes { name, shape: vec![rows, cols], dtype, expected, found: bytes.len() });
        }
        let pieces = vec![Piece { rows: 0..rows, bytes }];
        Ok(Self { name, dtype, rows, cols, row_bytes, pieces, order: RowOrder::AsStored, bias: None })
    }

    /// The rows of several matrices, one below the other, without their biases.
    ///
    /// # Errors
    ///
    /// [`Error::Stacked`] where `parts` is empty, or two parts differ in their type or width.
    pub fn stacked(name: impl Into<String>, parts: &[Weight]) -> Result<Self> {
        let name = name.into();
        let Some(first) = parts.first() else {
            return Err(Error::Stacked { name, expected: "a part".into(), found: "none".into() });
        };
        let kind = |part: &Weight| format!("{} of {} elements a row", part.dtype, part.cols);
        let (mut rows, mut pieces) = (0usize, Vec::new());
        for part in parts {
            if (part.dtype, part.cols, part.order) != (first.dtype, first.cols, RowOrder::AsStored) {
                return Err(Error::Stacked { name, expected: kind(first), found: kind(part) });
            }
            for piece in &part.pieces {
                let end = rows.saturating_add(piece.rows.len());
                pieces.push(Piece { rows: rows..end, bytes: piece.bytes.clone() });
                rows = end;
            }
        }
        let (dtype, cols, row_bytes) = (first.dtype, first.cols, first.row_bytes);
        Ok(Self { name, dtype, rows, cols, row_bytes, pieces, order: RowOrder::AsStored, bias: None })
    }

    /// Rows `rows` of the matrix, and of its bias.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the matrix does not have these rows, or not in the order of operations.
    pub fn slice(&self, rows: Range<usize>) -> Result<Self> {
        if rows.start > rows.end || rows.end > self.rows || self.order != RowOrder::AsStored {
            let (expected, found) = (vec![rows.end, self.cols], vec![self.rows, self.cols]);
            return Err(Error::Shape { name: self.name.clone(), expected, found });
        }
        let mut pieces = Vec::new();
        for piece in &self.pieces {
            let (start, end) = (piece.rows.start.max(rows.start), piece.rows.end.min(rows.end));
            if start < end {
                let at = |row: usize| (row - piece.rows.start) * self.row_bytes;
                pieces.push(Piece {
                    rows: start - rows.start..end - rows.start,
                    bytes: piece.bytes.part(at(start)..at(end)),
                });
            }
        }
        let bias = self.bias.as_ref().map(|bias| bias[rows.clone()].to_vec());
        Ok(Self { rows: rows.len(), pieces, bias, ..self.clone() })
    }

    /// The rows of `ranges`, one after another and in the order of operations, without a bias. They are copied unless one
    /// range is all rows.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the matrix does not have these rows.
    pub fn only(&self, ranges: &[Range<usize>]) -> Result<Self> {
        if let [all] = ranges
            && *all == (0..self.rows)
        {
            return Ok(Self { bias: None, ..self.clone() });
        }
        let end = ranges.iter().map(|range| range.end).max().unwrap_or(0);
        if end > self.rows {
            let (expected, found) = (vec![end, self.cols], vec![self.rows, self.cols]);
            return Err(Error::Shape { name: self.name.clone(), expected, found });
        }
        let rows = || ranges.iter().flat_map(Clone::clone);
        let bytes: Vec<u8> = rows().flat_map(|row| self.row(row).iter().copied()).collect();
        Self::new(self.name.clone(), self.dtype, rows().count(), self.cols, Bytes::from(bytes))
    }

    /// The same matrix with another order of its rows in the file.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the number of rows does not fit the order.
    pub fn ordered(mut self, order: RowOrder) -> Result<Self> {
        let rows = match order {
            RowOrder::AsStored => self.rows,
            RowOrder::GateUpAlternating => self.rows.next_multiple_of(2),
            RowOrder::QkvByGroup(heads) => {
                checks::heads("matrix", heads)?;
                heads.qkv_dim()
            }
            RowOrder::RotatedPairs { head_dim, rows } => {
                let heads =
                    if head_dim >= 2 && head_dim % 2 == 0 { rows.next_multiple_of(head_dim) } else { usize::MAX };
                if heads == rows && rows <= self.rows { self.rows } else { heads }
            }
        };
        if rows != self.rows {
            let (expected, found) = (vec![rows, self.cols], vec![self.rows, self.cols]);
            return Err(Error::Shape { name: self.name, expected, found });
        }
        self.order = order;
        Ok(self)
    }

    /// The same matrix with a bias: a number for each row, in the order of operations.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where `bias` does not have a number for each row.
    pub fn with_bias(mut self, bias: Vec<f32>) -> Result<Self> {
        if bias.len() != self.rows {
            let (expected, found) = (vec![self.rows], vec![bias.len()]);
            return Err(Error::Shape { name: format!("bias of {}", self.name), expected, found });
        }
        self.bias = Some(bias);
        Ok(self)
    }

    /// The bias, `[rows]`, which is added to the outputs.
    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
    }

    /// Bytes of all rows.
    pub fn size(&self) -> usize {
        self.pieces.iter().map(|piece| piece.bytes.len()).sum()
    }

    /// The bytes of all rows, in the order of operations, of any alignment.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self.pieces.as_slice() {
            [piece] if self.order == RowOrder::AsStored => piece.bytes.to_vec(),
            _ => (0..self.rows).flat_map(|row| self.row(row).iter().copied()).collect(),
        }
    }

    /// Releases the bytes of all rows, which are not needed for now; see [`Memory::release`].
    pub fn release(&self) {
        self.pieces.iter().for_each(|piece| piece.bytes.release());
    }

    /// Whether all rows are in mapped files.
    pub(crate) fn is_mapped(&self) -> bool {
        self.pieces.iter().all(|piece| piece.bytes.owner.is_mapped())
    }

    /// The matrix without its rows.
    pub(crate) fn without_rows(&self) -> Self {
        Self { pieces: Vec::new(), bias: None, ..self.clone() }
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// The bytes of row `row`, in the order of operations.
    ///
    /// # Panics
    ///
    /// Where the matrix does not have this row.
    pub fn row(&self, row: usize) -> &[u8] {
        let stored = self.order.stored(row, self.rows);
        for piece in &self.pieces {
            if piece.rows.contains(&stored) {
                return &piece.bytes[(stored - piece.rows.start) * self.row_bytes..][..self.row_bytes];
            }
        }
        panic!("row {row} of {self:?}")
    }

    /// The whole matrix as f32.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.rows * self.cols];
        for (row, out) in out.chunks_exact_mut(self.cols.max(1)).enumerate() {
            self.dtype.widen(self.row(row), out);
        }
        out
    }
}

impl fmt::Debug for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}[{}, {}]", self.name, self.dtype, self.rows, self.cols)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A matrix of one column whose rows are numbered from `first` on.
    fn numbered(rows: usize, first: usize) -> Weight {
        let bytes: Vec<u8> = (first..first + rows).flat_map(|row| (row as f32).to_le_bytes()).collect();
        Weight::new("w", DType::F32, rows, 1, Bytes::from(bytes)).unwrap()
    }

    fn rows(weight: &Weight) -> Vec<f32> {
        weight.to_f32()
    }

    #[test]
    fn rows_come_in_the_order_of_operations() {
        let gates = numbered(6, 0).ordered(RowOrder::GateUpAlternating).unwrap();
        assert_eq!(rows(&gates), [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]);
        let heads = Heads { heads: 4, kv_heads: 2, head_dim: 2, rotary_dim: 2 };
        let qkv = numbered(16, 0).ordered(RowOrder::QkvByGroup(heads)).unwrap();
        let want = [0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15].map(|row| row as f32);
        assert_eq!(rows(&qkv), want);
        let pairs = numbered(10, 0).ordered(RowOrder::RotatedPairs { head_dim: 4, rows: 8 }).unwrap();
        assert_eq!(rows(&pairs), [0, 2, 1, 3, 4, 6, 5, 7, 8, 9].map(|row| row as f32));
    }

    #[test]
    fn rows_of_several_tensors_follow_each_other() {
        let parts = [numbered(2, 10), numbered(1, 30), numbered(3, 20)];
        let stacked = Weight::stacked("s", &parts).unwrap();
        assert_eq!(rows(&stacked), [10.0, 11.0, 30.0, 20.0, 21.0, 22.0]);
        assert_eq!((stacked.rows, stacked.size(), stacked.to_bytes().len()), (6, 24, 24));
        let twice = Weight::stacked("t", &[stacked.clone(), numbered(1, 5)]).unwrap();
        assert_eq!(rows(&twice)[6], 5.0);
        assert_eq!(rows(&stacked.slice(1..4).unwrap()), [11.0, 30.0, 20.0]);
        assert!(stacked.slice(4..7).is_err());
        let alternating = stacked.ordered(RowOrder::GateUpAlternating).unwrap();
        assert_eq!(rows(&alternating), [10.0, 30.0, 21.0, 11.0, 20.0, 22.0]);
        assert!(Weight::stacked("none", &[]).is_err());
        let wide = Weight::new("w", DType::F32, 1, 2, Bytes::from(vec![0; 8])).unwrap();
        assert!(matches!(Weight::stacked("s", &[numbered(1, 0), wide]), Err(Error::Stacked { .. })));
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let heads = Heads { heads: 4, kv_heads: 2, head_dim: 2, rotary_dim: 2 };
        for order in [
            RowOrder::GateUpAlternating,
            RowOrder::QkvByGroup(heads),
            RowOrder::QkvByGroup(Heads { kv_heads: 0, ..heads }),
            RowOrder::RotatedPairs { head_dim: 0, rows: 4 },
            RowOrder::RotatedPairs { head_dim: 4, rows: 8 },
            RowOrder::RotatedPairs { head_dim: 4, rows: 3 },
        ] {
            assert!(numbered(5, 0).ordered(order).is_err(), "{order:?}");
        }
        assert!(numbered(5, 0).with_bias(vec![0.0; 4]).is_err());
        assert_eq!(numbered(1, 0).with_bias(vec![2.0]).unwrap().bias(), Some(&[2.0][..]));
    }
}
