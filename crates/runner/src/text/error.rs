use std::path::PathBuf;

/// Errors of tokenizers and chat templates.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {}: {source}; hint: the tokenizer's files belong in the folder of the weights", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is malformed.
    #[error("{file} is malformed: {reason}; hint: {hint}")]
    Malformed {
        /// The file.
        file: String,
        /// The parser's error.
        reason: String,
        /// Suggested fix.
        hint: &'static str,
    },
    /// A file is not JSON text, but another kind of file.
    #[error(transparent)]
    Model(#[from] phi3_model::Error),
    /// A field has an invalid type or value.
    #[error("{file}: `{field}` must be {expected}, found {found}; hint: {hint}")]
    Field {
        /// The file.
        file: String,
        /// The field's path in the file.
        field: String,
        /// The expected value.
        expected: String,
        /// The value found.
        found: String,
        /// Suggested fix.
        hint: &'static str,
    },
    /// No chat template in the checkpoint.
    #[error(
        "{file} has no chat template{found}; hint: this may be a base model: let it complete plain text, or give a chat template, in a file or by the name of a model"
    )]
    NoTemplate {
        /// The file.
        file: String,
        /// The names of the other templates, if any.
        found: String,
    },
    /// No chat template of that name.
    #[error("no chat template is named {name:?}; hint: give a file, or one of {known}")]
    UnknownTemplate {
        /// The requested name.
        name: String,
        /// The known names.
        known: String,
    },
    /// The template rejects the messages, by `raise_exception`.
    #[error("the chat template refuses these messages: {message}; hint: check the roles and their order")]
    TemplateRaised {
        /// The template's message.
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
