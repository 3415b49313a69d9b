//! Values of a checkpoint for the tensors of a GGUF file.

use super::layout::Source;
use crate::table::TensorSpec;
use crate::{Checkpoint, QuantScheme, Result};
use phi3_tensor::{DType, Rounding, Weight};
use std::ops::Range;

/// The bytes of a tensor.
pub(super) fn data(checkpoint: &Checkpoint, scheme: QuantScheme, source: &Source) -> Result<Vec<u8>> {
    let floats = |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
    match source {
        Source::Factors(factors) => Ok(floats(factors)),
        Source::Norm { tensor, bias: false } => Ok(floats(&checkpoint.norm(tensor)?.0)),
        Source::Norm { tensor, bias: true } => Ok(floats(&checkpoint.norm(tensor)?.1.unwrap_or_default())),
        Source::Bias { tensor, rows } => {
            let weight = whole(checkpoint, tensor)?;
            let bias = weight.bias().unwrap_or_default();
            Ok(rows.iter().filter_map(|rows| bias.get(rows.clone())).flat_map(floats).collect())
        }
        Source::Rows { tensor, rows, of } => {
            let weight = only(checkpoint, tensor, rows)?;
            Ok(scheme.apply_to(&weight, tensor, checkpoint.spec(), *of, None)?.to_bytes())
        }
    }
}

/// The type of some rows of a matrix.
pub(super) fn stored(checkpoint: &Checkpoint, tensor: &TensorSpec, rows: &[Range<usize>]) -> Result<DType> {
    Ok(only(checkpoint, tensor, rows)?.dtype)
}

/// Rows of a matrix: from one part if it has all of them, else from the whole matrix.
fn only(checkpoint: &Checkpoint, tensor: &TensorSpec, rows: &[Range<usize>]) -> Result<Weight> {
    let mut first = 0;
    for part in checkpoint.matrices(tensor)? {
        let end = first + part.rows;
        if rows.iter().all(|rows| first <= rows.start && rows.end <= end) {
            let rows: Vec<_> = rows.iter().map(|rows| rows.start - first..rows.end - first).collect();
            return Ok(part.only(&rows)?);
        }
        first = end;
    }
    Ok(whole(checkpoint, tensor)?.only(rows)?)
}

/// A matrix in one part; several parts are converted to f32 and stacked.
fn whole(checkpoint: &Checkpoint, tensor: &TensorSpec) -> Result<Weight> {
    let parts = checkpoint.matrices(tensor)?;
    if let [weight] = &parts[..] {
        return Ok(weight.clone());
    }
    let widened = parts.iter().map(|part| part.requantized(DType::F32, Rounding::Fitted, None));
    let widened = widened.collect::<std::result::Result<Vec<_>, _>>()?;
    let bias: Vec<f32> = parts.iter().flat_map(|part| part.bias().unwrap_or_default()).copied().collect();
    let weight = Weight::stacked(&tensor.name, &widened)?;
    Ok(if tensor.bias { weight.with_bias(bias)? } else { weight })
}
