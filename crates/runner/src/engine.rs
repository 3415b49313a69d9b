//! A model with its tokenizer and chat template: prompts in, events out.

use crate::device::{Device, Setup};
use crate::generate::{GenerateOptions, Generation};
use crate::sampler::SamplerOptions;
use crate::text::{ChatTemplate, Message, Tokenizer};
use crate::{Error, Result};
use phi3_model::gguf::Vocabulary;
use phi3_model::{Checkpoint, Config, GenerationConfig, Model, RopePolicy, Sequence};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes of weights that are loaded, and of all.
pub type Progress<'a> = dyn FnMut(u64, u64) + 'a;

/// Where a model comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// The tiny model inside this library.
    #[default]
    Demo,
    /// A folder in the layout of a published checkpoint, or a GGUF file.
    Path(PathBuf),
}

impl Source {
    /// Opens the checkpoint; the weights are not read yet.
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        Ok(match self {
            Self::Demo => Checkpoint::from_memory(phi3_demo::NAME, phi3_demo::CONFIG, phi3_demo::weights())?,
            Self::Path(path) => Checkpoint::open(path)?,
        })
    }

    /// The tokenizer, where the source has one.
    pub fn tokenizer(&self) -> Result<Option<Tokenizer>> {
        Ok(match self {
            Self::Demo => Some(Tokenizer::from_bytes(
                format!("{}/tokenizer.json", phi3_demo::NAME),
                phi3_demo::TOKENIZER.as_bytes(),
            )?),
            Self::Path(path) => match self.vocabulary()? {
                Some(vocabulary) => Some(Tokenizer::from_gguf(&vocabulary)?),
                None => {
                    let file = path.join("tokenizer.json");
                    if file.symlink_metadata().is_ok() { Some(Tokenizer::from_file(file)?) } else { None }
                }
            },
        })
    }

    /// The chat template.
    pub fn template(&self) -> Result<ChatTemplate> {
        Ok(match self {
            Self::Demo => ChatTemplate::from_config(
                format!("{}/tokenizer_config.json", phi3_demo::NAME),
                phi3_demo::TOKENIZER_CONFIG,
            )?,
            Self::Path(path) => match self.vocabulary()? {
                Some(vocabulary) => ChatTemplate::from_gguf(&vocabulary)?,
                None => ChatTemplate::from_checkpoint(path)?,
            },
        })
    }

    /// The tokenizer's data of a GGUF file; `None` for other sources.
    pub fn vocabulary(&self) -> Result<Option<Vocabulary>> {
        match self {
            Self::Path(path) if path.is_file() => Ok(Checkpoint::open(path)?.vocabulary().cloned()),
            _ => Ok(None),
        }
    }

    pub(crate) fn generation(&self, config: &Config) -> Result<GenerationConfig> {
        let file = "generation_config.json";
        Ok(match self {
            Self::Demo => {
                let path = Path::new(phi3_demo::NAME).join(file);
                GenerationConfig::parse(&path, phi3_demo::GENERATION_CONFIG.as_bytes(), config)?
            }
            Self::Path(path) => GenerationConfig::read(&path.join(file), config)?,
        })
    }

    /// The path for messages.
    pub fn path(&self) -> &Path {
        match self {
            Self::Demo => Path::new(phi3_demo::NAME),
            Self::Path(path) => path,
        }
    }
}

/// Sets an [`Engine`] up.
#[derive(Default)]
pub struct EngineBuilder<'a> {
    source: Source,
    setup: Setup,
    policy: RopePolicy,
    progress: Option<Box<Progress<'a>>>,
}

impl<'a> EngineBuilder<'a> {
    /// A folder in the layout of a published checkpoint, or a GGUF file. Without this call, the embedded demo model.
    pub fn model(mut self, path: impl Into<PathBuf>) -> Self {
        self.source = Source::Path(path.into());
        self
    }

    /// Where the model comes from.
    pub fn source(mut self, source: Source) -> Self {
        self.source = source;
        self
    }

    /// Which machine to run on.
    pub fn device(mut self, device: Device) -> Self {
        self.setup.device = device;
        self
    }

    /// Machine, threads and pass size at once.
    pub fn setup(mut self, setup: Setup) -> Self {
        self.setup = setup;
        self
    }

    /// Threads of the CPU backend.
    pub fn threads(mut self, threads: usize) -> Self {
        self.setup.threads = Some(threads);
        self
    }

    /// Which factors a LongRoPE model uses.
    pub fn rope_policy(mut self, policy: RopePolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Is told how many bytes of the weights are loaded.
    pub fn progress(mut self, progress: impl FnMut(u64, u64) + 'a) -> Self {
        self.progress = Some(Box::new(progress));
        self
    }

    /// Loads the model.
    pub fn build(mut self) -> Result<Engine> {
        let start = Instant::now();
        let checkpoint = self.source.checkpoint()?;
        let total = checkpoint.bytes();
        // small files first: what is wrong with them shows before the weights are loaded
        let generation = self.source.generation(checkpoint.config())?;
        let tokenizer = self.source.tokenizer()?;
        let template = self.source.template().ok();
        let placed = self.setup.load(&checkpoint, &mut |done| {
            if let Some(progress) = &mut self.progress {
                progress(done, total);
            }
        })?;
        Ok(Engine {
            generation,
            tokenizer,
            template,
            resident: placed.model.sequence(),
            spoken: None,
            model: placed.model,
            reason: placed.reason,
            source: self.source,
            policy: self.policy,
            loading: start.elapsed(),
        })
    }
}

/// A loaded model with its tokenizer and chat template.
///
/// It keeps the keys and values of the last text, so that a request which begins like it, as the next turn of a chat
/// does, computes only what is new.
pub struct Engine {
    pub(crate) model: Box<dyn Model>,
    pub(crate) generation: GenerationConfig,
    pub(crate) tokenizer: Option<Tokenizer>,
    template: Option<ChatTemplate>,
    pub(crate) resident: Sequence,
    /// The last chat's text and ids, its answer included: a longer chat goes on from these very ids.
    pub(crate) spoken: Option<(String, Vec<u32>)>,
    reason: String,
    source: Source,
    pub(crate) policy: RopePolicy,
    pub(crate) loading: Duration,
}

impl Engine {
    /// Begins to set an engine up.
    pub fn builder<'a>() -> EngineBuilder<'a> {
        EngineBuilder::default()
    }

    /// The model, for passes of one's own.
    pub fn model(&mut self) -> &mut dyn Model {
        &mut *self.model
    }

    /// What the model computes.
    pub fn config(&self) -> &Config {
        self.model.config()
    }

    /// Stop tokens and sampling defaults of the checkpoint.
    pub fn generation_config(&self) -> &GenerationConfig {
        &self.generation
    }

    /// The machine, and why it was taken.
    pub fn device(&self) -> &str {
        &self.reason
    }

    /// How long loading took.
    pub fn loading(&self) -> Duration {
        self.loading
    }

    /// Where the model came from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// How this model samples unless told otherwise: `generation_config.json` where it says so, else temperature 0.8
    /// and top-p 0.95. Every call has another seed.
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
        }
    }

    /// The tokenizer.
    ///
    /// # Errors
    ///
    /// [`Error::NoTokenizer`] where the checkpoint has none.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer.as_ref().ok_or_else(|| Error::NoTokenizer { path: self.source.path().to_owned() })
    }

    /// The prompt that the chat template makes of `messages`.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        match &self.template {
            Some(template) => Ok(template.render(messages, add_generation_prompt)?),
            None => Ok(self.source.template()?.render(messages, add_generation_prompt)?),
        }
    }

    /// Answers the last of `messages`.
    pub fn chat(&mut self, messages: &[Message], options: &GenerateOptions) -> Result<Generation<'_>> {
        let text = self.render(messages, true)?;
        self.check_size(&text)?;
        let ids = self.encode_chat(&text)?;
        Generation::start(self, ids, Some(text), options)
    }

    /// Continues a text, without a chat template.
    pub fn complete(&mut self, prompt: &str, options: &GenerateOptions) -> Result<Generation<'_>> {
        self.check_size(prompt)?;
        let ids = self.tokenizer()?.encode(prompt, true)?;
        if ids.is_empty() {
            return Err(Error::EmptyPrompt { hint: "give some text to continue" });
        }
        Generation::start(self, ids, None, options)
    }

    /// Continues token ids.
    pub fn continue_ids(&mut self, ids: &[u32], options: &GenerateOptions) -> Result<Generation<'_>> {
        Generation::start(self, ids.to_vec(), None, options)
    }

    /// The ids of a rendered chat. Where it goes on from the last one at a token that stands for itself, the ids of that
    /// one are kept as the model produced them, so that its cache stays valid.
    fn encode_chat(&self, text: &str) -> Result<Vec<u32>> {
        let tokenizer = self.tokenizer()?;
        if let Some((spoken, ids)) = &self.spoken
            && let Some(rest) = text.strip_prefix(spoken.as_str())
        {
            let rest = tokenizer.encode(rest, false)?;
            if rest.first().is_some_and(|&id| tokenizer.is_special(id)) {
                return Ok([ids.as_slice(), &rest].concat());
            }
        }
        Ok(tokenizer.encode(text, true)?)
    }

    /// The token of the oldest pass under way.
    pub(crate) fn land(&mut self) -> Result<u32> {
        self.model.land(&mut self.resident).map_err(|error| {
            self.resident.clear();
            self.explain(error)
        })
    }

    /// Lets passes land whose tokens nobody wants.
    pub(crate) fn discard(&mut self) -> Result<()> {
        while self.model.under_way() > 0 {
            match self.model.land(&mut self.resident) {
                Ok(_) | Err(phi3_model::Error::NotFinite { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Names the damaged weight where logits were not finite.
    pub(crate) fn explain(&self, error: phi3_model::Error) -> Error {
        self.source.explain(error.into())
    }

    /// Refuses a text that cannot fit the context, however well it is tokenized, before it is.
    fn check_size(&self, text: &str) -> Result<()> {
        const LARGE: usize = 1 << 20;
        if text.len() < LARGE {
            return Ok(());
        }
        let tokenizer = self.tokenizer()?;
        let ids = 0..tokenizer.vocab_size() as u32;
        let longest = ids.filter_map(|id| Some(tokenizer.id_to_token(id)?.len())).max().unwrap_or(1).max(1);
        Ok(phi3_model::check_length(self.config(), text.len() / longest)?)
    }
}

impl Source {
    /// Names the damaged weight in an error about logits that were not finite.
    pub fn explain(&self, error: Error) -> Error {
        let Error::Model(phi3_model::Error::NotFinite { what, position, cause }) = error else { return error };
        let damaged = self.checkpoint().ok().and_then(|checkpoint| checkpoint.first_not_finite());
        let cause =
            damaged.map_or(cause, |name| format!("the weight {name} holds NaN or infinity; hint: fetch it again"));
        phi3_model::Error::NotFinite { what, position, cause }.into()
    }
}

/// A seed that nobody chose: short enough to be typed again.
fn fresh_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish() % 1_000_000_000
}
