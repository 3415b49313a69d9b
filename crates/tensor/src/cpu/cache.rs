//! The paged key/value cache of the CPU.

use super::attention::Panels;
use super::pool::Pool;
use super::zeros;
use crate::{Batch, Error, Heads, KvType, PAGE, Result};
use half::f16;
use std::sync::Mutex;

/// Keys and values: a page of a layer holds, per key/value head, keys `[head_dim][PAGE]`, then values
/// `[PAGE][head_dim]`. Keys lie across the positions so that the scores of a page come out side by side.
pub struct Cache {
    heads: Heads,
    kv: KvType,
    /// `[layer][page]`
    pages: Vec<Vec<Page>>,
}

/// A page of a layer, by type.
enum Page {
    F32(Box<[f32]>),
    F16(Box<[u16]>),
    /// Scales lie as the numbers that they belong to: of keys `[blocks][PAGE]`, of values `[PAGE][blocks]`.
    Q8_0 {
        levels: Box<[i8]>,
        scales: Box<[f32]>,
    },
}

/// Where the keys and values of a row of the pass go.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    page: u32,
    slot: usize,
    row: usize,
}

/// The targets of a pass, by page.
pub(super) fn targets(batch: &Batch, out: &mut Vec<Target>) -> Result<()> {
    out.clear();
    for segment in &batch.segments {
        let pages = batch.pages.get(segment.pages.clone()).unwrap_or_default();
        for (i, row) in segment.rows.clone().enumerate() {
            let position = segment.position + i;
            let Some(&page) = pages.get(position / PAGE) else {
                let (op, what) = ("begin", "pages of a segment");
                return Err(Error::Mismatch { op, what, expected: position / PAGE + 1, found: pages.len() });
            };
            out.push(Target { page, slot: position % PAGE, row });
        }
    }
    out.sort_unstable();
    Ok(())
}

impl Cache {
    pub(super) fn new(layers: usize, heads: Heads, kv: KvType) -> Self {
        Self { heads, kv, pages: (0..layers).map(|_| Vec::new()).collect() }
    }

    pub(super) fn heads(&self) -> Heads {
        self.heads
    }

    fn panel(&self) -> usize {
        PAGE * self.heads.head_dim
    }

    /// Scales of a panel.
    fn scales(&self) -> usize {
        PAGE * self.heads.head_dim.div_ceil(KvType::BLOCK)
    }

    pub(super) fn page_bytes(&self) -> u64 {
        let panel = match self.kv {
            KvType::F32 => 4 * self.panel(),
            KvType::F16 => 2 * self.panel(),
            KvType::Q8_0 => self.panel() + 4 * self.scales(),
        };
        (self.pages.len() * self.heads.kv_heads * 2 * panel) as u64
    }

    pub(super) fn reserve(&mut self, device: &str, pages: usize) -> Result<()> {
        const WHAT: &str = "a page of the key/value cache";
        let panels = 2 * self.heads.kv_heads;
        let (len, scales) = (panels * self.panel(), panels * self.scales());
        for layer in &mut self.pages {
            while layer.len() < pages {
                layer.push(match self.kv {
                    KvType::F32 => Page::F32(zeros(device, WHAT, len)?.into_boxed_slice()),
                    KvType::F16 => Page::F16(zeros(device, WHAT, len)?.into_boxed_slice()),
                    KvType::Q8_0 => Page::Q8_0 {
                        levels: zeros(device, WHAT, len)?.into_boxed_slice(),
                        scales: zeros(device, WHAT, scales)?.into_boxed_slice(),
                    },
                });
            }
        }
        Ok(())
    }

    /// Keys and values of head `kv` on a page.
    pub(super) fn panels(&self, layer: usize, page: u32, kv: usize) -> Panels<'_> {
        let (panel, scales_of) = (self.panel(), self.scales());
        match &self.pages[layer][page as usize] {
            Page::F32(page) => {
                let (keys, values) = page[2 * kv * panel..][..2 * panel].split_at(panel);
                Panels::F32 { keys, values }
            }
            Page::F16(page) => {
                let (keys, values) = page[2 * kv * panel..][..2 * panel].split_at(panel);
                Panels::F16 { keys, values }
            }
            Page::Q8_0 { levels, scales } => {
                let (keys, values) = levels[2 * kv * panel..][..2 * panel].split_at(panel);
                let (key_scales, value_scales) = scales[2 * kv * scales_of..][..2 * scales_of].split_at(scales_of);
                Panels::Q8_0 { keys, values, key_scales, value_scales, heads: self.heads }
            }
        }
    }

    /// Writes the keys and values of a pass; `projected` has rows of queries, keys, values.
    pub(super) fn append(
        &mut self,
        layer: usize,
        targets: &[Target],
        projected: &[f32],
        width: usize,
        pool: &Pool,
    ) -> Result<()> {
        let heads = self.heads;
        let pages = &mut self.pages[layer];
        let (Some(first), Some(last)) = (targets.first(), targets.last()) else { return Ok(()) };
        if last.page as usize >= pages.len() {
            let (op, what) = ("project_qkv", "page");
            return Err(Error::Mismatch { op, what, expected: pages.len(), found: last.page as usize });
        }
        let write = |page: &mut Page, targets: &[Target]| {
            for target in targets {
                let kv = &projected[target.row * width + heads.q_dim()..(target.row + 1) * width];
                let (keys, values) = kv.split_at(heads.kv_dim());
                page.write(heads, target.slot, keys, values);
            }
        };
        if first.page == last.page {
            write(&mut pages[first.page as usize], targets);
            return Ok(());
        }
        // two segments never share a page that one of them writes
        let mut wanted = targets.chunk_by(|a, b| a.page == b.page).peekable();
        let shares: Vec<_> = pages
            .iter_mut()
            .enumerate()
            .filter_map(|(i, page)| {
                let targets = wanted.next_if(|targets| targets[0].page as usize == i)?;
                Some(Mutex::new((page, targets)))
            })
            .collect();
        pool.run(shares.len(), &|i| {
            // a lock of its own for every task: it only hands over the page
            if let Ok(mut share) = shares[i].lock() {
                let (page, targets) = &mut *share;
                write(page, targets);
            }
        });
        Ok(())
    }
}

impl Page {
    /// Writes the keys and values of all heads at a position of the page.
    fn write(&mut self, shape: Heads, slot: usize, keys: &[f32], values: &[f32]) {
        let d = shape.head_dim;
        let heads = keys.chunks_exact(d).zip(values.chunks_exact(d));
        match self {
            Page::F32(page) => {
                for (panels, (k, v)) in page.chunks_exact_mut(2 * PAGE * d).zip(heads) {
                    place(panels, d, slot, k.iter().copied(), v.iter().copied());
                }
            }
            Page::F16(page) => {
                for (panels, (k, v)) in page.chunks_exact_mut(2 * PAGE * d).zip(heads) {
                    place(panels, d, slot, k.iter().map(to_f16), v.iter().map(to_f16));
                }
            }
            Page::Q8_0 { levels, scales } => {
                let blocks = d.div_ceil(KvType::BLOCK);
                let panels = levels.chunks_exact_mut(2 * PAGE * d).zip(scales.chunks_exact_mut(2 * PAGE * blocks));
                for ((panels, scales), (k, v)) in panels.zip(heads) {
                    let (to_keys, to_values) = panels.split_at_mut(PAGE * d);
                    let (key_scales, value_scales) = scales.split_at_mut(PAGE * blocks);
                    let key_block = |i| shape.key_block(i) * PAGE + slot;
                    quantise(k, |i| i * PAGE + slot, key_block, to_keys, key_scales);
                    let value_block = |i| slot * blocks + i / KvType::BLOCK;
                    quantise(v, |i| slot * d + i, value_block, to_values, value_scales);
                }
            }
        }
    }
}

/// Level i goes to `place(i)`, the scale that it shares to `block(i)`.
fn quantise(
    x: &[f32],
    place: impl Fn(usize) -> usize,
    block: impl Fn(usize) -> usize,
    levels: &mut [i8],
    scales: &mut [f32],
) {
    (0..x.len()).for_each(|i| scales[block(i)] = 0.0);
    for (i, v) in x.iter().enumerate() {
        let most = &mut scales[block(i)];
        *most = most.max(v.abs() / 127.0);
    }
    for (i, v) in x.iter().enumerate() {
        let scale = scales[block(i)];
        // the inverse of less might be infinite
        let inverse = if scale > 1e-32 { 1.0 / scale } else { 0.0 };
        levels[place(i)] = (v * inverse).round_ties_even() as i8;
    }
}

/// Puts keys and values, `width` of each, at position `slot` of keys `[width][PAGE]` and values `[PAGE][width]`.
fn place<T>(
    panels: &mut [T],
    width: usize,
    slot: usize,
    keys: impl Iterator<Item = T>,
    values: impl Iterator<Item = T>,
) {
    let (to_keys, to_values) = panels.split_at_mut(PAGE * width);
    to_keys[slot..].iter_mut().step_by(PAGE).zip(keys).for_each(|(to, key)| *to = key);
    to_values[slot * width..][..width].iter_mut().zip(values).for_each(|(to, value)| *to = value);
}

fn to_f16(v: &f32) -> u16 {
    f16::from_f32(v.clamp(-65504.0, 65504.0)).to_bits()
}
