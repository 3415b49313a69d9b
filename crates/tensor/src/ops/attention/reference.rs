//! Attention: softmax in f64 over the positions that the mask allows.

use crate::ops::Attend;
use crate::reference::{Cache, Reference, Rows};
use crate::{Batch, Mask, PAGE, Result};

impl Attend for Reference {
    fn attention(
        &mut self,
        q: &Rows,
        cache: &Cache,
        layer: usize,
        mask: Mask,
        scale: f32,
        out: &mut Rows,
    ) -> Result<()> {
        self.pass.attention(q.shape(), (cache.shape(), layer), mask, out.shape())?;
        let heads = cache.heads;
        let (d, kv_dim) = (heads.head_dim, heads.kv_dim());
        for segment in self.pass.batch.segments() {
            let pages = &self.pass.batch.pages()[segment.pages.clone()];
            let at = |position: usize| (pages[position / PAGE] as usize * PAGE + position % PAGE) * kv_dim;
            for (i, r) in segment.rows.clone().enumerate() {
                let last = segment.position + i;
                for h in 0..heads.heads {
                    let kv = h * heads.kv_heads / heads.heads * d;
                    let q = &q.values[r * heads.q_dim() + h * d..][..d];
                    let dot = |k: &[f32]| q.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum::<f64>();
                    let seen: Vec<usize> = (0..Batch::end(segment)).filter(|&p| mask.sees(h, last, p)).collect();
                    let scores: Vec<f64> =
                        seen.iter().map(|&p| f64::from(scale) * dot(&cache.keys[layer][at(p) + kv..][..d])).collect();
                    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
                    let sum: f64 = weights.iter().sum();
                    for j in 0..d {
                        let v = |p: usize| f64::from(cache.values[layer][at(p) + kv + j]);
                        let y: f64 = weights.iter().zip(&seen).map(|(w, &p)| w * v(p)).sum();
                        out.values[r * heads.q_dim() + h * d + j] = (y / sum) as f32;
                    }
                }
            }
        }
        Ok(())
    }
}
