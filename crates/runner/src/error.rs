//! Every error of the library.

use crate::system_memory::Smaller;
use std::path::PathBuf;

/// The error of a lower layer, or its words alone.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What can go wrong: a transparent error of a lower crate, or one of these.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Of the checkpoint, the request or the device.
    #[error(transparent)]
    Model(#[from] phi3_model::Error),

    /// Of the tokenizer or the chat template.
    #[error(transparent)]
    Text(#[from] crate::text::Error),

    /// Of the sampler.
    #[error(transparent)]
    Sampler(#[from] crate::sampler::SamplerError),

    /// No model was named, and this build has none inside.
    #[error("no model was given; hint: name a checkpoint folder or a GGUF file, or build with the demo model")]
    NoModel,

    /// The text of a request is empty.
    #[error("the prompt is empty; hint: {hint}")]
    EmptyPrompt {
        /// What to do about it.
        hint: &'static str,
    },

    /// Text was given or wanted, and the checkpoint has no tokenizer.
    #[error(
        "{}: expected a tokenizer (tokenizer.json; vocab.json with merges.txt; a rank file *.tiktoken; or the one in a GGUF file), found {found}; hint: {hint}",
        path.display()
    )]
    NoTokenizer {
        /// The checkpoint.
        path: PathBuf,
        /// What there is instead.
        found: &'static str,
        /// What to do about it.
        hint: &'static str,
    },

    /// A picture was given, and the model has no tower.
    #[error("{} reads no pictures; hint: take a model that does, such as Phi-3.5-vision", path.display())]
    NoVision {
        /// The checkpoint.
        path: PathBuf,
    },

    /// A file is no picture, or one that cannot be used.
    #[error("{}: {source}", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: phi3_image::Error,
    },

    /// The tags of a text are not those of the pictures that were given.
    #[error("tags {tag} of the text: expected {expected}, found {found}; hint: {hint}")]
    ImageTags {
        /// What stands for a picture.
        tag: &'static str,
        /// Which tags would be right.
        expected: String,
        /// Which there are.
        found: String,
        /// What to do about it.
        hint: &'static str,
    },

    /// A model would not fit into memory.
    #[error(
        "the model does not fit on {device}: it needs {weights} bytes for weights and {scratch} for activations, {available} bytes are available; hint: {}",
        Smaller::hint(instead.as_ref())
    )]
    TooLarge {
        /// The device.
        device: String,
        /// Bytes of weights in memory of their own.
        weights: u64,
        /// Bytes of activations.
        scratch: u64,
        /// Bytes that can be had.
        available: u64,
        /// What would fit, if anything.
        instead: Option<Smaller>,
    },

    /// An operation that the model does not have was to be measured.
    #[error("{op}: expected an operation of the model; hint: a feed-forward of experts has no dense projections")]
    NoOperation {
        /// Its name.
        op: &'static str,
    },

    /// A file could not be read or written.
    #[error("cannot {action} {}: {source}; hint: {hint}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system or the parser said.
        source: Cause,
        /// What to do about it.
        hint: &'static str,
    },

    /// Standard input or output failed.
    #[error("standard {stream}: {source}; hint: {hint}")]
    Stream {
        /// `input` or `output`.
        stream: &'static str,
        /// What the system said.
        source: Cause,
        /// What to do about it.
        hint: &'static str,
    },

    /// A generation ended without its summary.
    #[error("the generation ended early; hint: start a new one")]
    Unfinished,

    /// Of the program that uses this library.
    #[error(transparent)]
    Program(Cause),

    /// An argument is not understood.
    #[error("{argument}: expected {expected}, found {found}; hint: its documentation says more")]
    Argument {
        /// The argument, by its name in this library or by an option of a program.
        argument: &'static str,
        /// What would be right.
        expected: String,
        /// What was given.
        found: String,
    },
}

impl From<phi3_tensor::Error> for Error {
    fn from(error: phi3_tensor::Error) -> Self {
        Self::Model(error.into())
    }
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
