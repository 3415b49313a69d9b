//! OpenAI's requests and answers.

pub(crate) mod chat;
pub(crate) mod completion;
pub(crate) mod grammar;
pub(crate) mod logprobs;
pub(crate) mod messages;
pub(crate) mod sampling;

use phi3_runner::FinishReason;

/// Why an answer ended, in OpenAI's words.
pub(crate) fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::Interrupted => "abort",
    }
}

/// Name and version of the program in answers.
pub(crate) const FINGERPRINT: &str = concat!("phi3-run-", env!("CARGO_PKG_VERSION"));

/// A new id with a prefix.
pub(crate) fn new_id(prefix: &str) -> String {
    use std::hash::{BuildHasher, Hasher, RandomState};
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let [first, second] = [0, 1].map(|half| {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u64(number);
        hasher.write_u8(half);
        hasher.finish()
    });
    format!("{prefix}{first:016x}{second:016x}")
}
