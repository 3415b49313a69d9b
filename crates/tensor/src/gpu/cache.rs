//! Keys and values on the device.

use super::device::{Buffer, Device, STORAGE};
use super::recorder::Recorder;
use crate::{Heads, PAGE, Result};
use phi3_shaders::MAX_HEAD_DIM;

/// Pages that a cache starts with, so that a short talk never makes it grow.
const FEWEST: usize = 16;

/// Keys and values of every layer: `[pages * PAGE][kv_heads][head stride]` f32 each.
pub struct Cache {
    pub(super) heads: Heads,
    pub(super) layers: Vec<Layer>,
    /// Pages that every layer has.
    pub(super) pages: usize,
}

/// Keys and values of a layer; none before the first page.
#[derive(Default)]
pub(super) struct Layer {
    pub(super) keys: Option<Buffer>,
    pub(super) values: Option<Buffer>,
}

impl Cache {
    /// # Errors
    ///
    /// [`Error::Unsupported`](crate::Error::Unsupported) for heads that are wider than the kernels take, or that have
    /// an odd width.
    pub(super) fn new(device: &Device, layers: usize, heads: Heads) -> Result<Self> {
        let Heads { heads: queries, kv_heads, head_dim, rotary_dim } = heads;
        if head_dim > MAX_HEAD_DIM {
            return Err(device.unsupported("head_dim", head_dim, MAX_HEAD_DIM));
        }
        for (what, found) in [("head_dim", head_dim), ("rotary_dim", rotary_dim)] {
            super::same("cache", what, found / 2 * 2, found)?;
        }
        super::same("cache", "head_dim", head_dim.max(2), head_dim)?;
        super::same("cache", "rotary_dim", rotary_dim.min(head_dim), rotary_dim)?;
        super::same("cache", "heads", queries / kv_heads.max(1) * kv_heads, queries)?;
        Ok(Self { heads, layers: (0..layers).map(|_| Layer::default()).collect(), pages: 0 })
    }

    /// Floats of a head, a multiple of 4; those past `head_dim` stay zero.
    pub(super) fn head_stride(&self) -> usize {
        self.heads.head_dim.next_multiple_of(4)
    }

    /// Floats of a position.
    pub(super) fn slot_stride(&self) -> usize {
        self.heads.kv_heads * self.head_stride()
    }

    /// Bytes of a page's keys, or of its values, in one layer.
    fn side_bytes(&self) -> u64 {
        (PAGE * self.slot_stride() * size_of::<f32>()) as u64
    }

    /// Bytes of a page in all layers.
    pub(super) fn page_bytes(&self) -> u64 {
        2 * self.layers.len() as u64 * self.side_bytes()
    }

    /// Makes room for `pages` pages, by doubling where a buffer may be that large.
    pub(super) fn reserve(&mut self, device: &mut Device, recorder: &mut Recorder, pages: usize) -> Result<()> {
        if pages <= self.pages {
            return Ok(());
        }
        let page = self.side_bytes();
        let most = (device.max_binding / page.max(1)) as usize;
        let roomy = pages.max(2 * self.pages).max(FEWEST).min(most).max(pages);
        self.grow(device, recorder, roomy).or_else(|error| match error {
            crate::Error::OutOfMemory { .. } if roomy > pages => self.grow(device, recorder, pages),
            error => Err(error),
        })
    }

    /// Layer by layer, so that only one layer's old buffers live beside the new ones.
    fn grow(&mut self, device: &mut Device, recorder: &mut Recorder, pages: usize) -> Result<()> {
        let bytes = pages as u64 * self.side_bytes();
        for layer in &mut self.layers {
            for side in [&mut layer.keys, &mut layer.values] {
                match side {
                    Some(old) if old.size >= bytes => {}
                    Some(old) => {
                        let new = device.buffer("key/value cache", bytes, STORAGE)?;
                        let copied = recorder.flush_with(device, |encoder| {
                            encoder.copy_buffer_to_buffer(&old.raw, 0, &new.raw, 0, old.size);
                        })?;
                        device.wait(copied)?;
                        *old = new;
                        recorder.pipelines.forget(&device.dropped());
                    }
                    None => *side = Some(device.buffer("key/value cache", bytes, STORAGE)?),
                }
            }
        }
        self.pages = pages;
        Ok(())
    }
}
