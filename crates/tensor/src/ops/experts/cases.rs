//! Cases of experts.

use crate::comparison::{Case, Comparison, Random, allowed, flat_as};
use crate::{Activation, Backend, DType, Epilogue, Phase, Result, Role, Router, TOP_EXPERTS};
use Phase::{Decode, Prompt};

/// Rows through their experts, one row to many, of sizes that no tile divides.
pub(crate) fn compare<B: Backend>(comparison: &mut Comparison<'_, B>) -> Result<()> {
    for dtype in comparison.dtypes.clone() {
        // quantizing weights takes long; they are reused for equal counts and sizes
        let cases: &[(Phase, usize, usize)] = if dtype.is_quantized() {
            &[(Decode, 1, 2), (Decode, 11, 2), (Prompt, 11, 2)]
        } else {
            &[(Decode, 1, 5), (Decode, 6, 3), (Decode, 9, 7), (Prompt, 9, 7), (Prompt, 75, 5)]
        };
        for &(phase, rows, count) in cases {
            let hidden = 50usize.next_multiple_of(dtype.block().0);
            let inner = if dtype.is_quantized() { dtype.block().0 } else { 35 };
            let case = format!("experts {dtype} {phase:?} {rows} rows to {count} experts, {hidden}, {inner}");
            let mixture = Mixture { dtype, phase, rows, count, hidden, inner };
            comparison.case(case, &mixture, |size| 4.0 * allowed(hidden + inner, size))?;
        }
    }
    Ok(())
}

struct Mixture {
    dtype: DType,
    phase: Phase,
    rows: usize,
    count: usize,
    hidden: usize,
    inner: usize,
}

impl Case for Mixture {
    fn run<B: Backend>(&self, b: &mut B) -> Result<Vec<f32>> {
        let Self { dtype, phase, rows, count, hidden, inner } = *self;
        let (mut random, vocab) = (Random(count as u64), 78);
        let table = b.matrix(&random.weight("table", DType::F32, vocab, hidden, 2.0), Role::Plain)?;
        // scores far enough apart that rounding changes no route
        let router = b.matrix(&random.weight("router", DType::F32, count, hidden, 2.0), Role::Plain)?;
        let up = random.weight("up", dtype, count * 2 * inner, hidden, 0.2);
        let up = b.matrix(&up, Role::Experts { count, gated: true })?;
        let down = random.weight("down", dtype, count * hidden, inner, 0.2);
        let down = b.matrix(&down, Role::Experts { count, gated: false })?;
        let mut x = b.rows("x", rows, hidden)?;
        let mut y = b.rows("y", rows, hidden)?;
        let mut scores = b.rows("scores", rows, count)?;
        let mut activated = b.rows("activated", TOP_EXPERTS * rows, inner)?;
        let mut routes = b.routes(rows, count)?;
        let tokens: Vec<u32> = (0..rows).map(|_| (random.bits() % vocab as u64) as u32).collect();
        b.begin(&flat_as(phase, &tokens, &[])?)?;
        b.embed(&table, 1.0, &mut x)?;
        b.embed(&table, 0.25, &mut y)?;
        b.project(&x, None, &router, Epilogue::OVERWRITE, &mut scores)?;
        b.route(&scores, Router::SparseMixer { jitter: 0.01 }, &mut routes)?;
        b.project_experts(&x, &up, Activation::SwiGlu, &routes, &mut activated)?;
        b.combine_experts(&activated, &down, &routes, &mut y)?;
        let mut out = vec![0.0; rows * hidden];
        b.read(&y, &mut out)?;
        Ok(out)
    }
}
