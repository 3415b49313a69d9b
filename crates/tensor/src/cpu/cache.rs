//! The paged key/value cache of the CPU.

use super::activations::rounded;
use super::kernels::dispatch;
use super::memory::AlignedBuf;
use super::pool::Pool;
#[cfg(target_arch = "aarch64")]
use super::simd::Neon;
#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2, Avx512};
use super::simd::{Isa, Portable, Simd};
use crate::checks::CacheShape;
use crate::{Batch, Heads, KvType, PAGE, Result};
use half::f16;
use half::slice::HalfFloatSliceExt;
use std::ops::Range;
use std::sync::Mutex;

/// Keys and values: a page holds, per layer and key/value head, keys `[head_dim][PAGE]`, then values `[PAGE][head_dim]`, then
/// their scales, ordered alike: of keys `[blocks][PAGE]`, of values `[PAGE][blocks]`. Keys are transposed so that the scores of a
/// page are adjacent.
pub struct Cache {
    heads: Heads,
    kv: KvType,
    layers: usize,
    /// Runs of a key and of a value.
    runs: [Vec<Run>; 2],
    /// The scale of each dimension of a key at the first position of a page.
    first_scale: Vec<usize>,
    /// The memory of a page has all its layers, so that it fills huge pages.
    pages: Vec<AlignedBuf>,
}

/// Neighbouring dimensions of a head, at most [`KvType::BLOCK`], that share a scale where numbers have one.
struct Run {
    dims: Range<usize>,
    block: usize,
}

fn runs(head_dim: usize, block: impl Fn(usize) -> usize) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for i in 0..head_dim {
        match runs.last_mut() {
            Some(run) if run.block == block(i) && run.dims.len() < KvType::BLOCK => run.dims.end += 1,
            _ => runs.push(Run { dims: i..i + 1, block: block(i) }),
        }
    }
    runs
}

/// Keys `[head_dim][PAGE]` and values `[PAGE][head_dim]` of a head on a page, by type of cache.
pub(crate) enum Panels<'a> {
    F32 {
        keys: &'a [f32],
        values: &'a [f32],
    },
    F16 {
        keys: &'a [u16],
        values: &'a [u16],
    },
    /// Scales of keys `[blocks][PAGE]`, the first of a dimension's at `first_scale[dimension]`, and of values `[PAGE][blocks]`.
    Q8_0 {
        keys: &'a [i8],
        values: &'a [i8],
        key_scales: &'a [f32],
        value_scales: &'a [f32],
        first_scale: &'a [usize],
    },
}

/// Destination in the cache of the keys and values of a row of the pass.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Target {
    page: u32,
    slot: usize,
    row: usize,
}

/// The targets of a pass, by page.
pub(crate) fn targets(batch: &Batch, out: &mut Vec<Target>) {
    out.clear();
    for segment in batch.segments() {
        let pages = &batch.pages()[segment.pages.clone()];
        for (position, row) in (segment.position..).zip(segment.rows.clone()) {
            out.push(Target { page: pages[position / PAGE], slot: position % PAGE, row });
        }
    }
    out.sort_unstable();
}

impl Cache {
    pub(crate) fn new(layers: usize, heads: Heads, kv: KvType) -> Self {
        let runs = [runs(heads.head_dim, |i| heads.key_block(i)), runs(heads.head_dim, |i| i / KvType::BLOCK)];
        let first_scale = (0..heads.head_dim).map(|i| heads.key_block(i) * PAGE).collect();
        Self { heads, kv, layers, runs, first_scale, pages: Vec::new() }
    }

    pub(crate) fn shape(&self) -> CacheShape {
        CacheShape { heads: self.heads, layers: self.layers, pages: self.pages.len() }
    }

    pub(crate) fn heads(&self) -> Heads {
        self.heads
    }

    pub(crate) fn page_bytes(&self) -> u64 {
        (self.layers * self.layer_bytes()) as u64
    }

    /// Bytes of a layer on a page.
    fn layer_bytes(&self) -> usize {
        self.heads.kv_heads * head_bytes(self.heads.head_dim, self.kv)
    }

    pub(crate) fn reserve(&mut self, pages: usize) -> Result<()> {
        let bytes = usize::try_from(self.page_bytes()).unwrap_or(usize::MAX);
        while self.pages.len() < pages {
            self.pages.push(AlignedBuf::new(bytes, || "a page of the key/value cache".into())?);
        }
        Ok(())
    }

    /// Copies pages, each pair from the first to the second. The cache has them.
    pub(crate) fn copy_pages(&mut self, pairs: &[(u32, u32)]) {
        for (from, to) in pairs.iter().map(|&(from, to)| (from as usize, to as usize)) {
            if let Ok([from, to]) = self.pages.get_disjoint_mut([from, to]) {
                to.bytes_mut().copy_from_slice(from.bytes());
            }
        }
    }

    /// Keys and values of head `kv` on a page.
    pub(crate) fn panels(&self, layer: usize, page: u32, kv: usize) -> Panels<'_> {
        let (d, bytes) = (self.heads.head_dim, head_bytes(self.heads.head_dim, self.kv));
        let head = &self.pages[page as usize].bytes()[layer * self.layer_bytes() + kv * bytes..][..bytes];
        match self.kv {
            KvType::F32 => {
                let (keys, values) = bytemuck::cast_slice(head).split_at(PAGE * d);
                Panels::F32 { keys, values }
            }
            KvType::F16 => {
                let (keys, values) = bytemuck::cast_slice(head).split_at(PAGE * d);
                Panels::F16 { keys, values }
            }
            KvType::Q8_0 => {
                let (levels, scales) = head.split_at(2 * PAGE * d);
                let (keys, values) = bytemuck::cast_slice(levels).split_at(PAGE * d);
                let scales: &[f32] = bytemuck::cast_slice(scales);
                let (key_scales, value_scales) = scales.split_at(scales.len() / 2);
                Panels::Q8_0 { keys, values, key_scales, value_scales, first_scale: &self.first_scale }
            }
        }
    }

    /// Writes the keys and values of a pass; `projected` has rows of queries, keys, values.
    pub(crate) fn append(&mut self, isa: Isa, layer: usize, targets: &[Target], projected: &[f32], pool: &Pool) {
        let (heads, kv, runs, bytes) = (self.heads, self.kv, &self.runs, self.layer_bytes());
        let (Some(first), Some(last)) = (targets.first(), targets.last()) else { return };
        let of_layer = layer * bytes..(layer + 1) * bytes;
        let write = |page: &mut [u8], targets: &[Target]| {
            // SAFETY: the ISA is available; plain loops over checked slices.
            unsafe { write_page(isa, page, kv, heads, runs, targets, projected) }
        };
        if first.page == last.page {
            return write(&mut self.pages[first.page as usize].bytes_mut()[of_layer], targets);
        }
        let mut wanted = targets.chunk_by(|a, b| a.page == b.page).peekable();
        let pages = self.pages.iter_mut().enumerate();
        let shares: Vec<_> = pages
            .filter_map(|(i, page)| {
                let targets = wanted.next_if(|targets| targets[0].page as usize == i)?;
                Some(Mutex::new((&mut page.bytes_mut()[of_layer.clone()], targets)))
            })
            .collect();
        pool.run(shares.len(), &|i| {
            // each task has its own lock, which only hands over the page
            if let Ok(mut share) = shares[i].lock() {
                let (page, targets) = &mut *share;
                write(page, targets);
            }
        });
    }
}

/// Bytes of a head of a layer on a page.
fn head_bytes(head_dim: usize, kv: KvType) -> usize {
    let panel = PAGE * head_dim;
    match kv {
        KvType::F32 => 8 * panel,
        KvType::F16 => 4 * panel,
        KvType::Q8_0 => 2 * panel + 8 * PAGE * head_dim.div_ceil(KvType::BLOCK),
    }
}

dispatch!(write_page = write_generic(
    page: &mut [u8],
    kv: KvType,
    heads: Heads,
    runs: &[Vec<Run>; 2],
    targets: &[Target],
    projected: &[f32]
));

/// Writes keys and values of a page's rows, head by head: a panel of keys is as many cache lines as a head is wide.
#[inline(always)]
unsafe fn write_generic<S: Simd>(
    page: &mut [u8],
    kv: KvType,
    heads: Heads,
    [key_runs, value_runs]: &[Vec<Run>; 2],
    targets: &[Target],
    projected: &[f32],
) {
    let d = heads.head_dim;
    let blocks = d.div_ceil(KvType::BLOCK);
    for (head, panels) in page.chunks_exact_mut(head_bytes(d, kv)).enumerate() {
        for target in targets {
            let slot = target.slot;
            let row = &projected[target.row * heads.qkv_dim()..][heads.q_dim()..heads.qkv_dim()];
            let (key, value) = (&row[head * d..][..d], &row[heads.kv_dim() + head * d..][..d]);
            match kv {
                KvType::F32 => {
                    let (keys, values) = bytemuck::cast_slice_mut(panels).split_at_mut(PAGE * d);
                    spread(keys, slot, key);
                    values[slot * d..][..d].copy_from_slice(value);
                }
                KvType::F16 => {
                    let (keys, values) = bytemuck::cast_slice_mut(panels).split_at_mut(PAGE * d);
                    for Run { dims, .. } in key_runs {
                        let halves = halves(&key[dims.clone()]);
                        spread(&mut keys[dims.start * PAGE..], slot, &halves[..dims.len()]);
                    }
                    for Run { dims, .. } in value_runs {
                        let halves = halves(&value[dims.clone()]);
                        values[slot * d..][dims.clone()].copy_from_slice(&halves[..dims.len()]);
                    }
                }
                KvType::Q8_0 => {
                    let (levels, scales) = panels.split_at_mut(2 * PAGE * d);
                    let (keys, values) = bytemuck::cast_slice_mut(levels).split_at_mut(PAGE * d);
                    let scales: &mut [f32] = bytemuck::cast_slice_mut(scales);
                    let (key_scales, value_scales) = scales.split_at_mut(PAGE * blocks);
                    quantize(
                        key_runs,
                        key,
                        key_scales,
                        |block| block * PAGE + slot,
                        |dims, levels| {
                            spread(&mut keys[dims.start * PAGE..], slot, levels);
                        },
                    );
                    quantize(
                        value_runs,
                        value,
                        value_scales,
                        |block| slot * blocks + block,
                        |dims, levels| {
                            values[slot * d..][dims].copy_from_slice(levels);
                        },
                    );
                }
            }
        }
    }
}

/// Writes a key, or some of its dimensions, at position `slot` of keys `[dims][PAGE]`.
#[inline(always)]
fn spread<T: Copy>(keys: &mut [T], slot: usize, key: &[T]) {
    for (to, key) in keys[slot..].iter_mut().step_by(PAGE).zip(key) {
        *to = *key;
    }
}

/// A run in half precision; larger numbers become the largest half.
#[inline(always)]
fn halves(run: &[f32]) -> [u16; KvType::BLOCK] {
    let mut bounded = [0.0; KvType::BLOCK];
    for (to, v) in bounded.iter_mut().zip(run) {
        *to = v.clamp(-65504.0, 65504.0);
    }
    let mut halves = [f16::ZERO; KvType::BLOCK];
    halves.convert_from_f32_slice(&bounded);
    halves.map(f16::to_bits)
}

/// Quantizes a head's runs: a block's scale is stored at `index` of it, levels by `put`.
#[inline(always)]
fn quantize(
    runs: &[Run],
    x: &[f32],
    scales: &mut [f32],
    index: impl Fn(usize) -> usize,
    mut put: impl FnMut(Range<usize>, &[i8]),
) {
    for run in runs {
        scales[index(run.block)] = 0.0;
    }
    for run in runs {
        // magnitudes have the order of their bits, and a NaN is the largest
        let scale = &mut scales[index(run.block)];
        let mut largest = scale.to_bits();
        for v in &x[run.dims.clone()] {
            largest = largest.max((v.abs() / 127.0).to_bits());
        }
        *scale = f32::from_bits(largest);
    }
    for run in runs {
        let scale = scales[index(run.block)];
        // the inverse of a smaller scale may be infinite
        let inverse = if scale > 1e-32 { 1.0 / scale } else { 0.0 };
        let mut levels = [0i8; KvType::BLOCK];
        for (level, v) in levels.iter_mut().zip(&x[run.dims.clone()]) {
            *level = rounded(v * inverse) as i8;
        }
        put(run.dims.clone(), &levels[..run.dims.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_share_a_block_share_a_scale_and_a_nan_is_not_lost() {
        // dimensions i and 20 + i are a rotated pair; block 1 begins with pair 16
        let heads = Heads { heads: 1, kv_heads: 1, head_dim: 40, rotary_dim: 40 };
        let runs = runs(40, |i| heads.key_block(i));
        let found: Vec<_> = runs.iter().map(|run| (run.dims.clone(), run.block)).collect();
        assert_eq!(found, [(0..16, 0), (16..20, 1), (20..36, 0), (36..40, 1)]);
        let mut key: Vec<f32> = (0..40).map(|i| i as f32 - 20.0).collect();
        let quantized = |key: &[f32]| {
            let (mut scales, mut all) = ([9.0; 2], [0i8; 40]);
            quantize(&runs, key, &mut scales, |block| block, |dims, levels| all[dims].copy_from_slice(levels));
            (scales, all)
        };
        let (scales, levels) = quantized(&key);
        assert_eq!(scales, [20.0 / 127.0, 19.0 / 127.0]);
        for (i, &v) in key.iter().enumerate() {
            let scale = scales[heads.key_block(i)];
            assert!((f32::from(levels[i]) * scale - v).abs() <= 0.501 * scale, "dimension {i}");
        }
        key[3] = f32::NAN;
        let (scales, _) = quantized(&key);
        assert!(scales[0].is_nan() && scales[1].is_finite());
    }

    #[test]
    fn halves_end_at_the_largest() {
        let halves = halves(&[1.0, -1e9, f32::INFINITY]).map(|half| f16::from_bits(half).to_f32());
        assert_eq!(halves[..3], [1.0, -65504.0, 65504.0]);
    }
}
