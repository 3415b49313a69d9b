use std::path::PathBuf;

/// What can go wrong between text and token ids.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {}: {source}; hint: the tokenizer's files stand beside the weights", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is not what its name says.
    #[error("{file} is malformed: {reason}; hint: {hint}")]
    Malformed {
        /// The file.
        file: String,
        /// What the parser says.
        reason: String,
        /// What to do.
        hint: &'static str,
    },
    /// A file is something else than the JSON that should stand there.
    #[error(transparent)]
    Model(#[from] phi3_model::Error),
    /// A field has another type or value than it can have.
    #[error("{file}: `{field}` must be {expected}, found {found}; hint: {hint}")]
    Field {
        /// The file.
        file: String,
        /// The field's path in the file.
        field: String,
        /// What it can be.
        expected: String,
        /// What it is.
        found: String,
        /// What to do.
        hint: &'static str,
    },
    /// No chat template in the checkpoint.
    #[error(
        "{file} has no chat template{found}; hint: this may be a base model: give it plain text, or give a template"
    )]
    NoTemplate {
        /// The file.
        file: String,
        /// The names of the templates that are there, if any.
        found: String,
    },
    /// The template itself calls the messages invalid.
    #[error("the chat template refuses these messages: {message}; hint: check the roles and their order")]
    TemplateRaised {
        /// The template's words.
        message: String,
    },
    /// The template cannot be parsed or fails.
    #[error("the chat template of {file} failed: {reason}; hint: compare it with the published one")]
    TemplateFailed {
        /// The file.
        file: String,
        /// The reason, with its line.
        reason: String,
    },
    /// The tokenizer fails on a text.
    #[error("{file} cannot encode this text of {bytes} bytes: {reason}; hint: compare the file with the published one")]
    Encode {
        /// The tokenizer's file.
        file: String,
        /// The length of the text.
        bytes: usize,
        /// The tokenizer's reason.
        reason: String,
    },
    /// The tokenizer fails on token ids.
    #[error("{file} cannot decode these {count} token ids: {reason}; hint: compare the file with the published one")]
    Decode {
        /// The tokenizer's file.
        file: String,
        /// The number of ids.
        count: usize,
        /// The tokenizer's reason.
        reason: String,
    },
}

/// The result of an operation on text.
pub type Result<T, E = Error> = std::result::Result<T, E>;
