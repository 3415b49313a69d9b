//! Cases of selected rows.

use crate::comparison::{Case, Comparison, Random, flat};
use crate::{Backend, Result};

/// Outputs of a pass, all at once and in slices.
pub(crate) fn compare<B: Backend>(comparison: &mut Comparison<'_, B>) -> Result<()> {
    for (rows, first, count, dim) in [(1, 0, 1, 9), (7, 0, 5, 37), (70, 11, 13, 65), (4, 1, 0, 16)] {
        let case = format!("select outputs {first} .. {} of [{rows}, {dim}]", first + count);
        comparison.case(case, &Selected { rows, first, count, dim }, |_| 0.0)?;
    }
    Ok(())
}

struct Selected {
    rows: usize,
    first: usize,
    count: usize,
    dim: usize,
}

impl Case for Selected {
    fn run<B: Backend>(&self, b: &mut B) -> Result<Vec<f32>> {
        let Self { rows, first, count, dim } = *self;
        let outputs: Vec<u32> = (0..rows as u32).filter(|row| row % 3 != 1).collect();
        let (mut x, mut y) = (b.rows("x", rows + 3, dim)?, b.rows("y", count + 1, dim)?);
        b.begin(&flat(&vec![0; rows], &outputs)?)?;
        b.write(&mut x, 0, &Random(dim as u64).vector(rows * dim, 2.0))?;
        b.select(&x, first, count, &mut y)?;
        let mut out = vec![0.0; count * dim];
        b.read(&y, &mut out)?;
        Ok(out)
    }
}
