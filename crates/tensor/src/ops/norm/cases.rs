//! Cases of norms.

use crate::comparison::{Case, Comparison, Random, allowed, flat};
use crate::{Backend, Norm, Result};

/// Both norms, one row to many. Rows have an offset, because a mean of zero hides faults of LayerNorm.
pub(crate) fn compare<B: Backend>(comparison: &mut Comparison<'_, B>) -> Result<()> {
    for (rows, dim) in [(1, 48), (1, 1027), (3, 96), (5, 131), (33, 65), (130, 40)] {
        for layer in [false, true] {
            let case = format!("norm [{rows}, {dim}] {}", if layer { "LayerNorm" } else { "RMSNorm" });
            comparison.case(case, &Normed { rows, dim, layer }, |size| allowed(dim, size))?;
        }
    }
    Ok(())
}

struct Normed {
    rows: usize,
    dim: usize,
    layer: bool,
}

impl Case for Normed {
    fn run<B: Backend>(&self, b: &mut B) -> Result<Vec<f32>> {
        let Self { rows, dim, layer } = *self;
        let mut random = Random(dim as u64);
        let weight = b.vector("weight", &random.vector(dim, 1.5))?;
        let bias = b.vector("bias", &random.vector(dim, 0.7))?;
        let (mut x, mut y) = (b.rows("x", rows + 3, dim)?, b.rows("y", rows + 2, dim)?);
        let values: Vec<f32> = random.vector(rows * dim, 2.0).iter().map(|value| value + 0.8).collect();
        b.begin(&flat(&vec![0; rows], &[])?)?;
        b.write(&mut x, 0, &values)?;
        let norm = match layer {
            true => Norm::Layer { weight: &weight, bias: &bias, eps: 3e-3 },
            false => Norm::Rms { weight: &weight, eps: 3e-3 },
        };
        b.norm(&x, norm, &mut y)?;
        let mut out = vec![0.0; rows * dim];
        b.read(&y, &mut out)?;
        Ok(out)
    }
}
