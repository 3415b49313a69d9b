//! What one pass computes: rows of any number of sequences.

use std::ops::Range;

/// Positions in a page of the key/value cache.
pub const PAGE: usize = 16;

/// Consecutive rows of a pass that belong to one sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Rows of the pass.
    pub rows: Range<usize>,
    /// Position of the first row in its sequence; the others follow.
    pub position: usize,
    /// Where in [`Batch::pages`] the sequence's pages stand; entry i holds positions `i * PAGE ..`.
    pub pages: Range<usize>,
}

/// The rows of one pass. Prompt chunks and single decoded tokens may mix, and sequences may be of any length.
///
/// Before attention is computed, the pass appends the keys and values of its own rows to the cache; row r then sees the
/// positions of its sequence up to its own.
#[derive(Debug, Default)]
pub struct Batch {
    /// Token of each row.
    pub tokens: Vec<u32>,
    /// Position of each row in its sequence.
    pub positions: Vec<u32>,
    /// The rows by sequence, in order and without gaps.
    pub segments: Vec<Segment>,
    /// Pages of all segments. A page that lies wholly before a sliding window may hold [`Batch::NO_PAGE`].
    pub pages: Vec<u32>,
    /// Rotation of each row: `[rows, rotary_dim / 2, 2]`, cosine then sine, attention scale included.
    pub rope: Vec<f32>,
    /// Rows that `select` keeps, ascending.
    pub outputs: Vec<u32>,
}

impl Clone for Batch {
    fn clone(&self) -> Self {
        let mut copy = Self::default();
        copy.clone_from(self);
        copy
    }

    /// Keeps the memory that is there.
    fn clone_from(&mut self, source: &Self) {
        let Self { tokens, positions, segments, pages, rope, outputs } = self;
        tokens.clone_from(&source.tokens);
        positions.clone_from(&source.positions);
        segments.clone_from(&source.segments);
        pages.clone_from(&source.pages);
        rope.clone_from(&source.rope);
        outputs.clone_from(&source.outputs);
    }
}

impl Batch {
    /// Stands for a page that no row of the pass can see.
    pub const NO_PAGE: u32 = u32::MAX;

    /// As a token: the one that [`Backend::choose`](crate::Backend::choose) chose for its row 0; those of other rows follow.
    pub const CHOSEN: u32 = 1 << 31;

    /// What is chosen where a logit is not finite.
    pub const NO_TOKEN: u32 = u32::MAX;

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.tokens.len()
    }

    /// Empties the batch and keeps its memory.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.segments.clear();
        self.pages.clear();
        self.rope.clear();
        self.outputs.clear();
    }
}
