//! Write: a copy.

use crate::Result;
use crate::cpu::{Cpu, Rows};
use crate::ops::WriteRows;

impl WriteRows for Cpu {
    fn write(&mut self, x: &mut Rows, first: usize, values: &[f32]) -> Result<()> {
        self.pass.write(x.shape(), first, values.len())?;
        x.values[first * x.dim..][..values.len()].copy_from_slice(values);
        Ok(())
    }
}
