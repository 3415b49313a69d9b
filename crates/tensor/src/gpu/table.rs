//! The batch table: tokens, positions, slots and pages of a pass, its rotations and outputs, in one buffer.

use super::device::{Buffer, Device, STORAGE};
use crate::{Batch, Error, Mask, PAGE, Result};
use phi3_shaders::{Attention, CHOSEN, Units};

const _: () = assert!(PAGE == phi3_shaders::PAGE as usize);

/// Words of a row's record: token, position, slot to write, start of its sequence's pages.
const RECORD: usize = 4;

/// Rows of a segment from which on attention takes its rows by tiles.
const MANY_ROWS: usize = 8;

/// Heights of tiles.
const TILE_ROWS: [u32; 2] = [Attention::Tile.rows(), Attention::Units { units: Units::ALL[0], dim: 0 }.rows()];

/// Bytes of the first table, so that it seldom grows.
const FIRST_SIZE: u64 = 1 << 16;

pub(super) struct Table {
    pub(super) buffer: Option<Buffer>,
    /// Rows of the pass.
    pub(super) rows: usize,
    /// Floats of all rotations.
    pub(super) rotations: usize,
    pub(super) rope_at: usize,
    pub(super) outputs: usize,
    pub(super) outputs_at: usize,
    /// Whether a segment has rows enough for tiles of attention.
    pub(super) many_rows: bool,
    /// Those tiles, for each height that kernels take: none where no segment has many rows.
    tiles: Vec<Tiles>,
    /// One more than the largest token that the host knows.
    pub(super) tokens: usize,
    /// One more than the largest row whose chosen token is wanted.
    pub(super) chosen: usize,
    /// One more than the largest page.
    pub(super) pages: usize,
    /// One more than the largest position.
    end: usize,
    /// Of each segment, its first position and how many of its first pages are not there.
    gone: Vec<(usize, usize)>,
    words: Vec<u32>,
}

/// Tiles of so many rows at most.
#[derive(Clone, Copy)]
pub(super) struct Tiles {
    rows: u32,
    pub(super) at: usize,
    pub(super) count: usize,
}

impl Table {
    pub(super) fn new(device: &mut Device) -> Result<Self> {
        let buffer = Some(device.buffer("batch table", FIRST_SIZE, STORAGE)?);
        Ok(Self {
            buffer,
            rows: 0,
            rotations: 0,
            rope_at: 0,
            outputs: 0,
            outputs_at: 0,
            many_rows: false,
            tiles: Vec::new(),
            tokens: 0,
            chosen: 0,
            pages: 0,
            end: 0,
            gone: Vec::new(),
            words: Vec::new(),
        })
    }

    /// Checks a batch and brings it to the device.
    ///
    /// # Errors
    ///
    /// [`Error::Mismatch`] where its parts contradict each other.
    pub(super) fn write(&mut self, device: &mut Device, batch: &Batch) -> Result<()> {
        self.rows = 0;
        let rows = batch.rows();
        let limit = wgpu::Limits::default().max_compute_workgroups_per_dimension as usize;
        if rows > limit {
            return Err(device.unsupported("rows of a pass", rows, limit));
        }
        self.rope_at = RECORD * rows;
        self.rotations = batch.rope.len();
        self.outputs_at = self.rope_at + self.rotations;
        self.outputs = batch.outputs.len();
        let pages_at = self.outputs_at + self.outputs;
        self.tokens = batch.tokens.iter().filter(|token| **token < CHOSEN).max().map_or(0, |token| *token as usize + 1);
        let chosen = batch.tokens.iter().filter(|token| **token >= CHOSEN);
        self.chosen = chosen.max().map_or(0, |token| (*token - CHOSEN) as usize + 1);

        self.words.clear();
        self.gone.clear();
        (self.pages, self.end) = (0, 0);
        self.records(batch, pages_at)?;
        self.words.extend(batch.rope.iter().map(|value| value.to_bits()));
        if let Some(row) = batch.outputs.iter().find(|row| **row as usize >= rows) {
            return Err(mismatch("output row", rows.saturating_sub(1), *row as usize));
        }
        self.words.extend(&batch.outputs);
        self.words.extend(&batch.pages);
        self.tile(batch);

        let bytes: &[u8] = bytemuck::cast_slice(&self.words);
        device.grow(&mut self.buffer, "batch table", bytes.len() as u64, STORAGE)?;
        if let Some(buffer) = &self.buffer {
            device.queue.write_buffer(&buffer.raw, 0, bytes);
        }
        self.rows = rows;
        Ok(())
    }

    /// Takes the rows of each segment apart into tiles.
    fn tile(&mut self, batch: &Batch) {
        self.tiles.clear();
        self.many_rows = batch.segments.iter().any(|segment| segment.rows.len() >= MANY_ROWS);
        if !self.many_rows {
            return;
        }
        for rows in TILE_ROWS {
            let at = self.words.len();
            for segment in &batch.segments {
                for start in segment.rows.clone().step_by(rows as usize) {
                    let count = (segment.rows.end - start).min(rows as usize);
                    self.words.extend([start as u32, count as u32]);
                }
            }
            self.tiles.push(Tiles { rows, at, count: (self.words.len() - at) / 2 });
        }
    }

    /// The tiles that attention takes, where it takes any.
    pub(super) fn tiles(&self, how: Attention) -> Option<Tiles> {
        self.tiles.iter().copied().find(|tiles| tiles.rows == how.rows())
    }

    fn records(&mut self, batch: &Batch, pages_at: usize) -> Result<()> {
        let mut next = 0;
        for segment in &batch.segments {
            if segment.rows.start != next || segment.rows.end < next || segment.rows.end > batch.rows() {
                return Err(mismatch("start of a segment", next, segment.rows.start));
            }
            next = segment.rows.end;
            let pages = batch
                .pages
                .get(segment.pages.clone())
                .ok_or_else(|| mismatch("end of a segment's pages", batch.pages.len(), segment.pages.end))?;
            let needed = (segment.position + segment.rows.len()).div_ceil(PAGE);
            let pages = pages.get(..needed).ok_or_else(|| mismatch("pages of a segment", needed, pages.len()))?;

            let gone = pages.iter().take_while(|page| **page == Batch::NO_PAGE).count();
            let last = pages[gone..].iter().max().map_or(0, |page| *page as usize + 1);
            if last > Batch::NO_PAGE as usize || gone * PAGE > segment.position {
                return Err(mismatch("page in a sequence", needed, gone));
            }
            self.pages = self.pages.max(last);
            self.end = self.end.max(segment.position + segment.rows.len());
            self.gone.push((segment.position, gone));

            for (i, row) in segment.rows.clone().enumerate() {
                let position = segment.position + i;
                let slot = pages[position / PAGE].wrapping_mul(PAGE as u32).wrapping_add((position % PAGE) as u32);
                let start = pages_at + segment.pages.start;
                self.words.extend([batch.tokens[row], position as u32, slot, start as u32]);
            }
        }
        if next == batch.rows() { Ok(()) } else { Err(mismatch("rows of all segments", batch.rows(), next)) }
    }

    /// Positions that a row sees, at most.
    pub(super) fn longest(&self, mask: Mask) -> usize {
        self.end.min(mask.window.unwrap_or(usize::MAX))
    }

    /// Checks that every page that `mask` looks at is there.
    pub(super) fn visible(&self, mask: Mask) -> Result<()> {
        if mask.window == Some(0) {
            return Err(Error::Mismatch { op: "attention", what: "window", expected: 1, found: 0 });
        }
        for &(position, gone) in &self.gone {
            let first = mask.window.map_or(0, |window| (position + 1).saturating_sub(window));
            if first / PAGE < gone {
                return Err(Error::Mismatch {
                    op: "attention",
                    what: "first page",
                    expected: first / PAGE,
                    found: gone,
                });
            }
        }
        Ok(())
    }
}

fn mismatch(what: &'static str, expected: usize, found: usize) -> Error {
    Error::Mismatch { op: "begin", what, expected, found }
}
