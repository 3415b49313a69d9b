//! A model with its tokenizer and chat template: prompts in, events out.

mod encode;

use crate::device::{Device, Setup};
use crate::generate::{GenerateOptions, Generation};
use crate::sampler::SamplerOptions;
use crate::text::{ChatTemplate, ChatTemplates, Error as TextError, Message, SpecialTokens, Tokenizer};
use crate::vision::{Image, ImageReader, count_tags, image_settings, image_tags, tagged};
use crate::{Error, Result};
use encode::tokens;
use phi3_image::Orientation;
use phi3_model::gguf::{Metadata, Vocabulary};
use phi3_model::{
    Checkpoint, FeatureId, Features, GenerationConfig, Input, Location, Model, ModelSpec, RopePolicy, Sequence,
    TURN_ENDS,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of weights that are loaded, and of all.
pub type Progress<'a> = dyn FnMut(u64, u64) + 'a;

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The tiny model inside this library (feature `demo`).
    #[cfg(feature = "demo")]
    Demo,
    /// What [`Location::find`] takes: a folder in the layout of a published checkpoint, a GGUF file, or what leads to one.
    Path(PathBuf),
}

impl Source {
    /// Opens the checkpoint; the weights are not read yet.
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        Ok(match self {
            #[cfg(feature = "demo")]
            Self::Demo => Checkpoint::from_memory(phi3_demo::NAME, phi3_demo::CONFIG, phi3_demo::weights())?,
            Self::Path(path) => Checkpoint::open(path)?,
        })
    }

    /// The tokenizer, where the source has one.
    pub fn tokenizer(&self) -> Result<Option<Tokenizer>> {
        self.tokenizer_of(&self.files()?)
    }

    /// The error of a source without a tokenizer, by what there is instead.
    pub fn no_tokenizer(&self) -> Error {
        let path = self.path().to_owned();
        let location = Location::find(&path).ok();
        let root = location.as_ref().and_then(Location::folder).unwrap_or(&path);
        let has = |name: &str| root.join(name).symlink_metadata().is_ok();
        let (found, hint) = if has("tokenizer.model") {
            let hint = "load the folder with transformers' AutoTokenizer and write tokenizer.json with its save_pretrained, or take a folder with tokenizer.json or a GGUF file of this model";
            ("SentencePiece's tokenizer.model only, which is not read", hint)
        } else {
            let found = match (has("vocab.json"), has("merges.txt")) {
                (true, false) => "vocab.json without merges.txt",
                (false, true) => "merges.txt without vocab.json",
                _ => "none",
            };
            (found, "put the model's tokenizer files beside its weights, or give token ids")
        };
        Error::NoTokenizer { path, found, hint }
    }

    /// The chat template.
    pub fn template(&self) -> Result<ChatTemplate> {
        Ok(self.templates()?.main()?)
    }

    /// All chat templates.
    pub fn templates(&self) -> Result<ChatTemplates> {
        self.templates_of(&self.files()?)
    }

    /// The chat template in a file, else the source's own or the library's of that name.
    ///
    /// # Errors
    /// There is none, or it is no valid one.
    pub fn template_from(&self, file_or_name: &str) -> Result<ChatTemplate> {
        let tokens = self.special_tokens()?;
        if Path::new(file_or_name).is_file() {
            return Ok(ChatTemplate::from_file(file_or_name, tokens)?);
        }
        // what is wrong with the source's own templates is told where they are used
        let own = self.templates().ok();
        if let Some(template) = own.as_ref().map(|own| own.named(file_or_name)).transpose()?.flatten() {
            return Ok(template);
        }
        Ok(ChatTemplate::from_file_or_name(file_or_name, tokens).map_err(|error| match (error, own) {
            (TextError::UnknownTemplate { name, known }, Some(own)) => {
                let known = own.names().chain([known.as_str()]).collect::<Vec<_>>().join(", ");
                TextError::UnknownTemplate { name, known }
            }
            (error, _) => error,
        })?)
    }

    /// The special tokens that a template other than the source's own can name.
    pub fn special_tokens(&self) -> Result<SpecialTokens> {
        Ok(match self.files()? {
            #[cfg(feature = "demo")]
            Files::Demo => SpecialTokens::default(),
            Files::Gguf(vocabulary, _) => SpecialTokens::of_gguf(&vocabulary),
            Files::Folder(root) => SpecialTokens::of_checkpoint(root)?,
        })
    }

    /// Stop tokens and sampling defaults of an opened checkpoint. Adds to `notes` what is not followed.
    pub fn generation(&self, checkpoint: &Checkpoint, notes: &mut Vec<String>) -> Result<GenerationConfig> {
        if let Some(generation) = checkpoint.generation(notes)? {
            return Ok(generation);
        }
        let (file, spec) = ("generation_config.json", checkpoint.spec());
        Ok(match self.files()? {
            Files::Folder(root) => GenerationConfig::read(&root.join(file), spec, notes)?,
            Files::Gguf(..) => GenerationConfig::of(spec),
            #[cfg(feature = "demo")]
            Files::Demo => {
                let path = Path::new(phi3_demo::NAME).join(file);
                GenerationConfig::parse(&path, phi3_demo::GENERATION_CONFIG.as_bytes(), spec, notes)?
            }
        })
    }

    /// What prepares pictures for an opened checkpoint.
    ///
    /// # Errors
    ///
    /// [`Error::NoVision`] where the model has no tower.
    pub fn image_reader(&self, checkpoint: &Checkpoint) -> Result<ImageReader> {
        let Some(vision) = &checkpoint.spec().vision else {
            return Err(Error::NoVision { path: self.path().to_owned() });
        };
        let preparation = match self.files()? {
            Files::Folder(root) => image_settings(vision, &root.join("preprocessor_config.json"))?,
            _ => image_settings(vision, Path::new(""))?,
        };
        Ok(ImageReader { preparation, orientation: Orientation::Apply, tag: vision.tag })
    }

    /// The path for messages.
    pub fn path(&self) -> &Path {
        match self {
            #[cfg(feature = "demo")]
            Self::Demo => Path::new(phi3_demo::NAME),
            Self::Path(path) => path,
        }
    }

    /// The source's files, with those of an opened checkpoint where there is one.
    fn files_of(&self, checkpoint: &Checkpoint) -> Result<Files> {
        match (checkpoint.metadata(), checkpoint.vocabulary()) {
            (Some(metadata), Some(vocabulary)) => Files::of_gguf(metadata, vocabulary.clone()),
            _ => self.files(),
        }
    }

    fn files(&self) -> Result<Files> {
        match self {
            #[cfg(feature = "demo")]
            Self::Demo => Ok(Files::Demo),
            Self::Path(path) => Ok(match Location::find(path)? {
                Location::Folder { root, .. } => Files::Folder(root),
                Location::Gguf(file) => {
                    let metadata = Metadata::open(&file)?;
                    Files::of_gguf(&metadata, Vocabulary::read(&metadata)?)?
                }
            }),
        }
    }

    fn tokenizer_of(&self, files: &Files) -> Result<Option<Tokenizer>> {
        Ok(match files {
            #[cfg(feature = "demo")]
            Files::Demo => Some(Tokenizer::from_bytes(
                format!("{}/tokenizer.json", phi3_demo::NAME),
                phi3_demo::TOKENIZER.as_bytes(),
            )?),
            Files::Gguf(vocabulary, _) => Some(Tokenizer::from_gguf(vocabulary)?),
            Files::Folder(root) => Tokenizer::from_folder(root)?,
        })
    }

    fn templates_of(&self, files: &Files) -> Result<ChatTemplates> {
        Ok(match files {
            #[cfg(feature = "demo")]
            Files::Demo => ChatTemplates::of_config(
                format!("{}/tokenizer_config.json", phi3_demo::NAME),
                phi3_demo::TOKENIZER_CONFIG,
            )?,
            Files::Gguf(_, templates) => templates.clone(),
            Files::Folder(root) => ChatTemplates::of_checkpoint(root)?,
        })
    }
}

/// Where the tokenizer and the chat templates of a source are.
enum Files {
    #[cfg(feature = "demo")]
    Demo,
    Folder(PathBuf),
    Gguf(Box<Vocabulary>, ChatTemplates),
}

impl Files {
    fn of_gguf(metadata: &Metadata, vocabulary: Vocabulary) -> Result<Self> {
        let templates = ChatTemplates::of_gguf(metadata, &vocabulary)?;
        Ok(Self::Gguf(Box::new(vocabulary), templates))
    }
}

/// Sets an [`Engine`] up.
#[derive(Default)]
pub struct EngineBuilder<'a> {
    source: Option<Source>,
    setup: Setup,
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

    /// Where the model comes from.
    pub fn source(mut self, source: Source) -> Self {
        self.source = Some(source);
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

    /// The chat template, in place of the model's own.
    pub fn chat_template(mut self, template: ChatTemplate) -> Self {
        self.template = Some(template);
        self
    }

    /// Makes [`build`](Self::build) fail, before the weights are loaded, where the model has no tokenizer or no chat template.
    pub fn require_chat(mut self) -> Self {
        self.require_chat = true;
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
        #[cfg(feature = "demo")]
        let source = self.source.unwrap_or(Source::Demo);
        #[cfg(not(feature = "demo"))]
        let source = self.source.ok_or(Error::NoModel)?;
        let checkpoint = source.checkpoint()?;
        let total = checkpoint.bytes();
        let mut notes = checkpoint.notes().to_vec();
        // small files first: what is wrong with them shows before the weights are loaded
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
        let placed = self.setup.load(&checkpoint, &mut |done| {
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
            resident: placed.model.sequence(),
            spoken: None,
            image_reader,
            features: Vec::new(),
            model: placed.model,
            reason: placed.reason,
            source,
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
    /// Tokens that end a turn of a chat, beside those that end a text.
    pub(crate) turn_ends: Vec<u32>,
    notes: Vec<String>,
    pub(crate) resident: Sequence,
    /// The last chat, its answer included: a longer chat goes on from these very ids.
    pub(crate) spoken: Option<Spoken>,
    /// Of a model with a tower.
    image_reader: Option<ImageReader>,
    /// Features of the last request's pictures.
    features: Vec<Arc<Features>>,
    reason: String,
    source: Source,
    pub(crate) policy: RopePolicy,
    pub(crate) loading: Duration,
}

/// A chat as it was computed.
pub(crate) struct Spoken {
    /// As the template has it.
    pub(crate) text: String,
    /// Its tokens and pictures.
    pub(crate) inputs: Vec<Input>,
    /// The pictures by their numbers.
    pub(crate) images: Vec<FeatureId>,
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
    pub fn spec(&self) -> &ModelSpec {
        self.model.spec()
    }

    /// Stop tokens and sampling defaults of the checkpoint.
    pub fn generation_config(&self) -> &GenerationConfig {
        &self.generation
    }

    /// The machine, and why it was taken.
    pub fn device(&self) -> &str {
        &self.reason
    }

    /// What the model's files say that is not followed, or is read otherwise than it stands there: one sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
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
        self.tokenizer.as_ref().ok_or_else(|| self.source.no_tokenizer())
    }

    /// The prompt that the chat template makes of `messages`.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        match &self.template {
            Some(template) => Ok(template.render(messages, add_generation_prompt)?),
            None => Ok(self.source.template()?.render(messages, add_generation_prompt)?),
        }
    }

    /// The chat template; `None` where the model has none that can be used, which [`render`](Self::render) tells.
    pub fn template(&self) -> Option<&ChatTemplate> {
        self.template.as_ref()
    }

    /// What prepares pictures for this model.
    ///
    /// # Errors
    ///
    /// [`Error::NoVision`] where the model has no tower.
    pub fn image_reader(&self) -> Result<&ImageReader> {
        self.image_reader.as_ref().ok_or_else(|| Error::NoVision { path: self.source.path().to_owned() })
    }

    /// Answers the last of `messages`.
    pub fn chat(&mut self, messages: &[Message], options: &GenerateOptions) -> Result<Generation<'_>> {
        self.chat_with_images(messages, &[], options)
    }

    /// Answers the last of `messages`, whose tags ([`ImageReader::tag`]) stand for `images`; where no message has one, they are put in
    /// front of the last question.
    ///
    /// # Errors
    ///
    /// [`Error::NoVision`] where the model has no tower, [`Error::ImageTags`] where the tags are not those of the pictures, and
    /// what [`chat`](Self::chat) reports.
    pub fn chat_with_images(
        &mut self,
        messages: &[Message],
        images: &[Image],
        options: &GenerateOptions,
    ) -> Result<Generation<'_>> {
        let text = match self.tag_for(images)? {
            Some(tag) => self.render(&tagged(tag, messages, images.len()), true)?,
            None => self.render(messages, true)?,
        };
        self.check_size(&text)?;
        let inputs = self.encode_chat(&text, images)?;
        if inputs.is_empty() {
            return Err(Error::EmptyPrompt { hint: "the chat template prints nothing for these messages" });
        }
        let spoken = Spoken { text, inputs: Vec::new(), images: images.iter().map(Image::id).collect() };
        Generation::start(self, inputs, Some(spoken), options)
    }

    /// Continues a text, without a chat template.
    pub fn complete(&mut self, prompt: &str, options: &GenerateOptions) -> Result<Generation<'_>> {
        self.complete_with_images(prompt, &[], options)
    }

    /// Continues a text, whose tags stand for `images`; where it has none, they are put in front.
    ///
    /// # Errors
    ///
    /// Those of [`chat_with_images`](Self::chat_with_images).
    pub fn complete_with_images(
        &mut self,
        prompt: &str,
        images: &[Image],
        options: &GenerateOptions,
    ) -> Result<Generation<'_>> {
        self.check_size(prompt)?;
        let inputs = match self.tag_for(images)? {
            Some(tag) if count_tags(tag, prompt) > 0 => self.encode_pieces(tag, prompt, images)?,
            Some(tag) => self.encode_pieces(tag, &(image_tags(tag, 1, images.len()) + prompt), images)?,
            None => tokens(&self.tokenizer()?.encode(prompt, true)?),
        };
        if inputs.is_empty() {
            return Err(Error::EmptyPrompt { hint: "give some text to continue" });
        }
        Generation::start(self, inputs, None, options)
    }

    /// Continues token ids.
    pub fn continue_ids(&mut self, ids: &[u32], options: &GenerateOptions) -> Result<Generation<'_>> {
        Generation::start(self, tokens(ids), None, options)
    }

    /// The token of the oldest pass under way.
    pub(crate) fn land(&mut self) -> Result<u32> {
        self.model.land(&mut self.resident).map_err(|error| {
            self.resident.clear();
            self.explain(error)
        })
    }

    /// Waits for passes whose tokens nobody wants.
    pub(crate) fn discard(&mut self) -> Result<()> {
        self.model.discard().map_err(|error| {
            self.resident.clear();
            error.into()
        })
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
        Ok(phi3_model::check_length(self.spec(), text.len() / longest)?)
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

/// The tokens that end a turn: those that Phi models have for it, and the `eos_token` of the tokenizer's configuration. Files
/// that name only the end of a text are common, and an answer would go on behind its end.
fn turn_ends(tokenizer: Option<&Tokenizer>, template: Option<&ChatTemplate>) -> Vec<u32> {
    let Some(tokenizer) = tokenizer else { return Vec::new() };
    let named = TURN_ENDS.into_iter().chain(template.and_then(|template| template.special_token("eos_token")));
    let ids = named.filter_map(|token| tokenizer.token_to_id(token)).filter(|&id| tokenizer.is_special(id));
    ids.collect()
}

/// A seed that nobody chose: short enough to be typed again.
fn fresh_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish() % 1_000_000_000
}
