//! What can go wrong with a template.

/// The kind of an error, by the exception that Python raises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The template is no valid Jinja (`TemplateSyntaxError`, `SyntaxError`).
    Syntax,
    /// An undefined value was used (`UndefinedError`).
    Undefined,
    /// The sandbox refuses it (`SecurityError`).
    Security,
    /// A value of the wrong type (`TypeError`).
    Type,
    /// A wrong value of the right type (`ValueError`).
    Value,
    /// A key or an index that is not there (`KeyError`, `IndexError`).
    Lookup,
    /// An attribute that is not there (`AttributeError`).
    Attribute,
    /// A division by zero (`ZeroDivisionError`).
    Division,
    /// A number that is too large (`OverflowError`).
    Overflow,
    /// A broken assumption (`AssertionError`).
    Assertion,
    /// What Jinja finds while it renders (`TemplateRuntimeError`, `FilterArgumentError`, `RuntimeError`).
    Runtime,
    /// The template called `raise_exception`; the message is its own.
    Raised,
    /// More steps, text or depth than a rendering may take.
    Limit,
    /// Something of Python that this library does not have.
    Unsupported,
}

/// Why a template cannot be parsed or rendered.
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

    /// The error with its line, unless it has one.
    pub(crate) fn at(mut self, line: u32) -> Self {
        self.line.get_or_insert(line);
        self
    }

    /// The kind.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What is wrong, without the line.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The line of the template, from 1.
    pub fn line(&self) -> Option<u32> {
        self.line
    }
}

/// An error of a kind, as a result.
macro_rules! fail {
    ($kind:ident, $($message:tt)+) => {
        Err($crate::error::Error::new($crate::error::ErrorKind::$kind, format!($($message)+)))
    };
}
pub(crate) use fail;
