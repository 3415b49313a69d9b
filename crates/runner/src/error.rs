//! Errors of the library.

use crate::system_memory::Smaller;
use std::path::PathBuf;

/// The error of a lower layer, or its message alone.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// An error of this library, or a transparent one of a lower crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An error of the checkpoint, the request or the device.
    #[error(transparent)]
    Model(#[from] phi3_model::Error),

    /// An error of the tokenizer or the chat template.
    #[error(transparent)]
    Text(#[from] crate::text::Error),

    /// An error of the sampler.
    #[error(transparent)]
    Sampler(#[from] crate::sampler::SamplerError),

    /// Of a grammar, or of an answer that has to match it.
    #[error(transparent)]
    Constraint(#[from] crate::constraint::ConstraintError),

    /// No model was given, and this build has no demo model.
    #[error("no model was given; hint: name a checkpoint folder or a GGUF file, or build with the demo model")]
    NoModel,

    /// The platform has no threads.
    #[error(
        "expected a platform with threads, since an engine computes on one of its own; found {platform}; hint: compute passes with a Session of phi3-model"
    )]
    NoThreads {
        /// The platform.
        platform: &'static str,
    },

    /// The text of a request is empty.
    #[error("the prompt is empty; hint: {hint}")]
    EmptyPrompt {
        /// Suggested fix.
        hint: &'static str,
    },

    /// Text was given or requested, and the checkpoint has no tokenizer.
    #[error(
        "{}: expected a tokenizer (tokenizer.json; vocab.json with merges.txt; a rank file *.tiktoken; or the one in a GGUF file), found {found}; hint: {hint}",
        path.display()
    )]
    NoTokenizer {
        /// The checkpoint.
        path: PathBuf,
        /// The tokenizer files found, or `none`.
        found: &'static str,
        /// Suggested fix.
        hint: &'static str,
    },

    /// A picture was given, and the model has no vision tower.
    #[error("{}: expected a model with a vision tower, found one for text only; hint: take a model such as Phi-3.5-vision", path.display())]
    NoVision {
        /// The checkpoint.
        path: PathBuf,
    },

    /// A picture cannot be decoded or prepared.
    #[error("{}: {source}", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: phi3_image::Error,
    },

    /// The picture tags of a text do not match the pictures that were given.
    #[error("tags {tag} of the text: expected {expected}, found {found}; hint: {hint}")]
    ImageTags {
        /// The form of a tag.
        tag: &'static str,
        /// The expected tags.
        expected: String,
        /// The tags found.
        found: String,
        /// Suggested fix.
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
        /// Bytes of available memory.
        available: u64,
        /// Settings that would fit, if there are any.
        instead: Option<Smaller>,
    },

    /// A benchmark of an operation that the model does not have.
    #[error("{op}: expected an operation of the model; hint: a feed-forward of experts has no dense projections")]
    NoOperation {
        /// The operation's name.
        op: &'static str,
    },

    /// A file could not be read or written.
    #[error("cannot {action} {}: {source}; hint: {hint}", path.display())]
    File {
        /// The failed action: a verb for the message.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the system or the parser.
        source: Cause,
        /// Suggested fix.
        hint: &'static str,
    },

    /// Standard input or output failed.
    #[error("standard {stream}: {source}; hint: {hint}")]
    Stream {
        /// `input` or `output`.
        stream: &'static str,
        /// The error of the system or the decoding.
        source: Cause,
        /// Suggested fix.
        hint: &'static str,
    },

    /// A request was refused.
    #[error(transparent)]
    Submit(#[from] crate::scheduler::SubmitError),

    /// A pass failed that had rows of several requests: the text of the error, which one of them has.
    #[error("{0}")]
    Pass(String),

    /// A generation ended without its summary.
    #[error("the generation ended early; hint: start a new one")]
    Unfinished,

    /// An error of the program that uses this library.
    #[error(transparent)]
    Program(Cause),

    /// An argument is invalid.
    #[error("{argument}: expected {expected}, found {found}; hint: see its documentation")]
    Argument {
        /// The argument, by its name in this library or by an option of a program.
        argument: &'static str,
        /// The expected value.
        expected: String,
        /// The value found.
        found: String,
    },
}

impl From<phi3_tensor::Error> for Error {
    fn from(error: phi3_tensor::Error) -> Self {
        Self::Model(error.into())
    }
}

/// A result with an error of this library.
pub type Result<T> = std::result::Result<T, Error>;
