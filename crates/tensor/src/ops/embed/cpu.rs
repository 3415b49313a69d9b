//! Embedding: rows widened from the table's type.

use crate::Result;
use crate::cpu::{Cpu, Matrix, Rows};
use crate::ops::Embed;

impl Embed for Cpu {
    fn embed(&mut self, table: &Matrix, scale: f32, out: &mut Rows) -> Result<()> {
        self.pass.embed(table.shape(), table.role, 0, out.shape())?;
        for (out, &token) in out.values.chunks_exact_mut(table.cols).zip(self.pass.batch.tokens()) {
            table.widen(token as usize, &mut self.row, out)?;
            if scale != 1.0 {
                out.iter_mut().for_each(|v| *v *= scale);
            }
        }
        Ok(())
    }
}
