//! Embedding: rows widened from the table's type.

use crate::Result;
use crate::cpu::{Cpu, Matrix, Rows};
use crate::ops::Embed;
use crate::ops::embed::row_of;

impl Embed for Cpu {
    fn embed(&mut self, table: &Matrix, scale: f32, out: &mut Rows) -> Result<()> {
        self.pass.embed(table.shape(), table.role, self.sampled.len(), out.shape())?;
        for (out, &token) in out.values.chunks_exact_mut(table.cols).zip(self.pass.batch.tokens()) {
            let Some(row) = row_of(token, &self.sampled, table.shape()) else {
                out.fill(0.0);
                continue;
            };
            table.widen(row, &mut self.row, out)?;
            if scale != 1.0 {
                out.iter_mut().for_each(|v| *v *= scale);
            }
        }
        Ok(())
    }
}
