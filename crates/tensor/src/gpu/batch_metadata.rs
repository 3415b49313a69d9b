//! Metadata of a batch: tokens, positions, slots and pages of a pass, its rotations and outputs, in one buffer.

use super::device::{Buffer, Device, STORAGE};
use crate::{Batch, PAGE, Phase, Result};
use phi3_shaders::{Attention, CoopMatrix};

const _: () = assert!(PAGE == phi3_shaders::PAGE as usize);

/// Words of a row's record: token, position, slot to write, start of the sequence's pages.
const RECORD: usize = 4;

/// Heights of tiles for each phase.
const HEIGHTS: [(Phase, &[u32]); 2] = [
    (Phase::Decode, &[Attention::Row.rows()]),
    (
        Phase::Prompt,
        &[
            Attention::Row.rows(),
            Attention::Flash.rows(),
            Attention::Coop { matrix: CoopMatrix::ALL[0], dim: 0 }.rows(),
        ],
    ),
];

/// Bytes of the first buffer, large enough for most batches.
const FIRST_SIZE: u64 = 1 << 16;

pub(crate) struct BatchMetadata {
    pub(crate) buffer: Option<Buffer>,
    pub(crate) rope_at: usize,
    pub(crate) outputs_at: usize,
    /// Start of the list of the rows' ends: the position after the last one of a row's segment.
    pub(crate) ends_at: usize,
    tiles: Vec<Tiles>,
    words: Vec<u32>,
}

/// Tiles of attention for the rows of a phase: first row and count of each, `height` rows at most. Their positions have the same
/// quotient by `height`, so that a row is computed alike in prompts that are cut into other chunks.
#[derive(Clone, Copy)]
pub(crate) struct Tiles {
    phase: Phase,
    pub(crate) height: usize,
    pub(crate) at: usize,
    pub(crate) count: usize,
}

impl BatchMetadata {
    pub(crate) fn new(device: &mut Device) -> Result<Self> {
        let buffer = Some(device.buffer("batch metadata", FIRST_SIZE, STORAGE)?);
        Ok(Self { buffer, rope_at: 0, outputs_at: 0, ends_at: 0, tiles: Vec::new(), words: Vec::new() })
    }

    /// Uploads the metadata of a batch.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`](crate::Error::Unsupported) where the batch has more rows than a grid.
    pub(crate) fn write(&mut self, device: &mut Device, batch: &Batch) -> Result<()> {
        let rows = batch.rows();
        let limit = wgpu::Limits::default().max_compute_workgroups_per_dimension as usize;
        if rows > limit {
            return Err(device.unsupported("rows of a pass", rows, limit));
        }
        self.rope_at = RECORD * rows;
        self.outputs_at = self.rope_at + batch.rope().len();
        let pages_at = self.outputs_at + batch.outputs().len();
        self.words.clear();
        self.records(batch, pages_at);
        self.words.extend(batch.rope().iter().map(|value| value.to_bits()));
        self.words.extend(batch.outputs());
        self.words.extend(batch.pages());
        self.ends_at = self.words.len();
        for segment in batch.segments() {
            self.words.extend(segment.rows.clone().map(|_| Batch::end(segment) as u32));
        }
        self.tile(batch);

        let bytes: &[u8] = bytemuck::cast_slice(&self.words);
        device.grow(&mut self.buffer, "batch metadata", bytes.len() as u64, STORAGE)?;
        if let Some(buffer) = &self.buffer {
            device.queue.write_buffer(&buffer.raw, 0, bytes);
        }
        Ok(())
    }

    /// Lists the tiles of each phase.
    fn tile(&mut self, batch: &Batch) {
        self.tiles.clear();
        for (phase, height) in
            HEIGHTS.iter().flat_map(|(phase, heights)| heights.iter().map(|height| (*phase, *height as usize)))
        {
            let at = self.words.len();
            for segment in batch.segments().iter().filter(|segment| segment.phase == phase) {
                let mut start = segment.rows.start;
                while start < segment.rows.end {
                    let position = segment.position + (start - segment.rows.start);
                    let count = (height - position % height).min(segment.rows.end - start);
                    self.words.extend([start as u32, count as u32]);
                    start += count;
                }
            }
            self.tiles.push(Tiles { phase, height, at, count: (self.words.len() - at) / 2 });
        }
    }

    /// The tiles of a phase for a kernel of attention; `None` where the phase has no rows.
    pub(crate) fn tiles(&self, phase: Phase, how: Attention) -> Option<Tiles> {
        let fits = |tiles: &Tiles| tiles.phase == phase && tiles.height == how.rows() as usize;
        self.tiles.iter().copied().find(fits).filter(|tiles| tiles.count > 0)
    }

    /// First rows of tiles, their positions and the ends of their segments.
    pub(crate) fn firsts(&self, tiles: Tiles) -> impl Iterator<Item = (usize, usize, usize)> {
        self.words[tiles.at..][..2 * tiles.count].chunks_exact(2).map(|tile| {
            let row = tile[0] as usize;
            (row, self.words[RECORD * row + 1] as usize, self.words[self.ends_at + row] as usize)
        })
    }

    fn records(&mut self, batch: &Batch, pages_at: usize) {
        for segment in batch.segments() {
            let pages = &batch.pages()[segment.pages.clone()];
            let start = pages_at + segment.pages.start;
            for (position, row) in (segment.position..).zip(segment.rows.clone()) {
                // a page beyond the cache is not written: operations check the pages
                let slot = pages[position / PAGE].wrapping_mul(PAGE as u32).wrapping_add((position % PAGE) as u32);
                self.words.extend([batch.tokens()[row], position as u32, slot, start as u32]);
            }
        }
    }
}
