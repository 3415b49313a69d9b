//! Errors of checkpoints and requests.

use std::path::{Path, PathBuf};

/// An error of loading or running a model. Names the file, tensor or field, the expected and the found value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("cannot read {}: {source}; hint: {hint}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
        /// Suggested fix.
        hint: &'static str,
    },

    /// A file could not be written.
    #[error("cannot write {}: {source}; hint: does the folder exist, and is there enough disk space?", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },

    /// The output path exists and is not a regular file, or is a file that must not be replaced.
    #[error("cannot write {}: expected a regular file or nothing there, found {found}; hint: name another file", path.display())]
    Occupied {
        /// The output path.
        path: PathBuf,
        /// What the path is.
        found: &'static str,
    },

    /// A file is not valid JSON.
    #[error("{}: not valid JSON: {source}; hint: {hint}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's error, with line and column where it has them.
        source: Box<dyn std::error::Error + Send + Sync>,
        /// Suggested fix.
        hint: &'static str,
    },

    /// A file or folder has another kind of content than expected.
    #[error("{}: expected {expected}, found {found}; hint: {hint}", path.display())]
    Foreign {
        /// The file or folder.
        path: PathBuf,
        /// The expected content.
        expected: &'static str,
        /// The content found.
        found: String,
        /// Suggested fix.
        hint: &'static str,
    },

    /// A field of a JSON file or a key of a GGUF file is missing, of the wrong kind, or out of range.
    #[error("{}: {field}: expected {expected}, found {found}; hint: {hint}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// Path of the JSON field, or the GGUF key.
        field: String,
        /// The expected value.
        expected: String,
        /// The value found.
        found: String,
        /// Suggested fix.
        hint: &'static str,
    },

    /// The header of a safetensors file is damaged.
    #[error("{}: bad safetensors header: {message}; hint: the file may be truncated, or not a safetensors file", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// Description of the fault.
        message: String,
    },

    /// A file is damaged or not a GGUF file.
    #[error("{}: bad GGUF file: {message}; hint: the file may be incomplete or damaged, fetch it again", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// Description of the fault.
        message: String,
    },

    /// A tensor is missing or damaged, or has another type or shape than the model needs.
    #[error("{}: tensor {tensor}: {message}; hint: {hint}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// The expected and the found content.
        message: String,
        /// Suggested fix.
        hint: &'static str,
    },

    /// A request does not fit the model.
    #[error("{what}: {found}, but {limit}; hint: {hint}")]
    Request {
        /// The part of the request.
        what: &'static str,
        /// The requested value.
        found: String,
        /// The limit.
        limit: String,
        /// Suggested fix.
        hint: &'static str,
    },

    /// A sequence is longer than the model's context.
    #[error(
        "prompt too long: {tokens} tokens, but the model's context is {limit} tokens (max_position_embeddings); hint: shorten the prompt"
    )]
    TooLong {
        /// Tokens of the sequence.
        tokens: usize,
        /// The model's context.
        limit: usize,
    },

    /// A sequence is of another model, or its state does not allow the call.
    #[error("{call}: {found}; hint: {hint}")]
    Sequence {
        /// The call.
        call: &'static str,
        /// State of the sequence or of the call.
        found: &'static str,
        /// Suggested fix.
        hint: &'static str,
    },

    /// The device has no memory for that many pages of the KV cache. What is in its pages is kept.
    #[error("{needed} pages of the KV cache are needed, and there is memory for {found}: {source}")]
    CacheMemory {
        /// Number of pages.
        needed: usize,
        /// Number of pages that there is memory for.
        found: usize,
        /// The device's error.
        source: phi3_tensor::Error,
    },

    /// The model computed NaN or infinity.
    #[error("{what} not finite (NaN or infinity) at position {position}; {cause}")]
    NotFinite {
        /// The values that were not finite.
        what: &'static str,
        /// Position in the sequence.
        position: usize,
        /// The damaged weight where one was found, else a hint.
        cause: String,
    },

    /// An error of the backend.
    #[error(transparent)]
    Device(#[from] phi3_tensor::Error),
}

impl Error {
    /// Logits that are not finite.
    pub fn not_finite(position: usize) -> Self {
        Error::NotFinite { what: "logits", position, cause: "hint: a weight may be damaged".into() }
    }

    pub(crate) fn read(path: &Path, source: std::io::Error, hint: &'static str) -> Self {
        Self::Read { path: path.to_owned(), source, hint }
    }

    pub(crate) fn json(path: &Path, error: serde_json::Error) -> Self {
        let hint = match error.is_eof() {
            true => "the file may be incomplete, fetch it again",
            false => "the file may have been edited or damaged: look at that line",
        };
        Self::Json { path: path.to_owned(), source: error.into(), hint }
    }
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
