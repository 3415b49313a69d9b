//! Projection, rotation, and keys and values rounded to the type of the cache.

use crate::ops::ProjectQkv;
use crate::reference::{Cache, Matrix, Reference, Rows};
use crate::{KvType, Norm, PAGE, Result};

/// Rounds the keys or values of a head to the type of a cache; `block` is the index of the scale of a dimension.
fn round_to(kv: KvType, head: &mut [f32], block: impl Fn(usize) -> usize) {
    match kv {
        KvType::F32 => {}
        KvType::F16 => head.iter_mut().for_each(|v| *v = half::f16::from_f32(v.clamp(-65504.0, 65504.0)).to_f32()),
        KvType::Q8_0 => {
            let mut largest = vec![0.0f32; head.len().div_ceil(KvType::BLOCK)];
            for (i, v) in head.iter().enumerate() {
                largest[block(i)] = largest[block(i)].max(v.abs());
            }
            for (i, v) in head.iter_mut().enumerate() {
                let largest = largest[block(i)];
                let inverse = if largest > 1e-30 { 127.0 / largest } else { 0.0 };
                *v = (*v * inverse).round_ties_even() * (largest / 127.0);
            }
        }
    }
}

impl ProjectQkv for Reference {
    fn project_qkv(
        &mut self,
        x: &Rows,
        norm: Option<Norm<'_, Self>>,
        weights: &[&Matrix],
        q: &mut Rows,
        cache: &mut Cache,
        layer: usize,
    ) -> Result<()> {
        let target = (cache.shape(), layer);
        let norms = norm.into_iter().flat_map(Norm::vectors).map(Vec::len);
        self.pass.project_qkv(x.shape(), norms, weights.iter().map(|w| (w.shape(), w.role)), q.shape(), target)?;
        let heads = cache.heads;
        let parts: Vec<Vec<f64>> = weights.iter().map(|weight| self.product(x, norm, weight)).collect();
        let half = heads.rotary_dim / 2;
        let width = heads.qkv_dim();
        let mut y = Vec::with_capacity(self.pass.rows * width);
        for r in 0..self.pass.rows {
            for (part, weight) in parts.iter().zip(weights) {
                y.extend_from_slice(&part[r * weight.rows..][..weight.rows]);
            }
        }
        for (r, y) in y.chunks_exact_mut(width).enumerate() {
            let turn = &self.pass.batch.rope()[r * half * 2..][..half * 2];
            for head in y[..heads.q_dim() + heads.kv_dim()].chunks_exact_mut(heads.head_dim) {
                for i in 0..half {
                    let (cos, sin) = (f64::from(turn[2 * i]), f64::from(turn[2 * i + 1]));
                    let (a, b) = (head[i], head[half + i]);
                    head[i] = a * cos - b * sin;
                    head[half + i] = b * cos + a * sin;
                }
            }
        }
        let (q_dim, kv_dim) = (heads.q_dim(), heads.kv_dim());
        for segment in self.pass.batch.segments() {
            let pages = &self.pass.batch.pages()[segment.pages.clone()];
            for (i, r) in segment.rows.clone().enumerate() {
                let mut y: Vec<f32> = y[r * width..][..width].iter().map(|&v| v as f32).collect();
                let (keys, values) = y[q_dim..].split_at_mut(kv_dim);
                keys.chunks_exact_mut(heads.head_dim).for_each(|head| round_to(cache.kv, head, |i| heads.key_block(i)));
                values
                    .chunks_exact_mut(heads.head_dim)
                    .for_each(|head| round_to(cache.kv, head, |i| i / KvType::BLOCK));
                q.values[r * q_dim..][..q_dim].copy_from_slice(&y[..q_dim]);
                let position = segment.position + i;
                let at = (pages[position / PAGE] as usize * PAGE + position % PAGE) * kv_dim;
                cache.keys[layer][at..][..kv_dim].copy_from_slice(&y[q_dim..][..kv_dim]);
                cache.values[layer][at..][..kv_dim].copy_from_slice(&y[q_dim + kv_dim..]);
            }
        }
        Ok(())
    }
}
