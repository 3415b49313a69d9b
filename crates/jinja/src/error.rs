//! Errors of templates.

/// Kind of an error, by the Python exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The template is not valid Jinja (`TemplateSyntaxError`, `SyntaxError`).
    Syntax,
    /// An undefined value was used (`UndefinedError`).
    Undefined,
    /// The sandbox denies access (`SecurityError`).
    Security,
    /// A value of the wrong type (`TypeError`).
    Type,
    /// A wrong value of the right type (`ValueError`).
    Value,
    /// A missing key or index (`KeyError`, `IndexError`).
    Lookup,
    /// A missing attribute (`AttributeError`).
    Attribute,
    /// A division by zero (`ZeroDivisionError`).
    Division,
    /// A number out of range (`OverflowError`).
    Overflow,
    /// A failed assertion (`AssertionError`).
    Assertion,
    /// Another error during rendering (`TemplateRuntimeError`, `FilterArgumentError`, `RuntimeError`).
    Runtime,
    /// The template called `raise_exception`; the message is the template's.
    Raised,
    /// The rendering exceeds a limit of steps, bytes or depth.
    Limit,
    /// A feature of Python that this library does not support.
    Unsupported,
}

/// An error in parsing or rendering a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", .line.map(|line| format!(" (line {line})")).unwrap_or_default())]
pub struct Error {
    kind: ErrorKind,
    message: String,
    line: Option<u32>,
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), line: None }
    }

    /// Sets the line, unless it is set already.
    pub(crate) fn at(mut self, line: u32) -> Self {
        self.line.get_or_insert(line);
        self
    }

    /// The kind.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message without the line.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The line of the template, counted from 1.
    pub fn line(&self) -> Option<u32> {
        self.line
    }
}

/// `Err` with a kind and a formatted message.
macro_rules! fail {
    ($kind:ident, $($message:tt)+) => {
        Err($crate::error::Error::new($crate::error::ErrorKind::$kind, format!($($message)+)))
    };
}
pub(crate) use fail;
