//! What can be wrong with a checkpoint or a request.

use std::path::{Path, PathBuf};

/// An error of loading or of running a model: which file, tensor or field, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("cannot read {}: {source}; hint: {hint}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
        /// What to do about it.
        hint: &'static str,
    },

    /// A file could not be written.
    #[error("cannot write {}: {source}; hint: does the folder exist, and is there room?", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },

    /// What stands where a file is to be written is none.
    #[error("cannot write {}: expected a regular file or nothing there, found {found}; hint: name another file", path.display())]
    Occupied {
        /// Where the file was to be.
        path: PathBuf,
        /// What stands there.
        found: &'static str,
    },

    /// A file is not the JSON that it should be.
    #[error("{}: not valid JSON: {source}; hint: {hint}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser said, with line and column.
        source: Box<dyn std::error::Error + Send + Sync>,
        /// What to do about it.
        hint: &'static str,
    },

    /// A file or folder holds something else than was expected.
    #[error("{}: expected {expected}, found {found}; hint: {hint}", path.display())]
    Foreign {
        /// The file or folder.
        path: PathBuf,
        /// What would be right.
        expected: &'static str,
        /// What it is.
        found: String,
        /// What to do about it.
        hint: &'static str,
    },

    /// A field of a JSON file or a key of a GGUF file is missing, of the wrong kind, or out of range.
    #[error("{}: {field}: expected {expected}, found {found}; hint: {hint}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The field, with the fields around it, or the key.
        field: String,
        /// What would be right.
        expected: String,
        /// What stands there.
        found: String,
        /// What to do about it.
        hint: &'static str,
    },

    /// The header of a safetensors file is damaged.
    #[error("{}: bad safetensors header: {message}; hint: the file may be truncated or no safetensors file", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },

    /// A GGUF file is damaged or no GGUF file.
    #[error("{}: bad GGUF file: {message}; hint: the file may be incomplete or damaged, fetch it again", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },

    /// A tensor is not what the model needs.
    #[error("{}: tensor {tensor}: {message}; hint: {hint}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor as published.
        tensor: String,
        /// What was expected and what was found.
        message: String,
        /// What to do about it.
        hint: &'static str,
    },

    /// A request does not fit the model.
    #[error("{what}: {found}, but {limit}; hint: {hint}")]
    Request {
        /// The part of the request.
        what: &'static str,
        /// What was asked for.
        found: String,
        /// What the model allows.
        limit: String,
        /// What to do about it.
        hint: &'static str,
    },

    /// A sequence was given to a model or a call that it does not belong to.
    #[error("{call}: {found}; hint: {hint}")]
    Sequence {
        /// The call.
        call: &'static str,
        /// What is wrong with the sequence.
        found: &'static str,
        /// What to do about it.
        hint: &'static str,
    },

    /// The model computed NaN or infinity.
    #[error("{what} not finite (NaN or infinity) at position {position}; {cause}")]
    NotFinite {
        /// What was not finite.
        what: &'static str,
        /// Position in the sequence.
        position: usize,
        /// The weight that is to blame, where one was found.
        cause: String,
    },

    /// The device could not do it.
    #[error(transparent)]
    Device(#[from] phi3_tensor::Error),
}

impl Error {
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
