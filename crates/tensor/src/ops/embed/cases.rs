//! Cases of embedding.

use crate::comparison::{Case, Comparison, Random, allowed, flat};
use crate::{Backend, DType, Result, Role};

/// Tables of every type, one row to many.
pub(crate) fn compare<B: Backend>(comparison: &mut Comparison<'_, B>) -> Result<()> {
    for dtype in comparison.dtypes.clone() {
        for (rows, dim) in [(1, 48usize), (1, 1027), (3, 96), (5, 131), (33, 65), (130, 40)] {
            // a quantized row is whole blocks
            let dim = dim.next_multiple_of(dtype.block().0);
            if dtype.is_quantized() && rows % 4 != 1 {
                continue;
            }
            let lookup = Lookup { dtype, rows, dim };
            comparison.case(format!("embed {dtype} [{rows}, {dim}]"), &lookup, |size| allowed(dim, size))?;
        }
    }
    Ok(())
}

struct Lookup {
    dtype: DType,
    rows: usize,
    dim: usize,
}

impl Case for Lookup {
    fn run<B: Backend>(&self, b: &mut B) -> Result<Vec<f32>> {
        let Self { dtype, rows, dim } = *self;
        let (mut random, vocab) = (Random(dim as u64), rows + 7);
        let table = b.matrix(&random.weight("table", dtype, vocab, dim, 2.0), Role::Plain)?;
        let mut x = b.rows("x", rows + 3, dim)?;
        let tokens: Vec<u32> = (0..rows).map(|_| (random.bits() % vocab as u64) as u32).collect();
        b.begin(&flat(&tokens, &[])?)?;
        b.embed(&table, 0.3, &mut x)?;
        let mut out = vec![0.0; rows * dim];
        b.read(&x, &mut out)?;
        Ok(out)
    }
}
