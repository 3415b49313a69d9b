//! Rows of the table, one by one.

use crate::Result;
use crate::ops::Embed;
use crate::ops::embed::row_of;
use crate::reference::{Matrix, Reference, Rows};

impl Embed for Reference {
    fn embed(&mut self, table: &Matrix, scale: f32, out: &mut Rows) -> Result<()> {
        self.pass.embed(table.shape(), table.role, self.sampled.len(), out.shape())?;
        for (out, &token) in out.values.chunks_exact_mut(table.cols).zip(self.pass.batch.tokens()) {
            let Some(row) = row_of(token, &self.sampled, table.shape()) else {
                out.fill(0.0);
                continue;
            };
            let row = &table.values[row * table.cols..][..table.cols];
            out.iter_mut().zip(row).for_each(|(out, v)| *out = scale * v);
        }
        Ok(())
    }
}
