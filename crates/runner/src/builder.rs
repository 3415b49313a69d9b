//! Builder of an [`Engine`].

use crate::device::{Device, DeviceOptions};
use crate::engine::{Engine, Inner, Reopen, start_thread};
use crate::scheduler::{Scheduler, SchedulerOptions};
use crate::source::Source;
use crate::text::{ChatTemplate, Tokenizer};
use crate::{Result, system_memory};
use phi3_model::{Model, PageTable, RopePolicy, TURN_ENDS};
use phi3_tensor::PAGE;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Callback with the bytes of weights loaded so far, and of all weights.
pub type Progress<'a> = dyn FnMut(u64, u64) + 'a;

/// Wrapper around a loaded model.
type WrapModel = Box<dyn FnMut(Box<dyn Model>) -> Box<dyn Model> + Send>;

/// Change of the scheduler's default options.
type ChangeScheduling<'a> = dyn Fn(&mut SchedulerOptions) + 'a;

/// Builder of an [`Engine`].
#[derive(Default)]
pub struct EngineBuilder<'a> {
    source: Option<Source>,
    device_options: DeviceOptions,
    policy: RopePolicy,
    template: Option<ChatTemplate>,
    require_chat: bool,
    cache_memory: Option<u64>,
    scheduling: Vec<Box<ChangeScheduling<'a>>>,
    wrap: Option<WrapModel>,
    progress: Option<Box<Progress<'a>>>,
}

impl<'a> EngineBuilder<'a> {
    /// A folder in the layout of a published checkpoint, or a GGUF file. Without this call, the demo model inside this library
    /// (feature `demo`).
    pub fn model(mut self, path: impl Into<PathBuf>) -> Self {
        self.source = Some(Source::Path(path.into()));
        self
    }

    /// Source of the model.
    pub fn source(mut self, source: Source) -> Self {
        self.source = Some(source);
        self
    }

    /// Device to run on.
    pub fn device(mut self, device: Device) -> Self {
        self.device_options.device = device;
        self
    }

    /// All device options at once.
    pub fn device_options(mut self, device_options: DeviceOptions) -> Self {
        self.device_options = device_options;
        self
    }

    /// Threads of the CPU backend.
    pub fn threads(mut self, threads: usize) -> Self {
        self.device_options.threads = Some(threads);
        self
    }

    /// Choice of a LongRoPE model's factors.
    pub fn rope_policy(mut self, policy: RopePolicy) -> Self {
        self.policy = policy;
        self
    }

    /// The chat template, in place of the model's own.
    pub fn chat_template(mut self, template: ChatTemplate) -> Self {
        self.template = Some(template);
        self
    }

    /// Makes [`build`](Self::build) fail, before the weights are loaded, if the model has no tokenizer or no chat template.
    pub fn require_chat(mut self) -> Self {
        self.require_chat = true;
        self
    }

    /// Bytes of the KV cache, for all requests together; where absent, three quarters of the memory that is available after
    /// loading, and at most what the running requests can use.
    pub fn cache_memory(mut self, bytes: u64) -> Self {
        self.cache_memory = Some(bytes);
        self
    }

    /// Changes the scheduler's options, whose defaults depend on the model and the device.
    pub fn scheduling(mut self, change: impl Fn(&mut SchedulerOptions) + 'a) -> Self {
        self.scheduling.push(Box::new(change));
        self
    }

    /// Wraps the model, also after the device was lost and opened again: for measurements, and for tests of failures.
    pub fn wrap_model(mut self, wrap: impl FnMut(Box<dyn Model>) -> Box<dyn Model> + Send + 'static) -> Self {
        self.wrap = Some(Box::new(wrap));
        self
    }

    /// Callback during loading, with the bytes of weights loaded so far, and of all weights.
    pub fn progress(mut self, progress: impl FnMut(u64, u64) + 'a) -> Self {
        self.progress = Some(Box::new(progress));
        self
    }

    /// Loads the model.
    ///
    /// # Errors
    ///
    /// Those of the model's files and of the device, and [`Error::NoThreads`](crate::Error::NoThreads) in a browser.
    pub fn build(mut self) -> Result<Engine> {
        if cfg!(target_family = "wasm") {
            return Err(crate::Error::NoThreads { platform: std::env::consts::ARCH });
        }
        let start = Instant::now();
        #[cfg(feature = "demo")]
        let source = self.source.unwrap_or(Source::Demo);
        #[cfg(not(feature = "demo"))]
        let source = self.source.ok_or(crate::Error::NoModel)?;
        let checkpoint = source.checkpoint()?;
        let total = checkpoint.bytes();
        let mut notes = checkpoint.notes().to_vec();
        // small files first: their errors are reported before the weights are loaded
        let generation = source.generation(&checkpoint, &mut notes)?;
        let files = source.files_of(&checkpoint)?;
        let tokenizer = source.tokenizer_of(&files)?;
        notes.extend(tokenizer.iter().flat_map(|tokenizer| tokenizer.notes()).cloned());
        let template = match self.template {
            Some(template) => Ok(template),
            None => source.templates_of(&files).and_then(|templates| Ok(templates.main()?)),
        };
        if self.require_chat && tokenizer.is_none() {
            return Err(source.no_tokenizer());
        }
        let template = if self.require_chat { Some(template?) } else { template.ok() };
        let image_reader = match &checkpoint.spec().vision {
            Some(_) => Some(source.image_reader(&checkpoint)?),
            None => None,
        };
        let loaded = self.device_options.load(&checkpoint, &mut |done| {
            if let Some(progress) = &mut self.progress {
                progress(done, total);
            }
        })?;
        let spec = checkpoint.spec().clone();
        let mut model = match &mut self.wrap {
            Some(wrap) => wrap(loaded.model),
            None => loaded.model,
        };
        let mut scheduling = SchedulerOptions::new(&spec, model.max_rows());
        scheduling.pipeline_depth = model.pipeline_depth();
        scheduling.phases_differ = model.phases_differ();
        self.scheduling.iter().for_each(|change| change(&mut scheduling));
        let pages = cache_pages(&*model, self.cache_memory, scheduling.max_running);
        let info = model.device().clone();
        model.reserve_slots(scheduling.max_running)?;
        let source = Arc::new(source);
        let slots = scheduling.max_running;
        let scheduler = Scheduler::new(scheduling, PageTable::with_budget(pages));
        let reopen = reopen(source.clone(), self.device_options, slots, self.wrap);
        let (shared, thread) = start_thread(scheduler, model, Some(reopen))?;
        let inner = Inner {
            turn_ends: turn_ends(tokenizer.as_ref(), template.as_ref()),
            spec,
            info,
            generation,
            tokenizer,
            template,
            notes,
            chats: Arc::default(),
            image_reader,
            breakers: Mutex::default(),
            constraints: Mutex::default(),
            reason: loaded.reason,
            source,
            policy: self.policy,
            loading: start.elapsed(),
            shared,
            thread: Some(thread),
        };
        Ok(Engine { inner: Arc::new(inner) })
    }
}

impl Engine {
    /// A builder with default options.
    pub fn builder<'a>() -> EngineBuilder<'a> {
        EngineBuilder::default()
    }
}

/// Pages of the KV cache: as many as `memory` bytes hold, but no more than the running requests can use.
fn cache_pages(model: &dyn Model, memory: Option<u64>, max_running: usize) -> usize {
    /// Assumed where the memory of a device is unknown.
    const UNKNOWN: u64 = 4 << 30;
    let available = || system_memory::available(model.device()).map_or(UNKNOWN, |bytes| bytes / 4 * 3);
    let affordable = memory.unwrap_or_else(available) / model.page_bytes().max(1);
    let context = model.spec().max_position_embeddings.div_ceil(PAGE);
    let usable = context.saturating_mul(max_running).min(model.max_pages());
    usize::try_from(affordable).unwrap_or(usize::MAX).clamp(1, usable.max(1))
}

/// Opens the device again after a loss, and loads the weights again.
fn reopen(source: Arc<Source>, device_options: DeviceOptions, slots: usize, mut wrap: Option<WrapModel>) -> Reopen {
    Box::new(move || {
        let mut model = device_options.load(&source.checkpoint()?, &mut |_| {})?.model;
        if let Some(wrap) = &mut wrap {
            model = wrap(model);
        }
        model.reserve_slots(slots)?;
        Ok(model)
    })
}

/// Special tokens that end a turn: those named in [`TURN_ENDS`], and the `eos_token` of the tokenizer's configuration. Many model
/// files list only the token that ends a text as a stop token; without these tokens, an answer would continue after its turn.
fn turn_ends(tokenizer: Option<&Tokenizer>, template: Option<&ChatTemplate>) -> Vec<u32> {
    let Some(tokenizer) = tokenizer else { return Vec::new() };
    let named = TURN_ENDS.into_iter().chain(template.and_then(|template| template.special_token("eos_token")));
    let ids = named.filter_map(|token| tokenizer.token_to_id(token)).filter(|&id| tokenizer.is_special(id));
    ids.collect()
}
