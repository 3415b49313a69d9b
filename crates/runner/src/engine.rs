//! A loaded model with its tokenizer and chat template.

use crate::sampler::{DryBreakers, SamplerOptions};
use crate::source::Source;
use crate::text::{ChatTemplate, Message, Tokenizer};
use crate::vision::ImageReader;
use crate::{Error, Result};
use phi3_model::{FeatureId, Features, GenerationConfig, Input, Model, ModelSpec, RopePolicy, Sequence};
use std::sync::Arc;
use std::time::Duration;

/// A loaded model with its tokenizer and chat template.
///
/// It keeps the KV cache of the last request. A request with the same beginning, such as the next turn of a chat, computes only
/// its new tokens.
pub struct Engine {
    pub(crate) model: Box<dyn Model>,
    pub(crate) generation: GenerationConfig,
    pub(crate) tokenizer: Option<Tokenizer>,
    pub(crate) template: Option<ChatTemplate>,
    /// Tokens that end a turn of a chat, in addition to those that end a text.
    pub(crate) turn_ends: Vec<u32>,
    pub(crate) notes: Vec<String>,
    pub(crate) sequence: Sequence,
    /// The last chat, its answer included; a longer chat continues from the same ids.
    pub(crate) last_chat: Option<RenderedChat>,
    /// Image preprocessing of a model with a vision tower.
    pub(crate) image_reader: Option<ImageReader>,
    /// Features of the last request's pictures.
    pub(crate) features: Vec<Arc<Features>>,
    /// Sequence breakers of the last request with DRY, as texts and as tokens.
    pub(crate) breakers: Option<(Vec<String>, Arc<DryBreakers>)>,
    pub(crate) reason: String,
    pub(crate) source: Source,
    pub(crate) policy: RopePolicy,
    pub(crate) loading: Duration,
}

/// A chat as it was fed to the model.
pub(crate) struct RenderedChat {
    /// Text of the template, then of the answer.
    pub(crate) text: String,
    /// Its tokens and rows of picture features.
    pub(crate) inputs: Vec<Input>,
    /// Ids of its pictures, in the order of their numbers.
    pub(crate) images: Vec<FeatureId>,
}

impl Engine {
    /// The model, for custom passes.
    pub fn model(&mut self) -> &mut dyn Model {
        &mut *self.model
    }

    /// Description of the model.
    pub fn spec(&self) -> &ModelSpec {
        self.model.spec()
    }

    /// Stop tokens and sampling defaults of the checkpoint.
    pub fn generation_config(&self) -> &GenerationConfig {
        &self.generation
    }

    /// The device, and the reason for it.
    pub fn device(&self) -> &str {
        &self.reason
    }

    /// Notes about values in the model's files that are ignored or replaced: one sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// How long loading took.
    pub fn loading(&self) -> Duration {
        self.loading
    }

    /// Source of the model.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Default sampling options: those of `generation_config.json`, else temperature 0.8 and top-p 0.95. With `do_sample: false`,
    /// greedy decoding. Every call has another seed.
    pub fn sampler_defaults(&self) -> SamplerOptions {
        let g = &self.generation;
        let repetition_penalty = g.repetition_penalty.unwrap_or(1.0) as f32;
        if g.do_sample == Some(false) {
            return SamplerOptions { repetition_penalty, ..SamplerOptions::default() };
        }
        SamplerOptions {
            temperature: g.temperature.unwrap_or(0.8) as f32,
            top_k: g.top_k.unwrap_or(0),
            top_p: g.top_p.unwrap_or(0.95) as f32,
            min_p: g.min_p.unwrap_or(0.0) as f32,
            repetition_penalty,
            seed: fresh_seed(),
            ..SamplerOptions::default()
        }
    }

    /// Sequence breakers of DRY as tokens; none if DRY is not used.
    pub(crate) fn breakers(&mut self, options: &SamplerOptions) -> Result<Arc<DryBreakers>> {
        let texts = &options.dry.sequence_breakers;
        if !options.dry.is_active() || texts.is_empty() {
            return Ok(Arc::default());
        }
        if let Some((_, breakers)) = self.breakers.as_ref().filter(|(known, _)| known == texts) {
            return Ok(breakers.clone());
        }
        let breakers = Arc::new(DryBreakers::new(self.tokenizer()?, texts)?);
        self.breakers = Some((texts.clone(), breakers.clone()));
        Ok(breakers)
    }

    /// The tokenizer.
    ///
    /// # Errors
    ///
    /// [`Error::NoTokenizer`] if the checkpoint has none.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer.as_ref().ok_or_else(|| self.source.no_tokenizer())
    }

    /// The prompt for `messages`, by the chat template.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        match &self.template {
            Some(template) => Ok(template.render(messages, add_generation_prompt)?),
            None => Ok(self.source.template()?.render(messages, add_generation_prompt)?),
        }
    }

    /// The chat template; `None` if the model has no usable one. [`render`](Self::render) returns the reason.
    pub fn template(&self) -> Option<&ChatTemplate> {
        self.template.as_ref()
    }

    /// Image preprocessing for this model.
    ///
    /// # Errors
    ///
    /// [`Error::NoVision`] if the model has no vision tower.
    pub fn image_reader(&self) -> Result<&ImageReader> {
        self.image_reader.as_ref().ok_or_else(|| Error::NoVision { path: self.source.path().to_owned() })
    }
    /// Waits for the oldest pass in flight and returns its token.
    pub(crate) fn wait(&mut self) -> Result<u32> {
        self.model.wait(&mut self.sequence).map_err(|error| {
            self.sequence.clear();
            self.explain(error)
        })
    }

    /// Waits for all passes in flight and drops their tokens.
    pub(crate) fn discard(&mut self) -> Result<()> {
        self.model.discard().map_err(|error| {
            self.sequence.clear();
            error.into()
        })
    }

    /// Names the damaged weight where logits were not finite.
    pub(crate) fn explain(&self, error: phi3_model::Error) -> Error {
        self.source.explain(error.into())
    }
}

/// A random seed of at most nine digits, short enough to be typed.
fn fresh_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish() % 1_000_000_000
}
