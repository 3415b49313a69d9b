//! Norms with sums in f64.

use crate::ops::Normalize;
use crate::reference::{Reference, Rows};
use crate::{Norm, Result};

/// A row behind a norm.
pub(crate) fn normed(x: &[f32], norm: Norm<'_, Reference>) -> Vec<f64> {
    let mean_of = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / x.len() as f64;
    let x = || x.iter().map(|&v| f64::from(v));
    match norm {
        Norm::Rms { weight, eps } => {
            let inverse = 1.0 / (mean_of(&mut x().map(|v| v * v)) + f64::from(eps)).sqrt();
            x().zip(weight).map(|(v, &w)| v * inverse * f64::from(w)).collect()
        }
        Norm::Layer { weight, bias, eps } => {
            let mean = mean_of(&mut x());
            let inverse = 1.0 / (mean_of(&mut x().map(|v| (v - mean).powi(2))) + f64::from(eps)).sqrt();
            let scaled = x().zip(weight).map(|(v, &w)| (v - mean) * inverse * f64::from(w));
            scaled.zip(bias).map(|(v, &b)| v + f64::from(b)).collect()
        }
    }
}

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
