//! The paged key/value cache of the CPU.

use super::kernels::Panels;
use super::zeros;
use crate::{Batch, Error, Heads, KvType, PAGE, Result};
use half::f16;
use rayon::prelude::*;

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

/// The rows of a pass by the page that their keys go to: `(page, [(row, slot)])`.
pub(super) fn group_by_page(batch: &Batch, out: &mut Vec<(u32, Vec<(usize, usize)>)>) {
    out.clear();
    for segment in &batch.segments {
        let pages = &batch.pages[segment.pages.clone()];
        for (i, row) in segment.rows.clone().enumerate() {
            let position = segment.position + i;
            let page = pages[position / PAGE];
            match out.last_mut() {
                Some((last, rows)) if *last == page => rows.push((row, position % PAGE)),
                _ => out.push((page, vec![(row, position % PAGE)])),
            }
        }
    }
    out.sort_unstable_by_key(|(page, _)| *page);
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
        by_page: &[(u32, Vec<(usize, usize)>)],
        projected: &[f32],
        width: usize,
    ) -> Result<()> {
        let heads = self.heads;
        let pages = &mut self.pages[layer];
        if let Some((page, _)) = by_page.last().filter(|(page, _)| *page as usize >= pages.len()) {
            let (op, what) = ("project_qkv", "page");
            return Err(Error::Mismatch { op, what, expected: pages.len(), found: *page as usize });
        }
        let write = |(page, rows): (&mut Page, &[(usize, usize)])| {
            for &(row, slot) in rows {
                let kv = &projected[row * width + heads.q_dim()..(row + 1) * width];
                let (keys, values) = kv.split_at(heads.kv_dim());
                page.write(heads, slot, keys, values);
            }
        };
        if let [(page, rows)] = by_page {
            write((&mut pages[*page as usize], rows));
            return Ok(());
        }
        // two segments never share a page that one of them writes, so each page appears once and in order
        let mut wanted = by_page.iter().peekable();
        let targets: Vec<_> = pages
            .iter_mut()
            .enumerate()
            .filter_map(|(i, page)| {
                let (_, rows) = wanted.next_if(|(id, _)| *id as usize == i)?;
                Some((page, rows.as_slice()))
            })
            .collect();
        targets.into_par_iter().for_each(write);
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
