//! Cases of every operation, and the comparison of a backend with the [reference](crate::reference).
//!
//! A backend's test is one call of [`run`]. The cases are in the `cases.rs` of each module of [`ops`]. No two sizes of a case
//! are equal, and every operation has sizes that are no multiple of any vector, tile or page.

use crate::comparison::Comparison;
use crate::{Backend, DType, Result, ops};

pub use crate::comparison::{Outcome, Random, kv_step};

/// Runs every case on a backend and on the reference, except those of the types in `without`, for which the backend has no
/// kernels.
///
/// # Errors
///
/// Those of the operations.
pub fn run<B: Backend>(machine: &mut B, without: &[DType]) -> Result<Vec<Outcome>> {
    let dtypes = DType::ALL.into_iter().filter(|dtype| !without.contains(dtype)).collect();
    let mut comparison = Comparison::new(machine, dtypes);
    ops::compare(&mut comparison)?;
    Ok(comparison.outcomes())
}
