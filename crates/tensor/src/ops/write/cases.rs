//! Cases of rows from the host.

use crate::comparison::{Case, Comparison, Random, flat};
use crate::{Backend, Result, Role};

/// Rows between rows of a table.
pub(crate) fn compare<B: Backend>(comparison: &mut Comparison<'_, B>) -> Result<()> {
    for (rows, first, count, dim) in [(1, 0, 1, 9), (7, 2, 3, 37), (70, 69, 1, 64), (5, 0, 5, 1027), (4, 1, 0, 16)] {
        let case = format!("write rows {first} .. {} of [{rows}, {dim}]", first + count);
        comparison.case(case, &Written { rows, first, count, dim }, |_| 0.0)?;
    }
    Ok(())
}

struct Written {
    rows: usize,
    first: usize,
    count: usize,
    dim: usize,
}

impl Case for Written {
    fn run<B: Backend>(&self, b: &mut B) -> Result<Vec<f32>> {
        let Self { rows, first, count, dim } = *self;
        let mut random = Random(dim as u64);
        let table = b.matrix(&random.weight("table", crate::DType::F32, 3, dim, 2.0), Role::Embedding)?;
        let mut x = b.rows("x", rows + 1, dim)?;
        b.begin(&flat(&vec![2; rows], &[])?)?;
        b.embed(&table, 1.0, &mut x)?;
        b.write(&mut x, first, &random.vector(count * dim, 1.0))?;
        let mut out = vec![0.0; rows * dim];
        b.read(&x, &mut out)?;
        Ok(out)
    }
}
