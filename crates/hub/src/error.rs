//! Error types.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Errors of names, downloads and the cache. Messages name the subject, the expected and the found value, and a hint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name cannot be parsed.
    #[error("{name:?} is not the name of a model: expected {expected}; hint: {hint}")]
    Name {
        /// The name.
        name: String,
        /// The expected value.
        expected: String,
        /// A hint.
        hint: String,
    },

    /// An environment variable, or the file that it names, has an invalid value.
    #[error("{variable}: expected {expected}, found {found}; hint: correct the variable or unset it")]
    Setting {
        /// The variable.
        variable: &'static str,
        /// The expected value.
        expected: &'static str,
        /// The value found; never a token.
        found: String,
    },

    /// Files are not in the cache, and downloads are switched off.
    #[error("{what} is not in the cache {}, and downloads are switched off; hint: fetch it once with downloads switched on (HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE unset), or point HF_HUB_CACHE at the cache that has it", cache.display())]
    Offline {
        /// The model as it was named.
        what: String,
        /// The cache that was searched.
        cache: PathBuf,
    },

    /// Files expected in the cache are not there.
    #[error("{what} is not in the cache {}; hint: {hint}", cache.display())]
    NotCached {
        /// The model as it was named.
        what: String,
        /// The cache that was searched.
        cache: PathBuf,
        /// A hint.
        hint: String,
    },

    /// This build's TLS needs instructions that the processor lacks.
    #[error(
        "https needs instructions that this processor lacks or hides: {missing}; hint: set HF_ENDPOINT to an http:// mirror, or fetch the model with Python's `hf download` into the same cache; both are read without TLS"
    )]
    NoTls {
        /// Missing features of the processor.
        missing: String,
    },

    /// The system has no root certificates, or they cannot be read.
    #[error(
        "no root certificates to check the hub with: {message}; hint: install the system's certificates (ca-certificates), or set SSL_CERT_FILE to a PEM file"
    )]
    Certificates {
        /// Where certificates were searched, and the result.
        message: String,
    },

    /// The TLS handshake failed.
    #[error(
        "no secure connection to {url}: {message}; hint: is the clock right? Behind a proxy that opens TLS, set SSL_CERT_FILE to its certificate"
    )]
    Handshake {
        /// The address.
        url: String,
        /// The reason.
        message: String,
    },

    /// A host could not be reached.
    #[error("cannot reach {url}: {message}; hint: is there a network? HTTPS_PROXY names a proxy, HF_ENDPOINT a mirror")]
    Unreachable {
        /// The address.
        url: String,
        /// The system's message.
        message: String,
    },

    /// A connection ended or stalled.
    #[error(
        "the connection to {url} broke: {message}; hint: try again, received bytes are kept; HF_HUB_DOWNLOAD_TIMEOUT gives slow servers more seconds"
    )]
    Broken {
        /// The address.
        url: String,
        /// The reason.
        message: String,
    },

    /// An answer is not that of a Hugging Face hub.
    #[error(
        "{url} does not answer as a Hugging Face hub: {message}; hint: is HF_ENDPOINT right, and does a proxy or a login page answer in its place?"
    )]
    NotAHub {
        /// The address.
        url: String,
        /// The reason.
        message: String,
    },

    /// There is no such repository, or it is private.
    #[error("the hub has no repository {repo}, or it is private; hint: {hint}")]
    RepoNotFound {
        /// The repository.
        repo: String,
        /// A hint.
        hint: String,
    },

    /// The repository's conditions have to be accepted first.
    #[error("{repo} is gated: {message}; hint: accept its conditions at {url}, then {hint}")]
    Gated {
        /// The repository.
        repo: String,
        /// The hub's message.
        message: String,
        /// The page on which the conditions are accepted.
        url: String,
        /// A hint about the token.
        hint: &'static str,
    },

    /// The hub refused the request for another reason.
    #[error("the hub refused {repo} (status {status}): {message}; hint: {hint}")]
    Refused {
        /// The repository.
        repo: String,
        /// The HTTP status.
        status: u16,
        /// The hub's message.
        message: String,
        /// A hint.
        hint: &'static str,
    },

    /// There is no such branch, tag or commit.
    #[error("{repo} has no revision {revision:?}; hint: branches, tags and commits are listed at {url}")]
    RevisionNotFound {
        /// The repository.
        repo: String,
        /// The revision.
        revision: String,
        /// The page that lists them.
        url: String,
    },

    /// There is no such file.
    #[error("{repo} has no file {file:?} at {revision}; hint: its files are listed at {url}")]
    FileNotFound {
        /// The repository.
        repo: String,
        /// The revision.
        revision: String,
        /// The file.
        file: String,
        /// The page that lists them.
        url: String,
    },

    /// Too many requests.
    #[error(
        "the hub accepts no more requests {}; hint: wait, or set HF_TOKEN: an account has a limit of its own",
        until(wait)
    )]
    RateLimited {
        /// The pause that the hub asks for, if any.
        wait: Option<Duration>,
    },

    /// An answer with an unexpected status.
    #[error("{url} answered with status {status}: {message}; hint: {hint}")]
    Status {
        /// The address.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The message that came with it.
        message: String,
        /// A hint.
        hint: &'static str,
    },

    /// A file arrived with fewer or more bytes than expected.
    #[error(
        "{file}: expected {expected} bytes, found {found}; hint: the downloaded bytes were removed; try again, and if the error persists, the mirror or proxy alters files"
    )]
    Length {
        /// The file.
        file: String,
        /// Its length as reported by the hub.
        expected: u64,
        /// Bytes received.
        found: u64,
    },

    /// A file's checksum differs from the hub's.
    #[error(
        "{file}: expected {kind} {expected}, found {found}; hint: the downloaded bytes were removed; try again, and if the error persists, the mirror or proxy alters files"
    )]
    Checksum {
        /// The file.
        file: String,
        /// `SHA-256` or `SHA-1 of the git blob`.
        kind: &'static str,
        /// The hub's checksum, in hexadecimal.
        expected: String,
        /// Checksum of the bytes received, in hexadecimal.
        found: String,
    },

    /// A file name leads out of its folder, or is not valid on every system.
    #[error("{path:?} is refused as a file name: {reason}; hint: the repository is damaged or hostile; ask its owner")]
    UnsafePath {
        /// The name.
        path: String,
        /// The rule that it breaks.
        reason: &'static str,
    },

    /// A repository has no weights that the engine can run.
    #[error("{repo} has no weights to run: {message}; hint: {hint}")]
    NoWeights {
        /// The repository.
        repo: String,
        /// What the repository has instead.
        message: String,
        /// A hint.
        hint: &'static str,
    },

    /// The choice of a GGUF file is ambiguous or matches none.
    #[error("{repo}: {message}; its GGUF files are: {files}; hint: name one of them, as in {repo}:{example}")]
    GgufChoice {
        /// The repository.
        repo: String,
        /// The reason.
        message: String,
        /// All GGUF files, separated by commas.
        files: String,
        /// One of them.
        example: String,
    },

    /// The index of the shards is damaged.
    #[error("{file} of {repo}: {message}; hint: the index names the shards of the model; the repository is damaged")]
    Index {
        /// The repository.
        repo: String,
        /// The index.
        file: String,
        /// The defect.
        message: String,
    },

    /// A file or folder of the cache could not be read or written.
    #[error("cannot {action} {}: {message}; hint: {hint}", path.display())]
    Io {
        /// The action that failed.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's message.
        message: String,
        /// A hint.
        hint: &'static str,
    },

    /// The disk is full.
    #[error("no space left for {}: {message}; hint: received bytes are kept and the next try resumes; free some space, or set HF_HUB_CACHE to another disk", path.display())]
    DiskFull {
        /// The file that was being written.
        path: PathBuf,
        /// The system's message.
        message: String,
    },

    /// Another process is fetching files of this repository.
    #[error("{repo} is being fetched by another process ({}); hint: try again when it has finished", path.display())]
    InUse {
        /// The repository.
        repo: String,
        /// The partial download.
        path: PathBuf,
    },

    /// The stop flag was set.
    #[error("stopped; hint: received bytes are kept, and the next try resumes from there")]
    Stopped,
}

impl Error {
    /// A file or folder of the cache that could not be read or written.
    pub(crate) fn io(action: &'static str, path: &Path, error: &std::io::Error) -> Self {
        let (path, message) = (path.to_owned(), error.to_string());
        let hint = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => return Self::DiskFull { path, message },
            ErrorKind::FileTooLarge => {
                "this file system does not support files of that size; set HF_HUB_CACHE to another disk"
            }
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                "this user has no permission; set HF_HUB_CACHE to a folder of your own"
            }
            _ => "is the disk in order? HF_HUB_CACHE names another folder",
        };
        Self::Io { action, path, message, hint }
    }

    /// Whether the hub was unreachable, so that the cache may be used in place of its answer.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } | Self::Offline { .. } | Self::RateLimited { .. } => true,
            Self::NoTls { .. } | Self::Certificates { .. } | Self::Handshake { .. } => true,
            Self::Status { status, .. } => *status >= 500,
            _ => false,
        }
    }

    /// Whether a later retry of the same request may succeed.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Broken { .. } | Self::RateLimited { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504 | 520..=524),
            _ => false,
        }
    }
}

fn until(wait: &Option<Duration>) -> String {
    wait.map_or_else(|| "for now".into(), |wait| format!("for {} seconds", wait.as_secs()))
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
