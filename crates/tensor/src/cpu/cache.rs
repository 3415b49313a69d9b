//! The paged key/value cache of the CPU.

use super::zeros;
use crate::{Batch, Error, Heads, PAGE, Result};
use rayon::prelude::*;

/// Keys and values: a page of a layer holds, per key/value head, keys `[head_dim][PAGE]`, then values
/// `[PAGE][head_dim]`. Keys lie across the positions so that the scores of a page come out side by side.
pub struct Cache {
    heads: Heads,
    /// `[layer][page]`
    pages: Vec<Vec<Box<[f32]>>>,
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
    pub(super) fn new(layers: usize, heads: Heads) -> Self {
        Self { heads, pages: vec![Vec::new(); layers] }
    }

    pub(super) fn heads(&self) -> Heads {
        self.heads
    }

    fn panel(&self) -> usize {
        PAGE * self.heads.head_dim
    }

    pub(super) fn page_bytes(&self) -> u64 {
        (self.pages.len() * self.heads.kv_heads * 2 * self.panel() * 4) as u64
    }

    pub(super) fn reserve(&mut self, device: &str, pages: usize) -> Result<()> {
        let len = self.heads.kv_heads * 2 * self.panel();
        for layer in &mut self.pages {
            while layer.len() < pages {
                layer.push(zeros(device, "a page of the key/value cache", len)?.into_boxed_slice());
            }
        }
        Ok(())
    }

    /// Keys and values of head `kv` on a page.
    pub(super) fn panels(&self, layer: usize, page: u32, kv: usize) -> (&[f32], &[f32]) {
        let panel = self.panel();
        self.pages[layer][page as usize][2 * kv * panel..][..2 * panel].split_at(panel)
    }

    /// Writes the keys and values of a pass; `projected` has rows of queries, keys, values.
    pub(super) fn append(
        &mut self,
        layer: usize,
        by_page: &[(u32, Vec<(usize, usize)>)],
        projected: &[f32],
        width: usize,
    ) -> Result<()> {
        let (heads, panel) = (self.heads, self.panel());
        let d = heads.head_dim;
        let pages = &mut self.pages[layer];
        if let Some((page, _)) = by_page.last().filter(|(page, _)| *page as usize >= pages.len()) {
            let (op, what) = ("project_qkv", "page");
            return Err(Error::Mismatch { op, what, expected: pages.len(), found: *page as usize });
        }
        let write = |(page, rows): (&mut Box<[f32]>, &[(usize, usize)])| {
            for &(row, slot) in rows {
                let kv = &projected[row * width + heads.q_dim()..(row + 1) * width];
                let (k, v) = kv.split_at(heads.kv_dim());
                for ((panels, k), v) in page.chunks_exact_mut(2 * panel).zip(k.chunks_exact(d)).zip(v.chunks_exact(d)) {
                    let (keys, values) = panels.split_at_mut(panel);
                    keys[slot..].iter_mut().step_by(PAGE).zip(k).for_each(|(to, &k)| *to = k);
                    values[slot * d..][..d].copy_from_slice(v);
                }
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
