//! Calls of the tokenizers library on unchecked data.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Calls the library; a panic is returned as an error.
pub(super) fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> std::result::Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the tokenizers library failed without a reason".into()),
    }
}
