//! Errors of the server, and errors of requests in OpenAI's form.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use phi3_runner::constraint::ConstraintError;
use phi3_runner::sampler::SamplerError;
use phi3_runner::scheduler::SubmitError;
use phi3_runner::text::Error as TextError;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

/// Errors of a [`Server`](crate::Server).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is not free, or not one of this machine.
    #[error("cannot listen on {host}:{port}: {source}; hint: choose another port, or stop the program that has it")]
    Bind {
        /// The address or name.
        host: String,
        /// The port.
        port: u16,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file of API keys cannot be read.
    #[error("cannot read the API keys in {}: {source}; hint: name a text file with one key a line", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file of API keys has none.
    #[error("{}: expected API keys, found none; hint: write one key a line", path.display())]
    NoKeys {
        /// The file.
        path: PathBuf,
    },
    /// An allowed origin is not one.
    #[error(
        "allowed origin: expected `*`, or a scheme and a host such as http://localhost:3000, found {found:?}; hint: write it as browsers do"
    )]
    Origin {
        /// The value.
        found: String,
    },
    /// Threads or timers of the server could not be made.
    #[error("the server cannot start: {0}; hint: the system may lack threads or file descriptors")]
    Runtime(std::io::Error),
    /// The model could not be loaded.
    #[error(transparent)]
    Model(#[from] phi3_runner::Error),
    /// Requests had to be ended, because they took longer than the time to drain.
    #[error("{0} requests were ended before their answers were complete; hint: give more time to drain")]
    Undrained(usize),
}

/// A result with an error of the server.
pub type Result<T> = std::result::Result<T, Error>;

/// The kinds of errors in OpenAI's field `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    InvalidRequest,
    Authentication,
    Permission,
    NotFound,
    RateLimit,
    Unavailable,
    Timeout,
    Server,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request_error",
            Self::Authentication => "authentication_error",
            Self::Permission => "permission_error",
            Self::NotFound => "not_found_error",
            Self::RateLimit => "rate_limit_error",
            Self::Unavailable => "service_unavailable_error",
            Self::Timeout => "timeout_error",
            Self::Server => "server_error",
        }
    }
}

/// An error of a request.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) kind: Kind,
    pub(crate) code: Option<&'static str>,
    /// The field of the request.
    pub(crate) param: Option<String>,
    pub(crate) message: String,
    /// When to try again.
    pub(crate) retry_after: Option<Duration>,
}

/// A result with an error of a request.
pub(crate) type ApiResult<T> = std::result::Result<T, ApiError>;

impl ApiError {
    pub(crate) fn new(status: StatusCode, kind: Kind, message: impl Into<String>) -> Self {
        Self { status, kind, code: None, param: None, message: message.into(), retry_after: None }
    }

    /// A request that cannot be answered as it is.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Kind::InvalidRequest, message)
    }

    /// A field with an unexpected value.
    pub(crate) fn field(name: &str, expected: impl std::fmt::Display, found: impl std::fmt::Display) -> Self {
        Self::invalid(format!("{name}: expected {expected}, found {found}")).param(name).code("invalid_value")
    }

    /// A field or value that is known, but has no effect here.
    pub(crate) fn unsupported(name: &str, message: impl std::fmt::Display) -> Self {
        Self::invalid(format!("{name}: {message}")).param(name).code("unsupported_parameter")
    }

    /// Too many requests wait.
    pub(crate) fn busy(message: impl Into<String>, retry_after: Duration) -> Self {
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, Kind::RateLimit, message).code("queue_full");
        Self { retry_after: Some(retry_after), ..error }
    }

    /// No requests are taken at this time.
    pub(crate) fn unavailable(message: impl Into<String>, code: &'static str) -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, Kind::Unavailable, message).code(code);
        Self { retry_after: Some(Duration::from_secs(2)), ..error }
    }

    /// The server's fault.
    pub(crate) fn server(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, Kind::Server, message)
    }

    pub(crate) fn code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    pub(crate) fn param(self, name: impl Into<String>) -> Self {
        Self { param: Some(name.into()), ..self }
    }

    /// The error as JSON.
    pub(crate) fn body(&self) -> Value {
        let Self { message, kind, param, code, .. } = self;
        json!({"error": {"message": message, "type": kind.name(), "param": param, "code": code}})
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        if let Some(time) = self.retry_after {
            let seconds = time.as_secs_f64().ceil().clamp(1.0, 3600.0) as u64;
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.kind == Kind::Authentication {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.kind == Kind::Timeout {
            // clients try again by default, which would take as long
            headers.insert(HeaderName::from_static("x-should-retry"), HeaderValue::from_static("false"));
        }
        response
    }
}

impl From<phi3_runner::Error> for ApiError {
    fn from(error: phi3_runner::Error) -> Self {
        use phi3_model::Error as ModelError;
        use phi3_runner::Error as E;
        let message = error.to_string();
        let invalid = |code| Self::invalid(message.clone()).code(code);
        match &error {
            E::Submit(SubmitError::Busy(busy)) => Self::busy(message, busy.retry_after),
            E::Submit(SubmitError::Draining) => Self::unavailable(message, "draining"),
            E::Submit(SubmitError::TooLong { .. } | SubmitError::TooLarge { .. })
            | E::Model(ModelError::TooLong { .. }) => invalid("context_length_exceeded"),
            E::Submit(_) | E::EmptyPrompt { .. } => invalid("empty_prompt"),
            E::Model(ModelError::Request { .. }) => invalid("invalid_prompt"),
            E::Text(
                TextError::TemplateRaised { .. } | TextError::NoTemplate { .. } | TextError::TemplateFailed { .. },
            ) => invalid("chat_template"),
            E::Text(TextError::Encode { .. } | TextError::Decode { .. }) => invalid("tokenizer"),
            E::Sampler(SamplerError::Option { option, .. }) => invalid("invalid_value").param(*option),
            E::Sampler(SamplerError::BiasedToken { .. } | SamplerError::AllBanned) => {
                invalid("invalid_value").param("logit_bias")
            }
            E::Sampler(SamplerError::NotFinite { .. }) => Self::server(message),
            E::Sampler(_) => invalid("invalid_value"),
            E::Constraint(
                ConstraintError::Refused { .. }
                | ConstraintError::TooLarge { .. }
                | ConstraintError::Vocabulary { .. }
                | ConstraintError::NoStopToken,
            ) => invalid("invalid_grammar"),
            E::Constraint(_) => Self::server(message).code("grammar"),
            E::NoVision { .. } | E::Image { .. } | E::ImageTags { .. } => invalid("invalid_image"),
            E::NoTokenizer { .. } => invalid("no_tokenizer"),
            E::Argument { argument, .. } => invalid("invalid_value").param(*argument),
            _ => Self::server(message),
        }
    }
}
