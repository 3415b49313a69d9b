//! Rows of the table, one by one.

use crate::Result;
use crate::ops::Embed;
use crate::reference::{Matrix, Reference, Rows};

impl Embed for Reference {
    fn embed(&mut self, table: &Matrix, scale: f32, out: &mut Rows) -> Result<()> {
        self.pass.embed(table.shape(), table.role, 0, out.shape())?;
        for (out, &token) in out.values.chunks_exact_mut(table.cols).zip(self.pass.batch.tokens()) {
            let row = &table.values[token as usize * table.cols..][..table.cols];
            out.iter_mut().zip(row).for_each(|(out, v)| *out = scale * v);
        }
        Ok(())
    }
}
