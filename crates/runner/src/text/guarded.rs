//! Calls of the tokenizers library on unchecked data.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// A call of the library; a panic becomes its error.
pub(super) fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> std::result::Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the tokenizers library gave up on it".into()),
    }
}
