//! Norms with sums in f64.

use crate::ops::Normalize;
use crate::reference::{Reference, Rows, normed};
use crate::{Norm, Result};

impl Normalize for Reference {
    fn norm(&mut self, x: &Rows, norm: Norm<'_, Self>, out: &mut Rows) -> Result<()> {
        self.pass.norm(x.shape(), norm.vectors().map(Vec::len), out.shape())?;
        for (x, out) in x.values.chunks_exact(x.dim).zip(out.values.chunks_exact_mut(x.dim)).take(self.pass.rows) {
            let y = normed(x, norm);
            out.iter_mut().zip(y).for_each(|(o, v)| *o = v as f32);
        }
        Ok(())
    }
}
