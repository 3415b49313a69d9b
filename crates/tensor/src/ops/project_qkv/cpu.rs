//! Projection to queries, keys and values: the products, the rotation, and the cache.

use crate::cpu::kernels::{self, Output};
use crate::cpu::project::Shares;
use crate::cpu::{Cache, Cpu, Matrix, Rows, zeros};
use crate::ops::ProjectQkv;
use crate::{Epilogue, Heads, Norm, Result};

impl ProjectQkv for Cpu {
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
        let heads = cache.heads();
        let width = heads.qkv_dim();
        let mut projected = std::mem::take(&mut self.projected);
        if projected.len() < self.pass.rows * width {
            projected = zeros(&self.info.name, "queries, keys and values", self.pass.rows * width)?;
        }
        let mut first = 0;
        for weight in weights {
            let mut run = 0;
            while let Some((phase, rows)) = self.run(weight, run) {
                run += 1;
                let out = Output::new(&mut projected[rows.start * width + first..], width);
                self.product(x.input_of(rows), phase, norm, weight, Epilogue::OVERWRITE, weight.rows, out)?;
            }
            first += weight.rows;
        }
        self.projected = projected;
        self.rotate(heads, q);
        cache.append(self.isa, layer, &self.targets, &self.projected, &self.pool);
        Ok(())
    }
}

impl Cpu {
    /// Rotates the queries and keys in `projected`, and copies the queries to `q`.
    fn rotate(&mut self, heads: Heads, q: &mut Rows) {
        let (width, q_dim, turn) = (heads.qkv_dim(), heads.q_dim(), heads.rotary_dim / 2 * 2);
        let mut projected = std::mem::take(&mut self.projected);
        let (rows, queries) = (Shares::new(&mut projected, width), Shares::new(&mut q.values, q_dim));
        self.parallel(self.pass.rows * width * 8, self.pass.rows, |row| {
            // SAFETY: each task takes its own row, so no other reference to it exists.
            let (y, q) = unsafe { (rows.take(row), queries.take(row)) };
            let turned = &mut y[..q_dim + heads.kv_dim()];
            kernels::rotate(self.isa, turned, heads.head_dim, &self.pass.batch.rope()[row * turn..][..turn]);
            q.copy_from_slice(&y[..q_dim]);
        });
        self.projected = projected;
    }
}
