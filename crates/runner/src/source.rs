//! Sources of a model, and the small files beside its weights.

use crate::text::{ChatTemplate, ChatTemplates, Error as TextError, SpecialTokens, Tokenizer};
use crate::vision::{ImageReader, image_settings};
use crate::{Error, Result};
use phi3_image::Orientation;
use phi3_model::gguf::{Metadata, Vocabulary};
use phi3_model::{Checkpoint, GenerationConfig, Location};
use std::path::{Path, PathBuf};

/// Source of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The tiny model inside this library (feature `demo`).
    #[cfg(feature = "demo")]
    Demo,
    /// A path for [`Location::find`]: a checkpoint folder, one of its files, a GGUF file, a folder that holds one, or a model's
    /// folder in the Hugging Face cache.
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

    /// Returns the tokenizer; `None` if the source has none.
    pub fn tokenizer(&self) -> Result<Option<Tokenizer>> {
        self.tokenizer_of(&self.files()?)
    }

    /// Returns the error of a source without a tokenizer. It names the incomplete or unsupported tokenizer files found.
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

    /// Returns the chat template in a file. If there is no such file, returns the template of that name: the source's own, else
    /// the library's.
    ///
    /// # Errors
    /// There is neither a file nor a template of that name, or the template is invalid.
    pub fn template_from(&self, file_or_name: &str) -> Result<ChatTemplate> {
        let tokens = self.special_tokens()?;
        if Path::new(file_or_name).is_file() {
            return Ok(ChatTemplate::from_file(file_or_name, tokens)?);
        }
        // errors of the source's own templates are reported where they are used
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

    /// Stop tokens and sampling defaults of an opened checkpoint. Adds a note for each field that is not followed.
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

    /// Returns the reader of pictures for an opened checkpoint.
    ///
    /// # Errors
    ///
    /// [`Error::NoVision`] if the model has no vision tower. `preprocessor_config.json` cannot be read, or is invalid.
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

    /// Returns the source's files. Those of a GGUF file come from the opened checkpoint's metadata, which is not read again.
    pub(crate) fn files_of(&self, checkpoint: &Checkpoint) -> Result<Files> {
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

    pub(crate) fn tokenizer_of(&self, files: &Files) -> Result<Option<Tokenizer>> {
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

    pub(crate) fn templates_of(&self, files: &Files) -> Result<ChatTemplates> {
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

    /// Returns the error; one about logits that are not finite names the first weight with NaN or infinity, if there is one.
    pub fn explain(&self, error: Error) -> Error {
        let Error::Model(phi3_model::Error::NotFinite { what, position, cause }) = error else { return error };
        let damaged = self.checkpoint().ok().and_then(|checkpoint| checkpoint.first_not_finite());
        let cause =
            damaged.map_or(cause, |name| format!("the weight {name} holds NaN or infinity; hint: fetch it again"));
        phi3_model::Error::NotFinite { what, position, cause }.into()
    }
}

/// Place of a source's tokenizer and chat templates.
pub(crate) enum Files {
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
