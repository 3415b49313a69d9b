//! Attention: a task takes some rows of a sequence and the query heads of one key/value head.

mod kernel;
mod panels;

use crate::cpu::kernels::Output;
use crate::cpu::{Cache, Cpu, Rows};
use crate::ops::Attend;
use crate::{Batch, Mask, Result};
use kernel::Task;

impl Attend for Cpu {
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
        let heads = cache.heads();
        let group = heads.heads / heads.kv_heads;
        // rows of a task, which share each page of keys
        let rows = (32 / group).max(8);
        let output = Output::new(&mut out.values, out.dim);
        let batch = &self.pass.batch;
        let tasks: usize = batch.segments().iter().map(|s| s.rows.len().div_ceil(rows)).sum();
        let seen: usize = batch.segments().iter().map(|s| (s.position + s.rows.len()) * s.rows.len()).sum();
        self.parallel(2 * seen * heads.q_dim(), tasks * heads.kv_heads, |i| {
            let (mut block, kv) = (i / heads.kv_heads, i % heads.kv_heads);
            for segment in batch.segments() {
                let blocks = segment.rows.len().div_ceil(rows);
                if block >= blocks {
                    block -= blocks;
                    continue;
                }
                let first = segment.rows.start + block * rows;
                let pages = &batch.pages()[segment.pages.clone()];
                let task = Task {
                    q: &q.values,
                    width: q.dim,
                    rows: first..(first + rows).min(segment.rows.end),
                    position: segment.position + block * rows,
                    heads: kv * group..(kv + 1) * group,
                    head_dim: heads.head_dim,
                    panels: &|page| cache.panels(layer, pages[page], kv),
                    mask,
                    end: Batch::end(segment),
                    scale,
                };
                return kernel::attend(self.isa, &task, output);
            }
        });
        Ok(())
    }
}
