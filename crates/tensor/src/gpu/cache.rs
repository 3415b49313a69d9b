//! Keys and values on the device.

use super::device::{Buffer, Device, STORAGE};
use super::recorder::Recorder;
use crate::checks::{self, CacheShape};
use crate::{Heads, KvType, PAGE, Result};
use phi3_shaders::{KV_BLOCK, Kv, MAX_HEAD_DIM};

const _: () = assert!(KvType::BLOCK == KV_BLOCK);

/// Initial pages of a cache: enough for a short chat.
const FEWEST: usize = 16;

/// Keys and values of every layer: `[pages * PAGE][kv_heads][head]` each.
pub struct Cache {
    pub(crate) heads: Heads,
    pub(crate) kv: Kv,
    pub(crate) layers: Vec<Layer>,
    /// Pages that every layer has.
    pub(crate) pages: usize,
    /// Keys and values of a pass, before they are quantized: `[rows][2][kv_heads][4 * head4]` f32.
    pub(crate) staged: Option<Buffer>,
}

/// Elements of a kernel's array per head and per position.
#[derive(Clone, Copy)]
pub(crate) struct Strides {
    pub(crate) head: u32,
    pub(crate) slot: u32,
}

/// Keys and values of a layer; none before the first page.
#[derive(Default)]
pub(crate) struct Layer {
    pub(crate) keys: Option<Buffer>,
    pub(crate) values: Option<Buffer>,
}

impl Cache {
    /// # Errors
    ///
    /// [`Error::Unsupported`](crate::Error::Unsupported) for heads that are wider than the kernels take.
    pub(crate) fn new(device: &Device, layers: usize, heads: Heads, kv: KvType) -> Result<Self> {
        checks::heads("cache", heads)?;
        if heads.head_dim > MAX_HEAD_DIM {
            return Err(device.unsupported("head_dim", heads.head_dim, MAX_HEAD_DIM));
        }
        let kv = match kv {
            KvType::F32 => Kv::F32,
            KvType::F16 => Kv::F16,
            KvType::Q8_0 => Kv::Q8_0,
        };
        let layers = (0..layers).map(|_| Layer::default()).collect();
        Ok(Self { heads, kv, layers, pages: 0, staged: None })
    }

    pub(crate) fn shape(&self) -> CacheShape {
        CacheShape { heads: self.heads, layers: self.layers.len(), pages: self.pages }
    }

    /// Groups of four numbers of a head; those past `head_dim` stay zero.
    pub(crate) fn head4(&self) -> usize {
        self.heads.head_dim.div_ceil(4)
    }

    /// Blocks of a head that share a scale.
    pub(crate) fn blocks(&self) -> usize {
        self.heads.head_dim.div_ceil(KV_BLOCK)
    }

    /// Words of a head.
    fn head_words(&self) -> usize {
        match self.kv {
            Kv::F32 => 4 * self.head4(),
            Kv::F16 => 2 * self.head4(),
            Kv::Q8_0 => self.head4() + self.blocks(),
        }
    }

    fn strides(&self, head: usize) -> Strides {
        Strides { head: head as u32, slot: (self.heads.kv_heads * head) as u32 }
    }

    /// Strides in elements of the shader sources that load: four numbers, or a word of a quantized cache.
    pub(crate) fn loaded(&self) -> Strides {
        match self.kv {
            Kv::F32 | Kv::F16 => self.strides(self.head4()),
            Kv::Q8_0 => self.strides(self.head_words()),
        }
    }

    /// Strides in elements of the shader sources that store: pairs of numbers, for a quantized cache before quantization.
    pub(crate) fn stored(&self) -> Strides {
        self.strides(2 * self.head4())
    }

    /// Allocates the staging buffer for the keys and values of `rows` rows.
    pub(crate) fn stage(&mut self, device: &mut Device, rows: usize) -> Result<()> {
        let bytes = rows as u64 * 2 * (self.heads.kv_heads * 4 * self.head4() * size_of::<f32>()) as u64;
        device.grow(&mut self.staged, "keys and values of a pass", bytes, STORAGE)
    }

    /// Bytes of a page's keys, or its values, in one layer.
    fn side_bytes(&self) -> u64 {
        (PAGE * self.heads.kv_heads * self.head_words() * size_of::<u32>()) as u64
    }

    /// Most pages: a layer's keys, or its values, are one binding.
    pub(crate) fn max_pages(&self, device: &Device) -> usize {
        (device.max_binding / self.side_bytes().max(1)) as usize
    }

    /// Bytes of a page in all layers.
    pub(crate) fn page_bytes(&self) -> u64 {
        2 * self.layers.len() as u64 * self.side_bytes()
    }

    /// Allocates at least `pages` pages. Doubles the number where a buffer may be that large.
    pub(crate) fn reserve(&mut self, device: &mut Device, recorder: &mut Recorder, pages: usize) -> Result<()> {
        if pages <= self.pages {
            return Ok(());
        }
        let most = self.max_pages(device);
        let roomy = pages.max(self.pages.saturating_mul(2)).max(FEWEST).min(most).max(pages);
        self.grow(device, recorder, roomy).or_else(|error| match error {
            crate::Error::OutOfMemory { .. } if roomy > pages => self.grow(device, recorder, pages),
            error => Err(error),
        })
    }

    /// Copies pages of all layers, through a buffer of their size: a copy within a buffer is not allowed.
    pub(crate) fn copy_pages(
        &mut self,
        device: &mut Device,
        recorder: &mut Recorder,
        pairs: &[(u32, u32)],
    ) -> Result<()> {
        if pairs.is_empty() {
            return Ok(());
        }
        let page = self.side_bytes();
        let through = device.buffer("copied pages", page * pairs.len() as u64, STORAGE)?;
        let sides = self.layers.iter().flat_map(|layer| [&layer.keys, &layer.values]).flatten();
        recorder.flush_with(device, |encoder| {
            for side in sides {
                for ((from, _), at) in pairs.iter().zip((0..).step_by(page as usize)) {
                    encoder.copy_buffer_to_buffer(&side.raw, u64::from(*from) * page, &through.raw, at, page);
                }
                for ((_, to), at) in pairs.iter().zip((0..).step_by(page as usize)) {
                    encoder.copy_buffer_to_buffer(&through.raw, at, &side.raw, u64::from(*to) * page, page);
                }
            }
        })?;
        Ok(())
    }

    /// Enlarges the buffers one by one and waits for each copy, so that only one old buffer exists beside the new ones.
    fn grow(&mut self, device: &mut Device, recorder: &mut Recorder, pages: usize) -> Result<()> {
        let bytes = (pages as u64).saturating_mul(self.side_bytes());
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
