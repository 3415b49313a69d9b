//! The start of a request.

use super::Engine;
use super::chats::RenderedChat;
use super::job::{Clock, Job};
use crate::generate::events::Events;
use crate::generate::{GenerateOptions, Generation};
use crate::sampler::{Sampler, SamplerError};
use crate::scheduler::NewRequest;
use crate::text::TextStream;
use crate::text::stop::StopTexts;
use crate::{Error, Result};
use phi3_model::{Input, Outputs};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A prompt as the model takes it: tokens and rows of picture features. Several requests may continue the same prompt.
#[derive(Clone)]
pub struct Prompt {
    pub(crate) inputs: Vec<Input>,
    /// Text and pictures of a chat.
    pub(crate) chat: Option<RenderedChat>,
}

impl Prompt {
    /// A prompt of token ids.
    pub fn from_ids(ids: &[u32]) -> Self {
        Self { inputs: crate::encode::tokens(ids), chat: None }
    }

    /// Length in tokens, those of pictures included.
    pub fn len(&self) -> usize {
        self.inputs.len()
    }

    /// Whether there is nothing to continue.
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    /// The tokens; 0 for each row of a picture.
    pub fn ids(&self) -> Vec<u32> {
        self.inputs.iter().map(|input| input.token().unwrap_or(0)).collect()
    }
}

impl Engine {
    /// Continues a prompt.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyPrompt`], options out of range, a prompt that is longer than the context or needs more of the KV cache than there
    /// is, and [`Error::Submit`] if too many requests wait.
    pub fn generate(&self, prompt: &Prompt, options: &GenerateOptions) -> Result<Generation> {
        let Prompt { inputs, chat } = prompt;
        if inputs.is_empty() {
            return Err(Error::EmptyPrompt { hint: "give at least one token" });
        }
        let spec = self.spec();
        phi3_model::check_length(spec, inputs.len())?;
        phi3_model::check_inputs(spec, inputs)?;
        let sampler = options.sampler.clone().unwrap_or_else(|| self.sampler_defaults());
        let vocabulary = spec.vocab_size;
        if let Some(&(token, _)) = sampler.logit_bias.iter().find(|(token, _)| *token as usize >= vocabulary) {
            return Err(SamplerError::BiasedToken { vocabulary, token }.into());
        }
        let breakers = self.breakers(&sampler)?;
        let sampler = Sampler::with_breakers(sampler, breakers)?;
        let (stop_tokens, stop_texts) = self.stops(chat.is_some(), options)?;
        let constraint = match &options.grammar {
            Some(grammar) => Some(self.constraints()?.compile_with(grammar, &stop_tokens)?),
            None => None,
        };
        let stop_tokens: Arc<[u32]> = stop_tokens.into();
        // the last new token is not computed, so it needs no room in the context
        let limit = options.max_tokens.unwrap_or(usize::MAX).min(spec.max_position_embeddings - inputs.len() + 1);
        let request = NewRequest {
            inputs: inputs.clone(),
            max_tokens: limit,
            stop_tokens: stop_tokens.clone(),
            rope: self.inner.policy,
            salt: options.cache_salt.as_deref().map(Into::into),
            key: options.key.as_deref().unwrap_or_default().into(),
            pipelined: sampler.is_on_device() && options.pipeline_depth != Some(0),
            outputs: if options.prompt_logprobs.is_some() { Outputs::All } else { Outputs::Last },
            chunk: options.chunk,
        };
        let events = Arc::new(Events::default());
        let prompt_logprobs = if options.prompt_logprobs.is_some() { inputs.len() } else { 0 };
        let job = Job {
            options: options.clone(),
            stream: self.stream(prompt, options),
            stop_texts: StopTexts::new(stop_texts),
            stop_tokens,
            constraint,
            ids: inputs.iter().filter_map(Input::token).collect(),
            inputs: inputs.clone(),
            prompt_tokens: inputs.len(),
            limit,
            chat: chat.clone(),
            chats: self.inner.chats.clone(),
            source: self.inner.source.clone(),
            events: events.clone(),
            logprobs: BTreeMap::new(),
            prompt_logprobs: vec![None; prompt_logprobs],
            clock: Clock::new(self.inner.loading),
            sampler,
        };
        let seed = job.seed();
        let id = self.inner.shared.submit(request, job)?;
        Ok(Generation { engine: self.clone(), id, events, seed, max_unread: options.max_unread })
    }

    /// The text of an answer's tokens.
    fn stream(&self, prompt: &Prompt, options: &GenerateOptions) -> Option<TextStream> {
        let tokenizer = self.inner.tokenizer.as_ref()?;
        let stream = tokenizer.stream(!options.raw);
        let last = prompt.inputs.last().and_then(Input::token);
        let after_text = last.is_some_and(|id| !tokenizer.is_special(id));
        let continues = options.continues_text && after_text && options.grammar.is_none();
        Some(if continues { stream.continued() } else { stream })
    }

    /// Stop tokens and stop strings of an answer: those of the request and, without `ignore_eos`, those of the model's files. A chat
    /// also ends at the tokens that end a turn.
    fn stops(&self, is_chat: bool, options: &GenerateOptions) -> Result<(Vec<u32>, Vec<String>)> {
        if options.stop.iter().any(String::is_empty) {
            let expected = "texts of at least one character".into();
            return Err(Error::Argument { argument: "stop", expected, found: "an empty one".into() });
        }
        let mut texts = options.stop.clone();
        let mut tokens = Vec::new();
        if !texts.is_empty() {
            let tokenizer = self.tokenizer()?;
            // a special token is not part of the text, so its id is the stop token
            let named = texts.iter().filter_map(|text| tokenizer.token_to_id(text));
            tokens.extend(named.filter(|&id| tokenizer.is_special(id)));
        }
        if !options.ignore_eos {
            let generation = self.generation_config();
            tokens.extend(&generation.eos_token_id);
            tokens.extend(self.inner.turn_ends.iter().filter(|_| is_chat));
            texts.extend(generation.stop_strings.iter().filter(|text| !text.is_empty()).cloned());
        }
        Ok((tokens, texts))
    }
}
