//! `/v1/completions`.

use super::chat::with_param;
use super::logprobs::OfCompletion;
use super::sampling::{Common, refuse_unsupported};
use super::{Head, finish_reason};
use crate::answers::{Answers, UsageSum};
use crate::body::{Fields, found, token_ids};
use crate::error::{ApiError, ApiResult};
use crate::events::Chunks;
use crate::state::{App, Loaded};
use phi3_runner::{Event, FinishReason, Generation, Prompt};
use phi3_tensor::Logprobs;
use serde_json::{Value, json};

/// OpenAI's default for the most new tokens.
const MAX_TOKENS: usize = 16;

/// Most of the likeliest tokens at each position.
const MOST_TOP: i64 = 20;

/// A request for continuations of texts.
pub(crate) struct Request {
    pub(crate) common: Common,
    prompts: Vec<PromptText>,
    echo: bool,
    add_special_tokens: bool,
}

/// A prompt as it was given.
enum PromptText {
    Text(String),
    Ids(Vec<u32>),
}

/// The answers that were started.
pub(crate) struct Started {
    pub(crate) generations: Vec<Generation>,
    /// What is in front of the answers, for each prompt.
    pub(crate) echoes: Vec<Echo>,
}

/// A prompt in front of its answers.
#[derive(Clone, Default)]
pub(crate) struct Echo {
    /// Empty without `echo`.
    text: String,
    ids: Vec<u32>,
}

/// How the answers are shown.
#[derive(Clone, Copy)]
pub(crate) struct View {
    /// Answers to each prompt.
    pub(crate) n: usize,
    pub(crate) echo: bool,
    pub(crate) logprobs: bool,
    pub(crate) include_usage: bool,
}

impl Request {
    pub(crate) fn read(fields: &mut Fields, most_answers: usize) -> ApiResult<Self> {
        let prompts = prompts(fields)?;
        let mut common = Common::read(fields, most_answers)?;
        refuse_unsupported(fields)?;
        let answers = prompts.len().saturating_mul(common.n);
        if answers > most_answers {
            let expected = format!("at most {most_answers} answers: prompts times n");
            return Err(ApiError::field("prompt", expected, answers));
        }
        let best_of = fields.integer("best_of", 1, i64::MAX)?;
        if best_of.is_some_and(|best_of| best_of as usize != common.n) {
            return Err(ApiError::unsupported("best_of", "expected the value of n: all answers are given"));
        }
        common.options.max_tokens =
            if fields.has("max_tokens") { fields.limit("max_tokens")? } else { Some(MAX_TOKENS) };
        let echo = fields.flag("echo")?.unwrap_or(false);
        let logprobs = fields.integer("logprobs", 0, MOST_TOP)?.map(|top| top as u8);
        common.options.logprobs = logprobs;
        common.options.continues_text = true;
        common.options.prompt_logprobs = logprobs.filter(|_| echo);
        let add_special_tokens = fields.flag("add_special_tokens")?.unwrap_or(true);
        Ok(Self { common, prompts, echo, add_special_tokens })
    }

    pub(crate) fn view(&self) -> View {
        View {
            n: self.common.n,
            echo: self.echo,
            logprobs: self.common.options.logprobs.is_some(),
            include_usage: self.common.include_usage,
        }
    }

    /// Starts the answers: those of a prompt are neighbours.
    pub(crate) fn start(self, key: Option<String>, loaded: &Loaded) -> ApiResult<Started> {
        let mut common = self.common;
        common.options.key = key;
        if common.options.logprobs.is_some() {
            // made here, away from the connections
            loaded.texts()?;
        }
        let engine = &loaded.engine;
        let options = common.each(&engine.sampler_defaults())?;
        let named = |error: phi3_runner::Error| with_param(error.into(), "prompt");
        let mut started = Started { generations: Vec::new(), echoes: Vec::new() };
        for text in self.prompts {
            let prompt = match &text {
                PromptText::Text(text) if self.add_special_tokens => engine.text_prompt(text, &[]).map_err(named)?,
                PromptText::Text(text) => {
                    Prompt::from_ids(&engine.tokenizer().and_then(|t| Ok(t.encode(text, false)?)).map_err(named)?)
                }
                PromptText::Ids(ids) => Prompt::from_ids(ids),
            };
            for options in &options {
                started.generations.push(engine.generate(&prompt, options).map_err(named)?);
            }
            let echo = match (self.echo, text) {
                (false, _) => Echo::default(),
                (true, PromptText::Text(text)) => Echo { text, ids: prompt.ids() },
                (true, PromptText::Ids(ids)) => {
                    let text = engine.tokenizer().and_then(|tokenizer| Ok(tokenizer.decode(&ids, false)?));
                    Echo { text: text.map_err(named)?, ids }
                }
            };
            started.echoes.push(echo);
        }
        Ok(started)
    }
}

/// The prompts of a request: a text, texts, token ids, or arrays of token ids.
fn prompts(fields: &mut Fields) -> ApiResult<Vec<PromptText>> {
    const EXPECTED: &str = "a string, an array of strings, an array of token ids, or an array of such arrays";
    let value: Value = fields.required("prompt", EXPECTED)?;
    let fault = |value: &Value| ApiError::field("prompt", EXPECTED, found(value));
    match &value {
        Value::String(text) => Ok(vec![PromptText::Text(text.clone())]),
        Value::Array(items) if items.is_empty() => Err(fault(&value)),
        Value::Array(items) if items.iter().all(Value::is_number) => {
            Ok(vec![PromptText::Ids(token_ids(items).ok_or_else(|| fault(&value))?)])
        }
        Value::Array(items) => items
            .iter()
            .map(|item| match item {
                Value::String(text) => Ok(PromptText::Text(text.clone())),
                Value::Array(inner) => token_ids(inner).map(PromptText::Ids).ok_or_else(|| fault(&value)),
                other => Err(fault(other)),
            })
            .collect(),
        other => Err(fault(other)),
    }
}

/// An answer while it is collected.
#[derive(Default)]
struct Answer {
    text: String,
    logprobs: OfCompletion,
    offset: usize,
    finished: Option<FinishReason>,
}

impl Answer {
    /// Takes the prompt's log-probabilities.
    fn echo(&mut self, echo: &Echo, logprobs: &[Option<Logprobs>], loaded: &Loaded) -> ApiResult<()> {
        for (position, &id) in echo.ids.iter().enumerate() {
            let logprobs = logprobs.get(position).and_then(Option::as_ref);
            self.logprobs.push(id, logprobs, loaded.texts()?, &mut self.offset);
        }
        Ok(())
    }

    /// Takes an event; its text is appended.
    fn take(&mut self, event: Event, echo: &Echo, view: View, loaded: &Loaded) -> ApiResult<()> {
        match event {
            Event::Token { id, text, logprobs } => {
                self.text.push_str(&text);
                // the stop token has an entry too: tools count on one for each new token
                if logprobs.is_some() {
                    self.logprobs.push(id, logprobs.as_ref(), loaded.texts()?, &mut self.offset);
                }
            }
            Event::Text { text } => self.text.push_str(&text),
            Event::PromptLogprobs(logprobs) if view.echo => self.echo(echo, &logprobs, loaded)?,
            Event::Done(summary) => self.finished = Some(summary.finish_reason),
            _ => {}
        }
        Ok(())
    }
}

/// The value of `object` in answers and chunks.
const OBJECT: &str = "text_completion";

fn choice(number: usize, text: &str, logprobs: Value, finished: Option<FinishReason>) -> Value {
    json!({"text": text, "index": number, "logprobs": logprobs, "finish_reason": finished.map(finish_reason)})
}

/// Collects the answers into one object.
pub(crate) async fn whole(mut answers: Answers, loaded: &Loaded, echoes: &[Echo], view: View) -> ApiResult<Value> {
    let nothing = Echo::default();
    let echo_of = |number: usize| echoes.get(number / view.n).unwrap_or(&nothing);
    let count = echoes.len() * view.n;
    let mut all: Vec<Answer> =
        (0..count).map(|number| Answer { text: echo_of(number).text.clone(), ..Answer::default() }).collect();
    let mut usage = UsageSum::default();
    while let Some((number, event)) = answers.next().await? {
        if let Event::Done(summary) = &event {
            usage.add(&summary.usage, number.is_multiple_of(view.n));
        }
        if let Some(answer) = all.get_mut(number) {
            answer.take(event, echo_of(number), view, loaded)?;
        }
    }
    let choices = all.iter().enumerate().map(|(number, answer)| {
        let logprobs = if view.logprobs { answer.logprobs.to_json() } else { Value::Null };
        choice(number, &answer.text, logprobs, answer.finished)
    });
    let mut object = Head::new("cmpl-", loaded.name()).object(OBJECT, choices.collect());
    object.insert("usage".into(), usage.to_json());
    Ok(Value::Object(object))
}

/// The answers as chunks of a stream.
pub(crate) struct CompletionChunks {
    app: App,
    head: Head,
    echoes: Vec<Echo>,
    /// Parts of answers that no chunk has shown yet.
    parts: Vec<Answer>,
    usage: UsageSum,
    view: View,
}

impl CompletionChunks {
    pub(crate) fn new(app: &App, model: &str, echoes: Vec<Echo>, view: View) -> Self {
        let parts = (0..echoes.len() * view.n).map(|_| Answer::default()).collect();
        Self { app: app.clone(), head: Head::new("cmpl-", model), echoes, parts, usage: UsageSum::default(), view }
    }

    fn chunk(&self, choices: Vec<Value>) -> Value {
        let mut chunk = self.head.object(OBJECT, choices);
        if self.view.include_usage {
            chunk.insert("usage".into(), Value::Null);
        }
        Value::Object(chunk)
    }
}

impl Chunks for CompletionChunks {
    fn begin(&mut self) -> Vec<Value> {
        // with log-probabilities, the prompt is shown when they are known
        if !self.view.echo || self.view.logprobs {
            return Vec::new();
        }
        let echo = |number: usize| self.echoes.get(number / self.view.n).map_or("", |echo| &echo.text);
        let choices = (0..self.parts.len()).map(|number| choice(number, echo(number), Value::Null, None));
        choices.map(|choice| self.chunk(vec![choice])).collect()
    }

    fn event(&mut self, number: usize, event: Event) -> Vec<Value> {
        let app = self.app.clone();
        let (Some(loaded), Some(part)) = (app.engine(), self.parts.get_mut(number)) else { return Vec::new() };
        let echo = self.echoes.get(number / self.view.n).cloned().unwrap_or_default();
        if let Event::Done(summary) = &event {
            self.usage.add(&summary.usage, number.is_multiple_of(self.view.n));
        }
        if matches!(event, Event::PromptLogprobs(_)) && self.view.echo {
            part.text.push_str(&echo.text);
        }
        // only the texts of tokens can fail, and they were made before
        let _ = part.take(event, &echo, self.view, loaded);
        let finished = part.finished;
        let has_tokens = !part.logprobs.is_empty();
        if part.text.is_empty() && !has_tokens && finished.is_none() {
            return Vec::new();
        }
        let logprobs = if self.view.logprobs { std::mem::take(&mut part.logprobs).to_json() } else { Value::Null };
        let text = std::mem::take(&mut part.text);
        let choice = choice(number, &text, logprobs, finished);
        vec![self.chunk(vec![choice])]
    }

    fn end(&mut self) -> Vec<Value> {
        if !self.view.include_usage {
            return Vec::new();
        }
        let mut chunk = self.head.object(OBJECT, Vec::new());
        chunk.insert("usage".into(), self.usage.to_json());
        vec![Value::Object(chunk)]
    }
}
