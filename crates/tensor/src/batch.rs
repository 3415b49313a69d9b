//! The rows of one pass, by sequence.

use crate::error::{Expected, Result};
use crate::{Error, Mask};
use std::ops::Range;

/// Positions in a page of the key/value cache.
pub const PAGE: usize = 16;

/// Kind of the rows of a segment. Backends choose kernels and precision by it, never by what else is in the pass: a row then has the
/// same bits alone and among others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// New tokens: one of a sequence, or several that are computed again.
    Decode,
    /// Inputs of a prompt, in chunks of any length.
    Prompt,
}

impl Phase {
    /// The phase of `rows` rows whose phase is not known: one row is a new token, several are of a prompt.
    pub fn of(rows: usize) -> Self {
        if rows == 1 { Phase::Decode } else { Phase::Prompt }
    }
}

/// Consecutive rows of a pass that belong to one sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Rows of the pass; at least one.
    pub rows: Range<usize>,
    /// Kind of the rows.
    pub phase: Phase,
    /// Position of the first row in its sequence; the others follow.
    pub position: usize,
    /// Where in [`Batch::pages`] the sequence's pages stand; entry i holds positions `i * PAGE ..`.
    pub pages: Range<usize>,
    /// How many of the first pages are [`Batch::NO_PAGE`].
    pub gone: usize,
}

/// The rows of one pass. Prompt chunks and single decoded tokens may mix, and sequences may be of any length.
///
/// Before attention is computed, the pass appends the keys and values of its own rows to the cache; row r then sees the
/// positions of its sequence that the [`Mask`] says, up to its own or, of [`Mask::Full`], up to the last of its segment.
///
/// A batch is checked while it is built: its segments cover its rows in order, every segment has the pages of its positions, no
/// page is written twice, and outputs are rows. Properties of a model, such as the number of tokens or of pages, are checked
/// by the operations.
#[derive(Debug, Default)]
pub struct Batch {
    tokens: Vec<u32>,
    segments: Vec<Segment>,
    pages: Vec<u32>,
    rope: Vec<f32>,
    outputs: Vec<u32>,
    /// Phase of each output.
    output_phases: Vec<Phase>,
    /// Pages that the rows write, ascending.
    written: Vec<u32>,
    bounds: Bounds,
}

/// One more than the largest of each; 0 where there is none.
#[derive(Clone, Copy, Debug, Default)]
struct Bounds {
    tokens: usize,
    sampled: usize,
    pages: usize,
}

impl Clone for Batch {
    fn clone(&self) -> Self {
        let mut copy = Self::default();
        copy.clone_from(self);
        copy
    }

    /// Keeps the memory that is there.
    fn clone_from(&mut self, source: &Self) {
        let Self { tokens, segments, pages, rope, outputs, output_phases, written, bounds } = self;
        tokens.clone_from(&source.tokens);
        segments.clone_from(&source.segments);
        pages.clone_from(&source.pages);
        rope.clone_from(&source.rope);
        outputs.clone_from(&source.outputs);
        output_phases.clone_from(&source.output_phases);
        written.clone_from(&source.written);
        *bounds = source.bounds;
    }
}

impl Batch {
    /// Stands for a page that no row of the pass can see.
    pub const NO_PAGE: u32 = u32::MAX;

    /// As a token: the one that [`sample`](crate::ops::Sample::sample) put into slot 0; those of the other slots follow.
    pub const SAMPLED: u32 = 1 << 31;

    /// The sampled token where a logit is not finite or all tokens are excluded.
    pub const NO_TOKEN: u32 = u32::MAX;

    /// A batch of one sequence; see [`push`](Self::push).
    ///
    /// # Errors
    ///
    /// Those of [`push`](Self::push).
    pub fn of(tokens: &[u32], position: usize, pages: &[u32]) -> Result<Self> {
        let mut batch = Self::default();
        batch.push(tokens, position, pages)?;
        Ok(batch)
    }

    /// Adds the rows of a sequence: `tokens` from `position` on. `pages` holds the sequence's pages, those before the rows
    /// included; of these, pages that lie wholly before the first row may be [`Batch::NO_PAGE`], which a sliding window does
    /// not see. Returns the rows.
    ///
    /// # Errors
    ///
    /// [`Error::Mismatch`] where there is no token, a position is beyond 32 bits, a page is missing, or a page would be written
    /// that another row of the pass writes. The batch is empty then.
    pub fn push(&mut self, tokens: &[u32], position: usize, pages: &[u32]) -> Result<Range<usize>> {
        self.push_as(Phase::of(tokens.len()), tokens, position, pages)
    }

    /// Adds the rows of a sequence, whose phase is given; else as [`push`](Self::push), which takes [`Phase::of`] their number.
    ///
    /// # Errors
    ///
    /// Those of [`push`](Self::push).
    pub fn push_as(&mut self, phase: Phase, tokens: &[u32], position: usize, pages: &[u32]) -> Result<Range<usize>> {
        let pushed = self.try_push(phase, tokens, position, pages);
        if pushed.is_err() {
            self.clear();
        }
        pushed
    }

    fn try_push(&mut self, phase: Phase, tokens: &[u32], position: usize, pages: &[u32]) -> Result<Range<usize>> {
        const MOST: usize = u32::MAX as usize;
        let rows = self.rows()..self.rows().saturating_add(tokens.len());
        let end = position.saturating_add(tokens.len());
        expect("rows of a segment", Expected::AtLeast(1), tokens.len())?;
        expect("rows", Expected::AtMost(MOST), rows.end)?;
        expect("end of a segment's positions", Expected::AtMost(MOST), end)?;
        let needed = end.div_ceil(PAGE);
        let pages = pages.get(..needed).ok_or_else(|| {
            let expected = Expected::AtLeast(needed);
            Error::Mismatch { op: "batch", what: "pages of a segment", expected, found: pages.len() }
        })?;
        let gone = pages.iter().take_while(|page| **page == Self::NO_PAGE).count();
        expect("missing pages of a segment", Expected::AtMost(position / PAGE), gone)?;
        let last = pages[gone..].iter().max().map_or(0, |page| *page as usize);
        expect("page of a segment", Expected::AtMost(MOST - 1), last)?;
        for page in &pages[position / PAGE..] {
            match self.written.binary_search(page) {
                Ok(_) => expect("writers of a page", Expected::AtMost(1), 2)?,
                Err(at) => self.written.insert(at, *page),
            }
        }

        let first = self.pages.len();
        self.pages.extend_from_slice(pages);
        self.segments.push(Segment { rows: rows.clone(), phase, position, pages: first..self.pages.len(), gone });
        self.tokens.extend_from_slice(tokens);
        for token in tokens {
            let (bound, token) = match token.checked_sub(Self::SAMPLED) {
                Some(row) => (&mut self.bounds.sampled, row),
                None => (&mut self.bounds.tokens, *token),
            };
            *bound = (*bound).max(token as usize + 1);
        }
        self.bounds.pages = self.bounds.pages.max(last + 1);
        Ok(rows)
    }

    /// Adds a row to those that `select` keeps; they ascend.
    ///
    /// # Errors
    ///
    /// [`Error::Mismatch`] where it is no row, or not behind the last one.
    pub fn push_output(&mut self, row: usize) -> Result<()> {
        self.push_output_as(Phase::Decode, row)
    }

    /// Adds a row as [`push_output`](Self::push_output), which takes [`Phase::Decode`]: the phase of its logits.
    ///
    /// # Errors
    ///
    /// Those of [`push_output`](Self::push_output).
    pub fn push_output_as(&mut self, phase: Phase, row: usize) -> Result<()> {
        let after = self.outputs.last().map_or(0, |last| *last as usize + 1);
        expect("output row", Expected::AtLeast(after), row)?;
        expect("output row", Expected::Below(self.rows()), row)?;
        self.outputs.push(row as u32);
        self.output_phases.push(phase);
        Ok(())
    }

    /// Rotation of each row, to be filled: `[rows, rotary_dim / 2, 2]`, cosine then sine, attention scale included.
    pub fn rope_mut(&mut self) -> &mut Vec<f32> {
        &mut self.rope
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.tokens.len()
    }

    /// Token of each row.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The rows by sequence, in order and without gaps.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Pages of all segments.
    pub fn pages(&self) -> &[u32] {
        &self.pages
    }

    /// Rotation of each row: `[rows, rotary_dim / 2, 2]`, cosine then sine, attention scale included.
    pub fn rope(&self) -> &[f32] {
        &self.rope
    }

    /// Rows that `select` keeps, ascending.
    pub fn outputs(&self) -> &[u32] {
        &self.outputs
    }

    /// Phase of the logits of each output.
    pub fn output_phases(&self) -> &[Phase] {
        &self.output_phases
    }

    /// Position of a row in its sequence.
    pub fn position(&self, row: usize) -> Option<usize> {
        let segment = self.segments.iter().find(|segment| segment.rows.contains(&row))?;
        Some(segment.position + (row - segment.rows.start))
    }

    /// One more than the largest token that the host knows.
    pub(crate) fn token_bound(&self) -> usize {
        self.bounds.tokens
    }

    /// One more than the largest slot whose token is wanted.
    pub(crate) fn sampled_bound(&self) -> usize {
        self.bounds.sampled
    }

    /// Pages that a cache needs for the batch: one more than the largest.
    pub fn pages_needed(&self) -> usize {
        self.bounds.pages
    }

    /// Position behind the last one of a segment.
    pub(crate) fn end(segment: &Segment) -> usize {
        segment.position + segment.rows.len()
    }

    /// Positions that a row of a phase sees, at most.
    #[cfg_attr(not(feature = "gpu"), allow(dead_code, reason = "only a GPU splits its work"))]
    pub(crate) fn longest(&self, phase: Phase, mask: Mask) -> usize {
        let ends = self.segments.iter().filter(|segment| segment.phase == phase).map(Self::end);
        ends.max().unwrap_or(0).min(mask.window().unwrap_or(usize::MAX))
    }

    /// From the first row of a phase to the last.
    #[cfg_attr(not(feature = "gpu"), allow(dead_code, reason = "only a GPU computes the phases one after the other"))]
    pub(crate) fn rows_of(&self, phase: Phase) -> Range<usize> {
        let mut of_phase = self.segments.iter().filter(|segment| segment.phase == phase).map(|segment| &segment.rows);
        let start = of_phase.next().map_or(0..0, Range::clone);
        start.start..of_phase.next_back().map_or(start.end, |last| last.end)
    }

    /// Empties the batch and keeps its memory.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.segments.clear();
        self.pages.clear();
        self.rope.clear();
        self.outputs.clear();
        self.output_phases.clear();
        self.written.clear();
        self.bounds = Bounds::default();
    }
}

fn expect(what: &'static str, expected: Expected, found: usize) -> Result<()> {
    expected.check("batch", what, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: u32 = Batch::NO_PAGE;

    #[test]
    fn rows_of_several_sequences_follow_each_other() {
        let mut batch = Batch::of(&[5, 6, Batch::SAMPLED + 2], 15, &[7, 2, 9]).unwrap();
        assert_eq!(batch.push(&[8], 33, &[NONE, 3, 4]).unwrap(), 3..4);
        batch.push_output(0).unwrap();
        batch.push_output(3).unwrap();
        assert_eq!((batch.rows(), batch.tokens()), (4, &[5, 6, Batch::SAMPLED + 2, 8][..]));
        // a page behind the last position is not kept
        assert_eq!(batch.pages(), [7, 2, NONE, 3, 4]);
        assert_eq!(
            batch.segments()[1],
            Segment { rows: 3..4, phase: Phase::Decode, position: 33, pages: 2..5, gone: 1 }
        );
        assert_eq!([0, 2, 3, 4].map(|row| batch.position(row)), [Some(15), Some(17), Some(33), None]);
        assert_eq!((batch.token_bound(), batch.sampled_bound(), batch.pages_needed()), (9, 3, 8));
        assert_eq!([Phase::Prompt, Phase::Decode].map(|phase| batch.longest(phase, Mask::Causal)), [18, 34]);
        assert_eq!([Phase::Prompt, Phase::Decode].map(|phase| batch.rows_of(phase)), [0..3, 3..4]);
        let mut copy = Batch::of(&[1], 0, &[0]).unwrap();
        copy.clone_from(&batch);
        assert_eq!((copy.outputs(), copy.segments()), (batch.outputs(), batch.segments()));
        batch.clear();
        assert_eq!((batch.rows(), batch.pages_needed(), batch.position(0)), (0, 0, None));
        assert_eq!(batch.push(&[1], 16, &[5, 7]).unwrap(), 0..1, "no page is written any longer");
    }

    #[test]
    fn what_contradicts_itself_is_an_error() {
        let push = |tokens: &[u32], position, pages: &[u32]| {
            let mut batch = Batch::of(&[1; 17], 3, &[0, 1]).unwrap();
            let error = batch.push(tokens, position, pages).unwrap_err();
            assert!(matches!(error, Error::Mismatch { op: "batch", .. }), "{error}");
            assert_eq!(batch.rows(), 0);
            error.to_string()
        };
        assert!(push(&[], 0, &[2]).contains("rows of a segment is 0, expected at least 1"));
        assert!(push(&[1], 16, &[2]).contains("pages of a segment is 1, expected at least 2"));
        assert!(push(&[1; 3], 30, &[2, 3]).contains("pages of a segment is 2, expected at least 3"));
        assert!(push(&[1], usize::MAX, &[2]).contains("positions"));
        assert!(push(&[1], u32::MAX as usize, &[2]).contains("positions"));
        // a page of a row itself, and one between others
        assert!(push(&[1], 31, &[NONE, NONE]).contains("missing pages of a segment is 2, expected at most 1"));
        assert!(push(&[1], 47, &[2, NONE, 3]).contains("page of a segment"));
        // two sequences, or two pages of one, that write the same page
        assert!(push(&[1], 31, &[5, 1]).contains("writers of a page is 2, expected at most 1"));
        assert!(push(&[1; 20], 0, &[5, 5]).contains("writers of a page is 2, expected at most 1"));

        let mut batch = Batch::of(&[1; 3], 0, &[0]).unwrap();
        batch.push_output(1).unwrap();
        for row in [0, 1, 3, usize::MAX] {
            assert!(matches!(batch.push_output(row), Err(Error::Mismatch { .. })), "{row}");
        }
        assert_eq!(batch.outputs(), [1]);
    }
}
