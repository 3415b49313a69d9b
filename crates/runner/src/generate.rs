//! Generation as an iterator of events.

use crate::engine::{Engine, RenderedChat};
use crate::sampler::{Sampler, SamplerOptions};
use crate::text::TextStream;
use crate::text::stop::StopTexts;
use crate::{Error, Result};
use phi3_model::{Input, Outputs, PrefillOptions, PrefillProgress, RopePolicy, RopeSet, prefill};
use serde::Serialize;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Options of a generation.
#[derive(Clone, Debug, Default)]
pub struct GenerateOptions {
    /// Most new tokens; up to the model's context where absent.
    pub max_tokens: Option<usize>,
    /// Sampling options; [`Engine::sampler_defaults`] where absent.
    pub sampler: Option<SamplerOptions>,
    /// Whether to continue after a stop token or a stop string of the model's files.
    pub ignore_eos: bool,
    /// Whether special tokens appear in the text.
    pub raw: bool,
    /// Tokens per pass; the most that the model takes where absent.
    pub chunk: Option<usize>,
    /// Most passes in flight with on-device sampling; the backend's maximum where absent, none for 0.
    pub pipeline_depth: Option<usize>,
    /// Strings that end the answer and are not part of it. A string may span several tokens, or name a special token.
    pub stop: Vec<String>,
    /// Cancel flag: when set, generation ends after the current pass.
    pub cancel: Option<Arc<AtomicBool>>,
}

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model produced a stop token or a stop string.
    Stop,
    /// `max_tokens` or the model's context was reached.
    Length,
    /// [`GenerateOptions::cancel`] was set.
    Interrupted,
}

/// Token counts of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the prompt that were found in the KV cache.
    pub cached_tokens: usize,
    /// New tokens, a stop token included.
    pub completion_tokens: usize,
    /// Prompt and completion.
    pub total_tokens: usize,
}

/// Times and speeds of a generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Timings {
    /// Loading the model, in milliseconds.
    pub load_ms: f64,
    /// Computing the prompt, in milliseconds.
    pub prompt_ms: f64,
    /// From the request to the first token, in milliseconds.
    pub first_token_ms: f64,
    /// Computing the tokens after the first, in milliseconds.
    pub decode_ms: f64,
    /// Rebuilding the KV cache at LongRoPE's border, in milliseconds; part of the times above.
    pub rebuild_ms: f64,
    /// Prompt tokens per second, without cached ones.
    pub prompt_per_second: f64,
    /// Tokens per second after the first.
    pub decode_per_second: f64,
}

/// Summary of a generation, at its end.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Token counts.
    pub usage: Usage,
    /// Times and speeds.
    pub timings: Timings,
    /// The seed of the sampler; `None` for greedy decoding.
    pub seed: Option<u64>,
}

/// An event of a generation.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The sequence has crossed LongRoPE's border, in either direction: the KV cache is rebuilt with the other factors.
    RopeSwitch {
        /// The factors from now on.
        set: RopeSet,
        /// Cached tokens that are computed again.
        tokens: usize,
    },
    /// A new token.
    Token {
        /// Its id.
        id: u32,
        /// Text that is final now: often empty, never part of a character.
        text: String,
    },
    /// Text that was held back, if an answer ends without another token: it was cancelled, or failed.
    Text {
        /// The text.
        text: String,
    },
    /// The end; nothing follows.
    Done(Summary),
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// New tokens, a stop token included.
    pub ids: Vec<u32>,
    /// Their text, without the stop token.
    pub text: String,
    /// Summary of the generation.
    pub summary: Summary,
}

/// A generation in progress: an iterator of [`Event`]s that ends after [`Event::Done`] or an error.
pub struct Generation<'a> {
    engine: &'a mut Engine,
    options: GenerateOptions,
    sampler: Sampler,
    stream: Option<TextStream>,
    stop_texts: StopTexts,
    /// Tokens that end the answer.
    stop_tokens: Vec<u32>,
    /// Prompt, then generated tokens.
    inputs: Vec<Input>,
    /// Their tokens, for penalties.
    ids: Vec<u32>,
    prompt_tokens: usize,
    cached_tokens: usize,
    /// Most new tokens.
    limit: usize,
    /// The rendered chat with its answer so far; `None` for a request that is not a chat.
    chat: Option<RenderedChat>,
    logits: Vec<f32>,
    pending: VecDeque<Result<Event>>,
    started: Instant,
    prompt_time: Duration,
    first_token: Duration,
    decode_time: Duration,
    rebuild_time: Duration,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Ended,
}

impl<'a> Generation<'a> {
    pub(crate) fn start(
        engine: &'a mut Engine,
        inputs: Vec<Input>,
        chat: Option<RenderedChat>,
        options: &GenerateOptions,
    ) -> Result<Self> {
        if inputs.is_empty() {
            return Err(Error::EmptyPrompt { hint: "give at least one token" });
        }
        phi3_model::check_length(engine.spec(), inputs.len())?;
        phi3_model::check_inputs(engine.spec(), &inputs)?;
        let sampler = options.sampler.clone().unwrap_or_else(|| engine.sampler_defaults());
        let breakers = engine.breakers(&sampler)?;
        let sampler = Sampler::with_breakers(sampler, breakers)?;
        let (stop_tokens, stop_texts) = stops(engine, chat.is_some(), options)?;
        // an earlier generation may have been dropped with passes in flight; their errors do not concern this one
        let _ = engine.discard();
        let room = engine.spec().max_position_embeddings - inputs.len();
        if let Some(max_tokens) = options.max_tokens {
            match engine.model.prepare(&engine.sequence, inputs.len() + max_tokens.min(room)) {
                // the answer may end long before its limit: too little memory is an error only when more is needed
                Ok(()) | Err(phi3_model::Error::Device(phi3_tensor::Error::OutOfMemory { .. })) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Self {
            sampler,
            stop_tokens,
            stop_texts: StopTexts::new(stop_texts),
            stream: engine.tokenizer.as_ref().map(|tokenizer| tokenizer.stream(!options.raw)),
            prompt_tokens: inputs.len(),
            cached_tokens: 0,
            // the last new token is not fed, so it needs no room in the context
            limit: options.max_tokens.unwrap_or(usize::MAX).min(room + 1),
            ids: inputs.iter().filter_map(Input::token).collect(),
            inputs,
            chat,
            options: options.clone(),
            logits: Vec::new(),
            pending: VecDeque::new(),
            started: Instant::now(),
            prompt_time: Duration::ZERO,
            first_token: Duration::ZERO,
            decode_time: Duration::ZERO,
            rebuild_time: Duration::ZERO,
            state: State::Running,
            engine,
        })
    }

    /// The seed of the sampler; `None` for greedy decoding.
    pub fn seed(&self) -> Option<u64> {
        (!self.sampler.is_greedy()).then_some(self.sampler.options().seed)
    }

    /// Runs to the end and collects the answer.
    pub fn collect_all(self) -> Result<Completion> {
        let (mut ids, mut text) = (Vec::new(), String::new());
        for event in self {
            match event? {
                Event::Token { id, text: piece } => {
                    ids.push(id);
                    text.push_str(&piece);
                }
                Event::Text { text: piece } => text.push_str(&piece),
                Event::Done(summary) => return Ok(Completion { ids, text, summary }),
                Event::RopeSwitch { .. } => {}
            }
        }
        // only an iterator that has ended already gets here: it ends with `Done` or an error
        Err(Error::Unfinished)
    }

    fn new_tokens(&self) -> usize {
        self.inputs.len() - self.prompt_tokens
    }

    fn stopped(&self) -> bool {
        self.options.cancel.as_ref().is_some_and(|cancel| cancel.load(Ordering::Relaxed))
    }

    /// Feeds the inputs that are not in the KV cache yet; `false` if cancelled.
    fn feed(&mut self) -> Result<bool> {
        let budget = self.budget();
        let Self { engine, inputs, options, logits, pending, rebuild_time, .. } = self;
        let sequence = &mut engine.sequence;
        let settings = PrefillOptions {
            chunk: options.chunk.unwrap_or(usize::MAX),
            policy: engine.policy,
            budget,
            outputs: Outputs::Last,
        };
        let mut rebuilding = None;
        let watch = &mut |step: PrefillProgress| {
            match step {
                PrefillProgress::RopeSwitch { set, tokens } => {
                    rebuilding = Some(Instant::now());
                    pending.push_back(Ok(Event::RopeSwitch { set, tokens }));
                }
                PrefillProgress::Pass { done, total } if done == total => {
                    *rebuild_time += rebuilding.take().map_or(Duration::ZERO, |since: Instant| since.elapsed());
                }
                PrefillProgress::Pass { .. } => {}
            }
            match options.cancel.as_ref().is_some_and(|cancel| cancel.load(Ordering::Relaxed)) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        let new = &inputs[sequence.len()..];
        let result = prefill(&mut *engine.model, sequence, new, settings, logits, None, watch);
        result.map_err(|error| {
            engine.sequence.clear();
            engine.explain(error)
        })
    }

    /// Submits decode passes up to the pipeline depth. Without passes in flight, the first one gets its token from the host; the
    /// others use the token that the device samples before.
    fn submit(&mut self) -> Result<()> {
        if !self.sampler.is_independent() {
            return Ok(());
        }
        let budget = self.budget();
        let Engine { model, sequence, policy, .. } = &mut *self.engine;
        let most = model.pipeline_depth().min(self.options.pipeline_depth.unwrap_or(usize::MAX));
        while model.in_flight() < most && self.inputs.len() + model.in_flight() < self.prompt_tokens + self.limit {
            let next = sequence.len() + 1;
            if model.spec().rope.choose(*policy, next, budget) != sequence.rope_set() {
                return Ok(());
            }
            let token = match model.in_flight() {
                0 => self.inputs[sequence.len()].token(),
                _ => None,
            };
            let index = self.inputs.len() - self.prompt_tokens + model.in_flight();
            let launched = model.submit(sequence, token, self.sampler.sampling(index));
            if let Err(error) = launched {
                sequence.clear();
                return Err(self.engine.explain(error));
            }
        }
        Ok(())
    }

    /// Most tokens of the sequence in the KV cache.
    fn budget(&self) -> usize {
        self.prompt_tokens.saturating_add(self.limit - 1)
    }

    /// Keeps the common prefix of the cached sequence and the prompt; at least the prompt's last token is computed again.
    fn reuse(&mut self) {
        let window = self.engine.spec().window();
        let sequence = &mut self.engine.sequence;
        let same = sequence.inputs().iter().zip(&self.inputs).take_while(|(a, b)| a == b).count();
        self.cached_tokens = sequence.truncate(same.min(self.inputs.len() - 1), window);
    }

    fn step(&mut self) -> Result<()> {
        let since = Instant::now();
        let first = self.new_tokens() == 0;
        if first {
            self.reuse();
        }
        if self.limit == 0 {
            return self.end(FinishReason::Length);
        }
        if !first {
            self.submit()?;
        }
        let landed = match self.engine.model.in_flight() {
            0 => None,
            _ => Some(self.engine.wait()?),
        };
        let finished = landed.is_some() || self.feed()?;
        if first {
            self.prompt_time = since.elapsed();
        }
        if !finished || self.stopped() {
            return self.end(FinishReason::Interrupted);
        }
        let id = match landed {
            Some(id) => id,
            None => self.sampler.sample(&self.ids, self.inputs.len() - self.prompt_tokens, &self.logits)?,
        };
        self.ids.push(id);
        self.inputs.push(Input::Token(id));
        if first {
            self.first_token = self.started.elapsed();
        } else {
            self.decode_time += since.elapsed();
        }
        let mut stop = self.stop_tokens.contains(&id);
        let full = self.new_tokens() == self.limit;
        let mut text = String::new();
        if let Some(stream) = &mut self.stream {
            // a stop token is not part of the text, unless the text is raw
            if !stop || self.options.raw {
                text = stream.push(id)?;
            }
            if stop || full {
                text.push_str(&stream.finish()?);
            }
            let (certain, ended) = self.stop_texts.push(&text);
            text = certain;
            if ended {
                // the ids of the answer go beyond its text
                self.chat = None;
                stop = true;
            } else if stop || full {
                text.push_str(&self.stop_texts.finish());
            }
        }
        self.say(&text);
        self.pending.push_back(Ok(Event::Token { id, text }));
        match (stop, full) {
            (true, _) => self.end(FinishReason::Stop),
            (_, true) => self.end(FinishReason::Length),
            _ => Ok(()),
        }
    }

    fn say(&mut self, text: &str) {
        if let Some(chat) = &mut self.chat {
            chat.text.push_str(text);
        }
    }

    /// Emits the text that was held back.
    fn let_go(&mut self) -> Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let (mut text, ended) = self.stop_texts.push(&stream.finish()?);
        if !ended {
            text.push_str(&self.stop_texts.finish());
        }
        if !text.is_empty() {
            self.say(&text);
            self.pending.push_back(Ok(Event::Text { text }));
        }
        Ok(())
    }

    fn end(&mut self, finish_reason: FinishReason) -> Result<()> {
        self.state = State::Ended;
        if finish_reason == FinishReason::Interrupted {
            self.let_go()?;
        }
        self.engine.discard()?;
        let window = self.engine.spec().window();
        let sequence = &mut self.engine.sequence;
        let same = sequence.inputs().iter().zip(&self.inputs).take_while(|(a, b)| a == b).count();
        sequence.truncate(same, window);
        self.remember(finish_reason);
        let completion_tokens = self.new_tokens();
        let rate = |tokens: usize, time: Duration| match time.as_secs_f64() {
            seconds if seconds > 0.0 => tokens as f64 / seconds,
            _ => 0.0,
        };
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        self.pending.push_back(Ok(Event::Done(Summary {
            finish_reason,
            usage: Usage {
                prompt_tokens: self.prompt_tokens,
                cached_tokens: self.cached_tokens,
                completion_tokens,
                total_tokens: self.prompt_tokens + completion_tokens,
            },
            timings: Timings {
                load_ms: ms(self.engine.loading),
                prompt_ms: ms(self.prompt_time),
                first_token_ms: ms(self.first_token),
                decode_ms: ms(self.decode_time),
                rebuild_ms: ms(self.rebuild_time),
                prompt_per_second: rate(self.prompt_tokens - self.cached_tokens, self.prompt_time),
                decode_per_second: rate(completion_tokens.saturating_sub(1), self.decode_time),
            },
            seed: self.seed(),
        })));
        Ok(())
    }

    /// Stores the ids of the chat's text for the next turn; without a stop token, which the template writes again.
    fn remember(&mut self, finish_reason: FinishReason) {
        let said = self.inputs.len() - usize::from(finish_reason == FinishReason::Stop);
        self.engine.last_chat = match self.chat.take() {
            Some(chat) if !self.options.raw => Some(RenderedChat { inputs: self.inputs[..said].to_vec(), ..chat }),
            _ => None,
        };
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.pending.is_empty()
            && self.state == State::Running
            && let Err(error) = self.step()
        {
            // if the error is of `end`, the held-back text is emitted already and this does nothing
            self.state = State::Ended;
            let _ = self.let_go();
            self.pending.push_back(Err(error));
        }
        self.pending.pop_front()
    }
}

/// Stop tokens and stop strings of an answer: those of the request and, without `ignore_eos`, those of the model's files. A chat
/// also ends at the tokens that end a turn.
fn stops(engine: &Engine, is_chat: bool, options: &GenerateOptions) -> Result<(Vec<u32>, Vec<String>)> {
    if options.stop.iter().any(String::is_empty) {
        let expected = "texts of at least one character".into();
        return Err(Error::Argument { argument: "stop", expected, found: "an empty one".into() });
    }
    let mut texts = options.stop.clone();
    let mut tokens = Vec::new();
    if !texts.is_empty() {
        let tokenizer = engine.tokenizer()?;
        // a special token is not part of the text, so its id is the stop token
        let named = texts.iter().filter_map(|text| tokenizer.token_to_id(text));
        tokens.extend(named.filter(|&id| tokenizer.is_special(id)));
    }
    if !options.ignore_eos {
        tokens.extend(&engine.generation.eos_token_id);
        tokens.extend(engine.turn_ends.iter().filter(|_| is_chat));
        texts.extend(engine.generation.stop_strings.iter().filter(|text| !text.is_empty()).cloned());
    }
    Ok((tokens, texts))
}

/// Parses the name of a [`RopePolicy`].
pub fn rope_policy(text: &str) -> Result<RopePolicy> {
    Ok(match text {
        "exact" => RopePolicy::Exact,
        "ahead" => RopePolicy::Ahead,
        "long" => RopePolicy::Long,
        "short" => RopePolicy::Short,
        _ => {
            let expected = "exact, ahead, long or short".into();
            return Err(Error::Argument { argument: "longrope", expected, found: format!("{text:?}") });
        }
    })
}

#[cfg(all(test, feature = "demo"))]
mod tests;
