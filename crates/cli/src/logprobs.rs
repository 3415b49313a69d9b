//! `--logprobs`: log-probabilities of an answer's tokens.

use crate::output::note;
use phi3_runner::Engine;
use phi3_runner::text::TokenTable;
use phi3_tensor::Logprobs;
use serde_json::{Value, json};

/// New tokens of an answer with their log-probabilities.
pub(super) type TokenLogprobs = [(u32, Logprobs)];

/// Prints the log-probabilities of an answer to standard error: a line for each token. Without any, nothing is printed.
pub(super) fn print(engine: &Engine, tokens: &TokenLogprobs) {
    if tokens.is_empty() {
        return;
    }
    let names = Names::of(engine);
    for (id, logprobs) in tokens {
        let top: String =
            logprobs.top.iter().map(|(id, logprob)| format!("  {} {logprob:.4}", names.quoted(*id))).collect();
        let top = if top.is_empty() { top } else { format!("   of{top}") };
        note(&format!("logprob  {:9.4}  {}{top}", logprobs.token, names.quoted(*id)));
    }
}

/// The log-probabilities as llama.cpp's server names them.
pub(super) fn json(engine: &Engine, tokens: &TokenLogprobs) -> Value {
    let names = Names::of(engine);
    let entry = |id: u32, logprob: f32| {
        let bytes = names.bytes(id);
        let text = bytes.map(String::from_utf8_lossy);
        json!({ "id": id, "token": text, "bytes": bytes, "logprob": logprob })
    };
    let token = |(id, logprobs): &(u32, Logprobs)| {
        let mut object = entry(*id, logprobs.token);
        object["top_logprobs"] = logprobs.top.iter().map(|(id, logprob)| entry(*id, *logprob)).collect();
        object
    };
    tokens.iter().map(token).collect()
}

/// Texts of single tokens; none for a model without a tokenizer, or where a token has no text of its own.
struct Names(Option<TokenTable>);

impl Names {
    fn of(engine: &Engine) -> Self {
        Self(engine.tokenizer().ok().and_then(|tokenizer| tokenizer.token_table().ok()))
    }

    fn bytes(&self, id: u32) -> Option<&[u8]> {
        self.0.as_ref()?.bytes(id)
    }

    /// A token's text in quotation marks, with escapes; its id where it has no text.
    fn quoted(&self, id: u32) -> String {
        self.bytes(id).map_or_else(|| id.to_string(), |bytes| format!("{:?}", String::from_utf8_lossy(bytes)))
    }
}
