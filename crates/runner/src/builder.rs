//! Builder of an [`Engine`].

use crate::Result;
use crate::device::{Device, DeviceOptions};
use crate::engine::Engine;
use crate::source::Source;
use crate::text::{ChatTemplate, Tokenizer};
use phi3_model::{RopePolicy, TURN_ENDS};
use std::path::PathBuf;
use std::time::Instant;

/// Callback with the bytes of weights loaded so far, and of all weights.
pub type Progress<'a> = dyn FnMut(u64, u64) + 'a;
/// Builder of an [`Engine`].
#[derive(Default)]
pub struct EngineBuilder<'a> {
    source: Option<Source>,
    device_options: DeviceOptions,
    policy: RopePolicy,
    template: Option<ChatTemplate>,
    require_chat: bool,
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

    /// Callback during loading, with the bytes of weights loaded so far, and of all weights.
    pub fn progress(mut self, progress: impl FnMut(u64, u64) + 'a) -> Self {
        self.progress = Some(Box::new(progress));
        self
    }

    /// Loads the model.
    pub fn build(mut self) -> Result<Engine> {
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
        Ok(Engine {
            turn_ends: turn_ends(tokenizer.as_ref(), template.as_ref()),
            generation,
            tokenizer,
            template,
            notes,
            sequence: loaded.model.sequence(),
            last_chat: None,
            image_reader,
            features: Vec::new(),
            breakers: None,
            model: loaded.model,
            reason: loaded.reason,
            source,
            policy: self.policy,
            loading: start.elapsed(),
        })
    }
}

impl Engine {
    /// A builder with default options.
    pub fn builder<'a>() -> EngineBuilder<'a> {
        EngineBuilder::default()
    }
}

/// Special tokens that end a turn: those named in [`TURN_ENDS`], and the `eos_token` of the tokenizer's configuration. Many model
/// files list only the token that ends a text as a stop token; without these tokens, an answer would continue after its turn.
fn turn_ends(tokenizer: Option<&Tokenizer>, template: Option<&ChatTemplate>) -> Vec<u32> {
    let Some(tokenizer) = tokenizer else { return Vec::new() };
    let named = TURN_ENDS.into_iter().chain(template.and_then(|template| template.special_token("eos_token")));
    let ids = named.filter_map(|token| tokenizer.token_to_id(token)).filter(|&id| tokenizer.is_special(id));
    ids.collect()
}
