//! Cases of the projection to queries, keys and values. Attention follows, because the order of the queries depends on the
//! backend.

use crate::comparison::{Comparison, allowed};
use crate::ops::attention::cases::{HEADS, Plan};
use crate::{Backend, DType, KvType, Mask, Result};

/// Ragged batches, chunks, decoded tokens, grouped heads, partial rotation and windows, by type of weight. The types alternate
/// with the heads.
pub(crate) fn compare<B: Backend>(comparison: &mut Comparison<'_, B>) -> Result<()> {
    for dtype in comparison.dtypes.clone() {
        let turn = DType::ALL.iter().position(|&other| other == dtype).unwrap_or(0);
        for (_, heads) in HEADS.into_iter().enumerate().filter(|(i, _)| i % 3 == turn % 3) {
            for mask in [Mask::Causal, Mask::Window(1), Mask::Window(15), Mask::Window(33), Mask::Full] {
                for chunk in [usize::MAX, 7] {
                    if dtype.is_quantized() && (mask, chunk) != (Mask::Causal, 7) {
                        continue;
                    }
                    let plan = Plan { dtype, heads, kv: KvType::F32, mask, chunk };
                    let case = format!("queries, keys and values {dtype} {heads:?} {mask:?} chunk {chunk}");
                    // the error of softmax is that of the scores, which grows with the head dimension
                    comparison.case(case, &plan, |size| 4.0 * allowed(heads.head_dim + 77, size))?;
                }
            }
        }
    }
    Ok(())
}
