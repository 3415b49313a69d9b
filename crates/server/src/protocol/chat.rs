//! `/v1/chat/completions`.

use super::sampling::{Common, refuse_unsupported};
use super::{Head, finish_reason, logprobs, messages};
use crate::answers::{Answers, ScoredToken, ScoredTokens, UsageSum};
use crate::body::Fields;
use crate::error::{ApiError, ApiResult};
use crate::events::Chunks;
use crate::state::{App, Loaded};
use phi3_runner::{Event, FinishReason, Generation};
use serde_json::{Value, json};

/// Most of the likeliest tokens at each position, as in OpenAI's interface.
const MOST_TOP: i64 = 20;

/// A request for answers in a chat.
pub(crate) struct Request {
    pub(crate) common: Common,
    pub(crate) logprobs: bool,
    messages: Vec<Value>,
}

impl Request {
    pub(crate) fn read(fields: &mut Fields, most_answers: usize) -> ApiResult<Self> {
        let messages = fields.required("messages", "an array of messages")?;
        let mut common = Common::read(fields, most_answers)?;
        refuse_unsupported(fields)?;
        let older = fields.limit("max_tokens")?;
        common.options.max_tokens = fields.limit("max_completion_tokens")?.or(older);
        let logprobs = fields.flag("logprobs")?.unwrap_or(false);
        let top = fields.integer("top_logprobs", 0, MOST_TOP)?;
        if top.is_some_and(|top| top > 0) && !logprobs {
            return Err(ApiError::field("top_logprobs", "logprobs to be true", "top_logprobs without it"));
        }
        common.options.logprobs = logprobs.then_some(top.unwrap_or(0) as u8);
        Ok(Self { common, logprobs, messages })
    }

    /// Starts the answers.
    pub(crate) fn start(self, key: Option<String>, loaded: &Loaded) -> ApiResult<Vec<Generation>> {
        if self.logprobs {
            // made here, away from the connections
            loaded.texts()?;
        }
        let chat = messages::Chat::read(self.messages, loaded)?;
        let mut common = self.common;
        common.options.key = key;
        let options = common.each(&loaded.engine.sampler_defaults())?;
        let prompt = loaded.engine.chat_prompt(&chat.messages, &chat.images);
        let prompt = prompt.map_err(|error| with_param(error.into(), "messages"))?;
        let start =
            |options| loaded.engine.generate(&prompt, options).map_err(|error| with_param(error.into(), "messages"));
        options.iter().map(start).collect()
    }
}

/// Names the field of a prompt in an error that names none.
pub(crate) fn with_param(error: ApiError, name: &str) -> ApiError {
    match (&error.param, error.status.is_client_error() && error.retry_after.is_none()) {
        (None, true) if error.code != Some("invalid_grammar") => error.param(name),
        _ => error,
    }
}

/// An answer while it is collected.
#[derive(Default)]
struct Answer {
    text: String,
    tokens: Vec<ScoredToken>,
    scored: ScoredTokens,
    finished: Option<FinishReason>,
}

/// Collects the answers into one object.
pub(crate) async fn whole(mut answers: Answers, loaded: &Loaded, n: usize, with_logprobs: bool) -> ApiResult<Value> {
    let mut all: Vec<Answer> = (0..n).map(|_| Answer::default()).collect();
    let mut usage = UsageSum::default();
    while let Some((number, event)) = answers.next().await? {
        let Some(answer) = all.get_mut(number) else { continue };
        match event {
            Event::Token { id, text, logprobs } => {
                answer.text.push_str(&text);
                answer.tokens.extend(scored(&mut answer.scored, loaded, id, logprobs)?);
            }
            Event::Text { text } => answer.text.push_str(&text),
            Event::Done(summary) => {
                answer.tokens.extend(answer.scored.finish(summary.finish_reason));
                answer.finished = Some(summary.finish_reason);
                usage.add(&summary.usage, number == 0);
            }
            _ => {}
        }
    }
    let mut choices = Vec::new();
    for (number, answer) in all.into_iter().enumerate() {
        let logprobs = match with_logprobs {
            true => logprobs::of_chat(&answer.tokens, loaded.texts()?),
            false => Value::Null,
        };
        choices.push(json!({
            "index": number,
            "message": {"role": "assistant", "content": answer.text, "refusal": null},
            "logprobs": logprobs,
            "finish_reason": answer.finished.map(finish_reason),
        }));
    }
    let mut object = Head::new("chatcmpl-", loaded.name()).object("chat.completion", choices);
    object.insert("usage".into(), usage.to_json());
    Ok(Value::Object(object))
}

/// Takes a token with log-probabilities; gives those that are part of the answer.
fn scored(
    tokens: &mut ScoredTokens,
    loaded: &Loaded,
    id: u32,
    logprobs: Option<phi3_tensor::Logprobs>,
) -> ApiResult<Vec<ScoredToken>> {
    let Some(logprobs) = logprobs else { return Ok(Vec::new()) };
    Ok(tokens.push(ScoredToken { id, logprobs }, loaded.engine.tokenizer()?.is_special(id)))
}

/// The answers as chunks of a stream.
pub(crate) struct ChatChunks {
    app: App,
    head: Head,
    scored: Vec<ScoredTokens>,
    usage: UsageSum,
    include_usage: bool,
    with_logprobs: bool,
}

impl ChatChunks {
    pub(crate) fn new(app: &App, model: &str, request: &Request) -> Self {
        Self {
            app: app.clone(),
            head: Head::new("chatcmpl-", model),
            scored: (0..request.common.n).map(|_| ScoredTokens::default()).collect(),
            usage: UsageSum::default(),
            include_usage: request.common.include_usage,
            with_logprobs: request.logprobs,
        }
    }

    fn chunk(&self, number: usize, delta: Value, logprobs: Value, finished: Option<FinishReason>) -> Value {
        let finish_reason = finished.map(finish_reason);
        let choice = json!({"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason});
        let mut chunk = self.head.object("chat.completion.chunk", vec![choice]);
        if self.include_usage {
            chunk.insert("usage".into(), Value::Null);
        }
        Value::Object(chunk)
    }

    fn logprobs(&self, tokens: &[ScoredToken]) -> Value {
        let texts = self.app.engine().and_then(|loaded| loaded.texts().ok());
        match texts.filter(|_| self.with_logprobs && !tokens.is_empty()) {
            Some(texts) => logprobs::of_chat(tokens, texts),
            None => Value::Null,
        }
    }

    fn text(&self, number: usize, text: &str, tokens: &[ScoredToken]) -> Vec<Value> {
        match text.is_empty() && tokens.is_empty() {
            true => Vec::new(),
            false => vec![self.chunk(number, json!({"content": text}), self.logprobs(tokens), None)],
        }
    }
}

impl Chunks for ChatChunks {
    fn begin(&mut self) -> Vec<Value> {
        let delta = json!({"role": "assistant", "content": "", "refusal": null});
        (0..self.scored.len()).map(|number| self.chunk(number, delta.clone(), Value::Null, None)).collect()
    }

    fn event(&mut self, number: usize, event: Event) -> Vec<Value> {
        match event {
            Event::Token { id, text, logprobs } => {
                let loaded = self.app.engine();
                let tokens = match (self.scored.get_mut(number), loaded) {
                    (Some(state), Some(loaded)) => scored(state, loaded, id, logprobs).unwrap_or_default(),
                    _ => Vec::new(),
                };
                self.text(number, &text, &tokens)
            }
            Event::Text { text } => self.text(number, &text, &[]),
            Event::Done(summary) => {
                self.usage.add(&summary.usage, number == 0);
                let last = self.scored.get_mut(number).and_then(|tokens| tokens.finish(summary.finish_reason));
                let tokens: Vec<ScoredToken> = last.into_iter().collect();
                let mut chunks = self.text(number, "", &tokens);
                chunks.push(self.chunk(number, json!({}), Value::Null, Some(summary.finish_reason)));
                chunks
            }
            _ => Vec::new(),
        }
    }

    fn end(&mut self) -> Vec<Value> {
        if !self.include_usage {
            return Vec::new();
        }
        let mut chunk = self.head.object("chat.completion.chunk", Vec::new());
        chunk.insert("usage".into(), self.usage.to_json());
        vec![Value::Object(chunk)]
    }
}
