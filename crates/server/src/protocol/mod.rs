//! OpenAI's requests and answers.

pub(crate) mod chat;
pub(crate) mod completion;
pub(crate) mod grammar;
pub(crate) mod logprobs;
pub(crate) mod messages;
pub(crate) mod sampling;

use crate::state::unix_time;
use phi3_runner::FinishReason;
use serde_json::{Map, Value, json};

/// Why an answer ended, in OpenAI's words.
pub(crate) fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::Interrupted => "abort",
    }
}

/// Fields of a whole answer, and of every chunk of a stream.
struct Head {
    id: String,
    created: u64,
    model: String,
}

impl Head {
    fn new(prefix: &str, model: &str) -> Self {
        Self { id: new_id(prefix), created: unix_time(), model: model.to_owned() }
    }

    fn object(&self, object: &str, choices: Vec<Value>) -> Map<String, Value> {
        let fields = [
            ("id", json!(self.id)),
            ("object", json!(object)),
            ("created", json!(self.created)),
            ("model", json!(self.model)),
            ("system_fingerprint", json!(FINGERPRINT)),
            ("choices", Value::Array(choices)),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// Name and version of the program in answers.
const FINGERPRINT: &str = concat!("phi3-run-", env!("CARGO_PKG_VERSION"));

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
