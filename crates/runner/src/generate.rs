//! Generation as an iterator and a stream of events.

pub(crate) mod events;

use crate::constraint::Grammar;
use crate::engine::Engine;
use crate::sampler::SamplerOptions;
use crate::scheduler::RequestId;
use crate::{Error, Result};
use events::Events;
use futures_core::Stream;
use phi3_model::{RopePolicy, RopeSet};
use phi3_tensor::Logprobs;
use serde::Serialize;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll};

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
    /// With 0, a pass is submitted only when the host has read the token before. Otherwise the device goes on with the tokens that it
    /// samples.
    pub pipeline_depth: Option<usize>,
    /// Whether the answer's text goes on from the prompt's, so that both are one text. A space that the decoder drops at the start of a
    /// text, as that of Phi-3 does, is kept then. Without this, after a special token and with a grammar, the answer is a text of its own.
    pub continues_text: bool,
    /// Strings that end the answer and are not part of it. A string may span several tokens, or name a special token.
    pub stop: Vec<String>,
    /// Grammar that the answer has to match. An answer that ends at a stop string or at `max_tokens` may be incomplete.
    pub grammar: Option<Grammar>,
    /// Number of the likeliest tokens whose log-probabilities come with each new token, at most 255; none, nor that of the token,
    /// where absent.
    pub logprobs: Option<u8>,
    /// The same for the tokens of the prompt, in [`Event::PromptLogprobs`]. The KV cache of earlier requests is not used then.
    pub prompt_logprobs: Option<u8>,
    /// Who asks: the engine shares the device equally among those who have requests.
    pub key: Option<String>,
    /// Requests share cached prefixes only with those of the same salt.
    pub cache_salt: Option<String>,
    /// Most events that wait to be taken: with as many, no more tokens are computed until some are taken. No limit where absent.
    pub max_unread: Option<usize>,
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
        /// Log-probabilities, with [`GenerateOptions::logprobs`].
        logprobs: Option<Logprobs>,
    },
    /// Part of the prompt was computed.
    Prompt {
        /// Tokens that are computed, cached ones included.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// Log-probabilities of the prompt's tokens: none for the first one and for rows of pictures.
    PromptLogprobs(Vec<Option<Logprobs>>),
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

/// A generation in progress: an iterator of [`Event`]s that ends after [`Event::Done`] or an error, and a stream of them. Dropping it
/// cancels the request.
pub struct Generation {
    pub(crate) engine: Engine,
    pub(crate) id: RequestId,
    pub(crate) events: Arc<Events>,
    pub(crate) seed: Option<u64>,
    /// [`GenerateOptions::max_unread`].
    pub(crate) max_unread: Option<usize>,
}

impl Generation {
    /// The seed of the sampler; `None` for greedy decoding.
    pub fn seed(&self) -> Option<u64> {
        self.seed
    }

    /// Number of events that were not taken yet.
    pub fn pending(&self) -> usize {
        self.events.len()
    }

    /// Lets the engine go on if it waits for a reader, after an event was taken.
    fn taken(&self) {
        if self.max_unread.is_some_and(|most| self.events.len() + 1 == most) {
            self.engine.inner.shared.notify();
        }
    }

    /// Ends the request; the events end with [`FinishReason::Interrupted`].
    pub fn cancel(&self) {
        self.engine.inner.shared.cancel(self.id);
    }

    /// Runs to the end and collects the answer.
    pub fn collect_all(self) -> Result<Completion> {
        let (mut ids, mut text) = (Vec::new(), String::new());
        for event in self {
            match event? {
                Event::Token { id, text: piece, .. } => {
                    ids.push(id);
                    text.push_str(&piece);
                }
                Event::Text { text: piece } => text.push_str(&piece),
                Event::Done(summary) => return Ok(Completion { ids, text, summary }),
                Event::Prompt { .. } | Event::PromptLogprobs(_) | Event::RopeSwitch { .. } => {}
            }
        }
        // only an iterator that has ended already gets here: it ends with `Done` or an error
        Err(Error::Unfinished)
    }
}

impl Iterator for Generation {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        let event = self.events.wait();
        self.taken();
        event
    }
}

impl Stream for Generation {
    type Item = Result<Event>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let event = self.events.poll(cx.waker());
        if event.is_ready() {
            self.taken();
        }
        event
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.cancel();
    }
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
