//! The host's side of a request: its sampler, its text, and its events.

use super::chats::{Chats, RenderedChat};
use crate::constraint::Constraint;
use crate::generate::events::Events;
use crate::generate::{Event, FinishReason, GenerateOptions, Summary, Timings, Usage};
use crate::sampler::Sampler;
use crate::scheduler;
use crate::source::Source;
use crate::text::TextStream;
use crate::text::stop::StopTexts;
use crate::{Error, Result};
use phi3_model::Input;
use phi3_tensor::Logprobs;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A request that has not ended.
pub(super) struct Job {
    pub(super) options: GenerateOptions,
    pub(super) sampler: Sampler,
    /// Grammar of the answer.
    pub(super) constraint: Option<Constraint>,
    pub(super) stream: Option<TextStream>,
    pub(super) stop_texts: StopTexts,
    /// Tokens that end the answer.
    pub(super) stop_tokens: Arc<[u32]>,
    /// Prompt, then new tokens.
    pub(super) inputs: Vec<Input>,
    /// Their tokens, for penalties.
    pub(super) ids: Vec<u32>,
    pub(super) prompt_tokens: usize,
    /// Most new tokens.
    pub(super) limit: usize,
    /// The rendered chat with its answer so far; `None` for a request that is not a chat.
    pub(super) chat: Option<RenderedChat>,
    /// Where the chat is remembered.
    pub(super) chats: Arc<Chats>,
    pub(super) source: Arc<Source>,
    pub(super) events: Arc<Events>,
    /// Log-probabilities of new tokens that have no event yet, by index.
    pub(super) logprobs: BTreeMap<usize, Logprobs>,
    /// Log-probabilities of the prompt's tokens, if they are wanted: none for the first.
    pub(super) prompt_logprobs: Vec<Option<Logprobs>>,
    pub(super) clock: Clock,
}

/// Times of a request.
pub(super) struct Clock {
    pub(super) started: Instant,
    pub(super) loading: Duration,
    cached: usize,
    /// When the first rows were planned.
    begun: Option<Instant>,
    prompt: Duration,
    first_token: Duration,
    last_token: Option<Instant>,
    decode: Duration,
    rebuilding: Option<Instant>,
    rebuild: Duration,
}

impl Clock {
    pub(super) fn new(loading: Duration) -> Self {
        Self {
            started: Instant::now(),
            loading,
            cached: 0,
            begun: None,
            prompt: Duration::ZERO,
            first_token: Duration::ZERO,
            last_token: None,
            decode: Duration::ZERO,
            rebuilding: None,
            rebuild: Duration::ZERO,
        }
    }
}

impl Job {
    pub(super) fn new_tokens(&self) -> usize {
        self.inputs.len() - self.prompt_tokens
    }

    /// Whether the caller has set the cancel flag.
    pub(super) fn is_cancelled(&self) -> bool {
        self.options.cancel.as_ref().is_some_and(|cancel| cancel.load(Ordering::Relaxed))
    }

    /// Takes an event of the scheduler. The result is the reason for which the answer ends here, if a stop string ends it.
    pub(super) fn take(&mut self, event: scheduler::Event) -> Result<Option<FinishReason>> {
        let clock = &mut self.clock;
        match event {
            scheduler::Event::Started { cached, .. } => {
                clock.cached = cached;
                clock.begun = Some(Instant::now());
            }
            scheduler::Event::Computed { done, total } => {
                self.events.push(Ok(Event::Prompt { done, total }));
                if done == total {
                    self.send_prompt_logprobs();
                }
            }
            scheduler::Event::RopeSwitch { set, tokens } => {
                clock.rebuilding = Some(Instant::now());
                self.events.push(Ok(Event::RopeSwitch { set, tokens }));
            }
            scheduler::Event::Paused => {}
            scheduler::Event::Token { id, .. } => return self.token(id),
            // an answer ends by `finish`
            scheduler::Event::Finished(_) => {}
        }
        Ok(None)
    }

    /// Whether so many events wait to be taken that no more tokens are computed.
    pub(super) fn is_unread(&self) -> bool {
        self.options.max_unread.is_some_and(|most| self.events.len() >= most.max(1))
    }

    /// Whether sampling depends on the tokens before.
    pub(super) fn depends_on_past(&self) -> bool {
        !self.sampler.is_on_device() || self.sampler.uses_past() || self.constraint.is_some()
    }

    /// Sets the log-probabilities of the prompt's token at a position.
    pub(super) fn put_prompt_logprobs(&mut self, position: usize, logprobs: Option<Logprobs>) {
        if let Some(entry) = self.prompt_logprobs.get_mut(position) {
            *entry = logprobs;
        }
    }

    fn token(&mut self, id: u32) -> Result<Option<FinishReason>> {
        if let Some(constraint) = &mut self.constraint {
            constraint.advance(id)?;
        }
        let index = self.new_tokens();
        self.time_token(index == 0);
        self.ids.push(id);
        self.inputs.push(Input::Token(id));
        let stop = self.stop_tokens.contains(&id);
        let full = self.new_tokens() == self.limit;
        let mut text = String::new();
        let mut ended = false;
        if let Some(stream) = &mut self.stream {
            // a stop token is not part of the text, unless the text is raw
            if !stop || self.options.raw {
                text = stream.push(id)?;
            }
            if stop || full {
                text.push_str(&stream.finish()?);
            }
            (text, ended) = self.stop_texts.push(&text);
            if ended {
                // the ids of the answer go beyond its text
                self.chat = None;
            } else if stop || full {
                text.push_str(&self.stop_texts.finish());
            }
        }
        self.say(&text);
        let logprobs = self.logprobs.remove(&index);
        self.events.push(Ok(Event::Token { id, text, logprobs }));
        Ok(ended.then_some(FinishReason::Stop))
    }

    fn time_token(&mut self, first: bool) {
        let clock = &mut self.clock;
        let now = Instant::now();
        if let Some(since) = clock.rebuilding.take() {
            clock.rebuild += now - since;
        }
        if first {
            clock.first_token = now - clock.started;
            clock.prompt = now - clock.begun.unwrap_or(clock.started);
        } else if let Some(last) = clock.last_token {
            clock.decode += now - last;
        }
        clock.last_token = Some(now);
    }

    fn send_prompt_logprobs(&mut self) {
        if self.options.prompt_logprobs.is_some() {
            let logprobs = std::mem::take(&mut self.prompt_logprobs);
            self.events.push(Ok(Event::PromptLogprobs(logprobs)));
        }
    }

    fn say(&mut self, text: &str) {
        if let Some(chat) = &mut self.chat {
            chat.text.push_str(text);
        }
    }

    /// Emits the text that was held back.
    fn let_go(&mut self) -> Result<()> {
        let Some(mut stream) = self.stream.take() else { return Ok(()) };
        let (mut text, ended) = self.stop_texts.push(&stream.finish()?);
        if !ended {
            text.push_str(&self.stop_texts.finish());
        }
        if !text.is_empty() {
            self.say(&text);
            self.events.push(Ok(Event::Text { text }));
        }
        Ok(())
    }

    /// Ends the request.
    pub(super) fn finish(mut self, reason: FinishReason) {
        if (reason == FinishReason::Interrupted || self.new_tokens() < self.limit)
            && let Err(error) = self.let_go()
        {
            return self.fail(error);
        }
        self.remember(reason);
        self.events.push(Ok(Event::Done(self.summary(reason))));
        self.events.close();
    }

    /// Ends the request with an error; text that was held back is emitted before it.
    pub(super) fn fail(mut self, error: Error) {
        let _ = self.let_go();
        if !matches!(error, Error::Model(phi3_model::Error::NotFinite { .. })) {
            self.events.push(Err(error));
            self.events.close();
            return;
        }
        // the search for the damaged weight reads the whole checkpoint
        let (source, events) = (self.source.clone(), self.events.clone());
        let search = move || {
            events.push(Err(source.explain(error)));
            events.close();
        };
        if std::thread::Builder::new().name("search".into()).spawn(search).is_err() {
            self.events.push(Err(Error::Unfinished));
            self.events.close();
        }
    }

    /// Stores the ids of the chat's text for the next turn; without a stop token, which the template writes again.
    fn remember(&mut self, reason: FinishReason) {
        let said = self.inputs.len() - usize::from(reason == FinishReason::Stop);
        if let Some(chat) = self.chat.take().filter(|_| !self.options.raw) {
            self.chats.remember(RenderedChat { inputs: self.inputs[..said].to_vec(), ..chat });
        }
    }

    /// The seed of the sampler; `None` for greedy decoding.
    pub(super) fn seed(&self) -> Option<u64> {
        (!self.sampler.is_greedy()).then_some(self.sampler.options().seed)
    }

    fn summary(&self, finish_reason: FinishReason) -> Summary {
        let clock = &self.clock;
        let completion_tokens = self.new_tokens();
        let rate = |tokens: usize, time: Duration| match time.as_secs_f64() {
            seconds if seconds > 0.0 => tokens as f64 / seconds,
            _ => 0.0,
        };
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        Summary {
            finish_reason,
            usage: Usage {
                prompt_tokens: self.prompt_tokens,
                cached_tokens: clock.cached,
                completion_tokens,
                total_tokens: self.prompt_tokens + completion_tokens,
            },
            timings: Timings {
                load_ms: ms(clock.loading),
                prompt_ms: ms(clock.prompt),
                first_token_ms: ms(clock.first_token),
                decode_ms: ms(clock.decode),
                rebuild_ms: ms(clock.rebuild),
                prompt_per_second: rate(self.prompt_tokens.saturating_sub(clock.cached), clock.prompt),
                decode_per_second: rate(completion_tokens.saturating_sub(1), clock.decode),
            },
            seed: self.seed(),
        }
    }
}
