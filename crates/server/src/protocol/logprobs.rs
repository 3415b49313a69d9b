//! Log-probabilities in answers.

use crate::answers::ScoredToken;
use crate::token_texts::{TokenTexts, characters};
use phi3_tensor::Logprobs;
use serde_json::{Map, Value, json};

/// JSON has no infinity: the smallest number in answers, as in those of OpenAI and vLLM.
const LEAST: f32 = -9999.0;

/// The form of chats: `choices[].logprobs`.
pub(crate) fn of_chat(tokens: &[ScoredToken], texts: &TokenTexts) -> Value {
    let one = |id: u32, logprob: f32| {
        let bytes = texts.bytes(id);
        let mut fields = Map::new();
        fields.insert("token".into(), texts.text(id).into());
        fields.insert("logprob".into(), number(logprob));
        fields.insert("bytes".into(), bytes.into());
        fields
    };
    let content = tokens.iter().map(|token| {
        let mut entry = one(token.id, token.logprobs.token);
        let top = token.logprobs.top.iter().map(|&(id, logprob)| Value::Object(one(id, logprob)));
        entry.insert("top_logprobs".into(), top.collect());
        Value::Object(entry)
    });
    json!({"content": content.collect::<Vec<_>>(), "refusal": null})
}

/// The form of completions: parallel arrays.
#[derive(Default)]
pub(crate) struct OfCompletion {
    tokens: Vec<Value>,
    token_logprobs: Vec<Value>,
    top_logprobs: Vec<Value>,
    text_offset: Vec<Value>,
}

impl OfCompletion {
    /// Appends a token at an offset in characters, which grows by its own. Without log-probabilities, which the first token of a
    /// prompt has not, entries are null.
    pub(crate) fn push(&mut self, id: u32, logprobs: Option<&Logprobs>, texts: &TokenTexts, offset: &mut usize) {
        self.tokens.push(texts.unique_text(id).into());
        self.text_offset.push((*offset).into());
        *offset += characters(&texts.bytes(id));
        self.token_logprobs.push(logprobs.map_or(Value::Null, |logprobs| number(logprobs.token)));
        self.top_logprobs.push(logprobs.map_or(Value::Null, |logprobs| {
            let mut top: Map<String, Value> =
                logprobs.top.iter().map(|&(id, logprob)| (texts.unique_text(id), number(logprob))).collect();
            // the token itself is always listed
            top.entry(texts.unique_text(id)).or_insert_with(|| number(logprobs.token));
            Value::Object(top)
        }));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    pub(crate) fn to_json(&self) -> Value {
        let Self { tokens, token_logprobs, top_logprobs, text_offset } = self;
        json!({
            "tokens": tokens, "token_logprobs": token_logprobs, "top_logprobs": top_logprobs, "text_offset": text_offset,
        })
    }
}

fn number(logprob: f32) -> Value {
    Value::from(f64::from(logprob.max(LEAST)))
}
