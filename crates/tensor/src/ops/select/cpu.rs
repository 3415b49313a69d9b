//! Select: a copy of each row.

use crate::Result;
use crate::cpu::{Cpu, Rows};
use crate::ops::SelectRows;

impl SelectRows for Cpu {
    fn select(&mut self, x: &Rows, first: usize, count: usize, out: &mut Rows) -> Result<()> {
        self.pass.select(x.shape(), first, count, out.shape())?;
        for (i, &row) in self.pass.batch.outputs()[first..first + count].iter().enumerate() {
            out.values[i * x.dim..][..x.dim].copy_from_slice(&x.values[row as usize * x.dim..][..x.dim]);
        }
        Ok(())
    }
}
