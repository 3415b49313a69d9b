//! A loaded model with its tokenizer and chat template.

pub(crate) mod chats;
mod job;
mod shared;
pub(crate) mod start;
mod worker;

use crate::constraint::ConstraintFactory;
use crate::sampler::{DryBreakers, SamplerOptions};
use crate::scheduler::{Busy, Scheduler, SchedulerStats};
use crate::source::Source;
use crate::text::{ChatTemplate, Message, Tokenizer};
use crate::vision::{Image, ImageReader};
use crate::{Error, Result};
use chats::Chats;
use phi3_model::{Features, GenerationConfig, Model, ModelSpec, RopePolicy};
use phi3_tensor::DeviceInfo;
use shared::Cache;
pub(crate) use shared::Shared;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
pub(crate) use worker::Reopen;
use worker::Worker;

/// A loaded model with its tokenizer and chat template, for any number of requests at once.
///
/// A thread computes the passes; each pass has rows of all running requests. Clones are handles of the same engine. The KV cache
/// keeps what earlier requests computed: a request with the same beginning, such as the next turn of a chat, computes only its
/// new tokens.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

/// What all handles of an engine share. The thread ends with the last one.
pub(crate) struct Inner {
    pub(crate) spec: ModelSpec,
    pub(crate) info: DeviceInfo,
    pub(crate) generation: GenerationConfig,
    pub(crate) tokenizer: Option<Tokenizer>,
    pub(crate) template: Option<ChatTemplate>,
    /// Tokens that end a turn of a chat, in addition to those that end a text.
    pub(crate) turn_ends: Vec<u32>,
    pub(crate) notes: Vec<String>,
    pub(crate) chats: Arc<Chats>,
    /// Image preprocessing of a model with a vision tower.
    pub(crate) image_reader: Option<ImageReader>,
    /// Sequence breakers of the last request with DRY, as texts and as tokens.
    pub(crate) breakers: Mutex<Option<(Vec<String>, Arc<DryBreakers>)>>,
    /// Constraints of the tokenizer, from the first request with a grammar on.
    pub(crate) constraints: Mutex<Option<Arc<ConstraintFactory>>>,
    pub(crate) reason: String,
    pub(crate) source: Arc<Source>,
    pub(crate) policy: RopePolicy,
    pub(crate) loading: Duration,
    pub(crate) shared: Arc<Shared>,
    pub(crate) thread: Option<JoinHandle<()>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.stop();
        if let Some(thread) = self.thread.take() {
            // a panic there has ended the requests already
            let _ = thread.join();
        }
    }
}

/// Starts the thread of an engine.
pub(crate) fn start_thread(
    scheduler: Scheduler,
    model: Box<dyn Model>,
    reopen: Option<Reopen>,
) -> Result<(Arc<Shared>, JoinHandle<()>)> {
    let shared = Arc::new(Shared::new(scheduler));
    let mut worker = Worker::new(shared.clone(), model, reopen);
    let thread = std::thread::Builder::new().name("phi3-engine".into()).spawn(move || worker.run());
    let thread = thread.map_err(|source| Error::Program(source.into()))?;
    Ok((shared, thread))
}

impl Engine {
    /// Runs `task` on the model between two passes, and waits for its result. The KV cache is lost: requests that run are computed
    /// again.
    ///
    /// # Errors
    ///
    /// [`Error::Unfinished`] if the engine has ended.
    pub fn with_model<T: Send + 'static>(&self, task: impl FnOnce(&mut dyn Model) -> T + Send + 'static) -> Result<T> {
        self.inner.shared.run(Cache::Lost, task)
    }

    /// Features of a picture, computed between two passes.
    pub(crate) fn encode_image(&self, image: &Image) -> Result<Arc<Features>> {
        let image = image.clone();
        let features = self.inner.shared.run(Cache::Kept, move |model| model.encode_image(&image.input(), None))?;
        features.map_err(|error| self.inner.source.explain(error.into()))
    }

    /// Figures of the scheduler: running and waiting requests, and use of the KV cache.
    pub fn stats(&self) -> SchedulerStats {
        self.inner.shared.stats()
    }

    /// Why a request with a prompt of `tokens` tokens would be refused now, because too many wait: before the work on its prompt.
    pub fn busy(&self, tokens: usize) -> Option<Busy> {
        self.inner.shared.busy(tokens)
    }

    /// Description of the model.
    pub fn spec(&self) -> &ModelSpec {
        &self.inner.spec
    }

    /// The device.
    pub fn device_info(&self) -> &DeviceInfo {
        &self.inner.info
    }

    /// Stop tokens and sampling defaults of the checkpoint.
    pub fn generation_config(&self) -> &GenerationConfig {
        &self.inner.generation
    }

    /// The device, and the reason for it.
    pub fn device(&self) -> &str {
        &self.inner.reason
    }

    /// Notes about values in the model's files that are ignored or replaced: one sentence each.
    pub fn notes(&self) -> &[String] {
        &self.inner.notes
    }

    /// How long loading took.
    pub fn loading(&self) -> Duration {
        self.inner.loading
    }

    /// Source of the model.
    pub fn source(&self) -> &Source {
        &self.inner.source
    }

    /// Default sampling options: those of `generation_config.json`, else temperature 0.8 and top-p 0.95. With `do_sample: false`,
    /// greedy decoding. Every call has another seed.
    pub fn sampler_defaults(&self) -> SamplerOptions {
        let g = &self.inner.generation;
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
    pub(crate) fn breakers(&self, options: &SamplerOptions) -> Result<Arc<DryBreakers>> {
        let texts = &options.dry.sequence_breakers;
        if !options.dry.is_active() || texts.is_empty() {
            return Ok(Arc::default());
        }
        let mut known = self.inner.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, breakers)) = known.as_ref().filter(|(known, _)| known == texts) {
            return Ok(breakers.clone());
        }
        let breakers = Arc::new(DryBreakers::new(self.tokenizer()?, texts)?);
        *known = Some((texts.clone(), breakers.clone()));
        Ok(breakers)
    }

    /// Constraints of the tokenizer, for answers that have to match a grammar. They are built by the first call.
    ///
    /// # Errors
    ///
    /// [`Error::NoTokenizer`] if the checkpoint has none, and those of [`ConstraintFactory::new`].
    pub fn constraints(&self) -> Result<Arc<ConstraintFactory>> {
        let mut constraints = self.inner.constraints.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(constraints) = &*constraints {
            return Ok(constraints.clone());
        }
        let stop_tokens = [self.generation_config().eos_token_id.as_slice(), &self.inner.turn_ends].concat();
        let built = Arc::new(ConstraintFactory::new(self.tokenizer()?, &stop_tokens)?);
        *constraints = Some(built.clone());
        Ok(built)
    }

    /// The tokenizer.
    ///
    /// # Errors
    ///
    /// [`Error::NoTokenizer`] if the checkpoint has none.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.inner.tokenizer.as_ref().ok_or_else(|| self.inner.source.no_tokenizer())
    }

    /// The prompt for `messages`, by the chat template.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        match &self.inner.template {
            Some(template) => Ok(template.render(messages, add_generation_prompt)?),
            None => Ok(self.inner.source.template()?.render(messages, add_generation_prompt)?),
        }
    }

    /// The chat template; `None` if the model has no usable one. [`render`](Self::render) returns the reason.
    pub fn template(&self) -> Option<&ChatTemplate> {
        self.inner.template.as_ref()
    }

    /// Image preprocessing for this model.
    ///
    /// # Errors
    ///
    /// [`Error::NoVision`] if the model has no vision tower.
    pub fn image_reader(&self) -> Result<&ImageReader> {
        let path = || self.inner.source.path().to_owned();
        self.inner.image_reader.as_ref().ok_or_else(|| Error::NoVision { path: path() })
    }
}

/// A random seed of at most nine digits, short enough to be typed.
fn fresh_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish() % 1_000_000_000
}

#[cfg(all(test, feature = "demo"))]
mod tests;
