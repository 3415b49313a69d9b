//! Attention: a task takes some rows of a sequence and the query heads of one key/value head, over all positions or over a chunk.

mod kernel;
mod panels;
mod products;
mod sums;

use crate::cpu::kernels::Output;
use crate::cpu::{Cache, Cpu, Rows};
use crate::ops::Attend;
use crate::{Batch, Mask, Result};
use kernel::Task;

/// Tasks of a thread below which the positions are split.
const TASKS: usize = 4;

/// Most numbers that the sums of chunks take: 16 MiB.
const MOST_SUMS: usize = 4 << 20;

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
        let all: usize = self.pass.batch.segments().iter().map(|segment| segment.rows.len()).sum();
        let are_enough = |rows: &usize| all / rows * heads.kv_heads >= TASKS * self.pool.threads();
        let rows = [64 / group, 32 / group].map(|rows| rows.max(8));
        let rows = rows.into_iter().find(are_enough).unwrap_or(rows[1]);
        let output = Output::new(&mut out.values, out.dim);
        let batch = &self.pass.batch;
        let task = |(segment, block): (usize, usize), kv_head: usize| {
            let segment = &batch.segments()[segment];
            let first = segment.rows.start + block * rows;
            Task {
                q: &q.values,
                width: q.dim,
                rows: first..(first + rows).min(segment.rows.end),
                position: segment.position + block * rows,
                heads: kv_head * group..(kv_head + 1) * group,
                head_dim: heads.head_dim,
                cache,
                layer,
                pages: &batch.pages()[segment.pages.clone()],
                kv_head,
                mask,
                end: Batch::end(segment),
                scale,
            }
        };
        // blocks of rows
        let blocks = || {
            let blocks = batch.segments().iter().map(|segment| segment.rows.len().div_ceil(rows)).enumerate();
            blocks.flat_map(|(segment, blocks)| (0..blocks).map(move |block| (segment, block)))
        };
        let seen: usize = batch.segments().iter().map(|s| (s.position + s.rows.len()) * s.rows.len()).sum();
        let (work, whole) = (2 * seen * heads.q_dim(), blocks().count() * heads.kv_heads);
        // parts of the tasks: the chunks of a task are neighbours
        let chunks = |block| task(block, 0).chunks();
        let parts = blocks().map(|block| chunks(block).len()).sum::<usize>() * heads.kv_heads;
        let width = blocks().map(|block| task(block, 0).sums_len()).max().unwrap_or(0);
        let enough = whole >= TASKS * self.pool.threads() || self.pool.threads() == 1;
        if enough || parts == whole || parts.saturating_mul(width) > MOST_SUMS {
            self.parallel(work, whole, |i| {
                let block = blocks().nth(i / heads.kv_heads);
                block.into_iter().for_each(|at| kernel::attend(self.isa, &task(at, i % heads.kv_heads), output));
            });
            return Ok(());
        }

        let part = |mut i: usize| {
            for block in blocks() {
                let chunks = chunks(block);
                if i < chunks.len() * heads.kv_heads {
                    return Some((task(block, i / chunks.len()), chunks.start + i % chunks.len()));
                }
                i -= chunks.len() * heads.kv_heads;
            }
            None
        };
        let mut partials = std::mem::take(&mut self.partials);
        partials.resize(partials.len().max(parts * width), 0.0);
        let sums = Output::new(&mut partials, width);
        self.parallel(work, parts, |i| {
            let Some((task, chunk)) = part(i) else { return };
            // SAFETY: this part alone uses row i.
            let numbers = unsafe { sums.slice(i, 0..task.sums_len()) };
            kernel::attend_chunk(self.isa, &task, chunk, numbers);
        });
        self.parallel(parts * width, parts, |i| {
            let Some((task, chunk)) = part(i) else { return };
            let chunks = task.chunks();
            if chunk == chunks.start {
                // SAFETY: the first part of a task alone uses the rows of all its parts.
                let sums = (i..i + chunks.len()).map(|i| unsafe { sums.slice(i, 0..task.sums_len()) });
                kernel::combine(self.isa, &task, sums, output);
            }
        });
        self.partials = partials;
        Ok(())
    }
}
