//! Every error of the crate.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What can go wrong between a name and files on disk: what was asked for, what was expected, what was found and a hint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name is not understood.
    #[error("{name:?} is no name of a model: expected {expected}; hint: {hint}")]
    Name {
        /// What was given.
        name: String,
        /// What would be right.
        expected: String,
        /// What to do about it.
        hint: String,
    },

    /// An environment variable, or the file that it names, is not understood.
    #[error("{variable}: expected {expected}, found {found}; hint: set it so, or not at all")]
    Setting {
        /// The variable.
        variable: &'static str,
        /// What would be right.
        expected: &'static str,
        /// What was found; never a token.
        found: String,
    },

    /// Files are not in the cache, and nothing may be fetched.
    #[error("{what} is not in the cache {}, and downloads are switched off; hint: fetch it once with downloads switched on (HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE unset), or point HF_HUB_CACHE at the cache that has it", cache.display())]
    Offline {
        /// The model as it was named.
        what: String,
        /// The cache that was searched.
        cache: PathBuf,
    },

    /// Something that must be in the cache already is not.
    #[error("{what} is not in the cache {}; hint: {hint}", cache.display())]
    NotCached {
        /// The model as it was named.
        what: String,
        /// The cache that was searched.
        cache: PathBuf,
        /// What to do about it.
        hint: String,
    },

    /// This machine cannot speak TLS with this build.
    #[error(
        "https needs instructions that this processor lacks or hides: {missing}; hint: set HF_ENDPOINT to an http:// mirror, or fetch the model with Python's `hf download` into the same cache; both are read without TLS"
    )]
    NoTls {
        /// The processor's features that are missing.
        missing: String,
    },

    /// The system has no root certificates, or they cannot be read.
    #[error(
        "no root certificates to check the hub with: {message}; hint: install the system's certificates (ca-certificates), or set SSL_CERT_FILE to a PEM file"
    )]
    Certificates {
        /// What was tried.
        message: String,
    },

    /// A secure connection was refused by one of its ends.
    #[error(
        "no secure connection to {url}: {message}; hint: is the clock right? Behind a proxy that opens TLS, set SSL_CERT_FILE to its certificate"
    )]
    Handshake {
        /// Where to.
        url: String,
        /// What was wrong.
        message: String,
    },

    /// A host could not be reached.
    #[error("cannot reach {url}: {message}; hint: is there a network? HTTPS_PROXY names a proxy, HF_ENDPOINT a mirror")]
    Unreachable {
        /// Where to.
        url: String,
        /// What the system said.
        message: String,
    },

    /// A connection ended or stalled.
    #[error(
        "the connection to {url} broke: {message}; hint: try again, what has arrived is kept; HF_HUB_DOWNLOAD_TIMEOUT gives slow servers more seconds"
    )]
    Broken {
        /// Where to.
        url: String,
        /// What was seen.
        message: String,
    },

    /// An answer is not what a hub answers.
    #[error(
        "{url} does not answer as a Hugging Face hub: {message}; hint: is HF_ENDPOINT right, and does a proxy or a login page answer in its place?"
    )]
    NotAHub {
        /// Where to.
        url: String,
        /// What was missing or wrong.
        message: String,
    },

    /// There is no such repository, or it is private.
    #[error("the hub has no repository {repo}, or it is private; hint: {hint}")]
    RepoNotFound {
        /// The repository.
        repo: String,
        /// What to do about it.
        hint: String,
    },

    /// The repository's licence has to be accepted first.
    #[error("{repo} is gated: {message}; hint: accept its conditions at {url}, then {hint}")]
    Gated {
        /// The repository.
        repo: String,
        /// What the hub said.
        message: String,
        /// Where its conditions are accepted.
        url: String,
        /// What to do about the token.
        hint: &'static str,
    },

    /// The hub refused the request for another reason.
    #[error("the hub refused {repo} (status {status}): {message}; hint: {hint}")]
    Refused {
        /// The repository.
        repo: String,
        /// The HTTP status.
        status: u16,
        /// What the hub said.
        message: String,
        /// What to do about it.
        hint: &'static str,
    },

    /// There is no such branch, tag or commit.
    #[error("{repo} has no revision {revision:?}; hint: branches, tags and commits are listed at {url}")]
    RevisionNotFound {
        /// The repository.
        repo: String,
        /// The revision.
        revision: String,
        /// Where they are listed.
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
        /// Where they are listed.
        url: String,
    },

    /// Too many requests.
    #[error(
        "the hub takes no more requests {}; hint: wait, or set HF_TOKEN: an account has a limit of its own",
        until(wait)
    )]
    RateLimited {
        /// How long it wants to be left alone, where it says so.
        wait: Option<Duration>,
    },

    /// An answer with another status than was expected.
    #[error("{url} answered with status {status}: {message}; hint: {hint}")]
    Status {
        /// Where to.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What was said with it.
        message: String,
        /// What to do about it.
        hint: &'static str,
    },

    /// A file did not arrive whole, or more of it than there should be.
    #[error(
        "{file}: expected {expected} bytes, found {found}; hint: what arrived was removed; try again, and if it stays so, the mirror or proxy changes files"
    )]
    Length {
        /// The file.
        file: String,
        /// Its length by the hub.
        expected: u64,
        /// Bytes that arrived.
        found: u64,
    },

    /// A file is not what the hub says it is.
    #[error(
        "{file}: expected {kind} {expected}, found {found}; hint: what arrived was removed; try again, and if it stays so, the mirror or proxy changes files"
    )]
    Checksum {
        /// The file.
        file: String,
        /// SHA-256, or SHA-1 of a git blob.
        kind: &'static str,
        /// By the hub, in hexadecimal.
        expected: String,
        /// Of the bytes that arrived, in hexadecimal.
        found: String,
    },

    /// The name of a file would lead out of its folder, or cannot be had on every system.
    #[error(
        "{path:?} is refused as the name of a file: {reason}; hint: the repository is damaged or hostile; ask its owner"
    )]
    UnsafePath {
        /// The name.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// A repository has no weights that can be used.
    #[error("{repo} has no weights to run: {message}; hint: {hint}")]
    NoWeights {
        /// The repository.
        repo: String,
        /// What it has.
        message: String,
        /// What to do about it.
        hint: &'static str,
    },

    /// It is not clear which GGUF file is meant.
    #[error("{repo}: {message}; its GGUF files are: {files}; hint: name one of them, as in {repo}:{example}")]
    GgufChoice {
        /// The repository.
        repo: String,
        /// What is wrong with the choice.
        message: String,
        /// All there are, with commas between.
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
        /// What is wrong with it.
        message: String,
    },

    /// A file or folder of the cache could not be read or written.
    #[error("cannot {action} {}: {message}; hint: {hint}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        message: String,
        /// What to do about it.
        hint: &'static str,
    },

    /// The disk is full.
    #[error("no room for {}: {message}; hint: what has arrived is kept and the next try goes on; free some space, or set HF_HUB_CACHE to another disk", path.display())]
    DiskFull {
        /// The file that was being written.
        path: PathBuf,
        /// What the system said.
        message: String,
    },

    /// Another process is fetching files of this repository.
    #[error("{repo} is being fetched by another process ({}); hint: try again when that has ended", path.display())]
    InUse {
        /// The repository.
        repo: String,
        /// The partial download.
        path: PathBuf,
    },

    /// The stop flag was set.
    #[error("stopped; hint: what has arrived is kept, and the next try goes on from there")]
    Stopped,
}

impl Error {
    /// A file or folder of the cache that could not be read or written.
    pub(crate) fn io(action: &'static str, path: &Path, error: &std::io::Error) -> Self {
        let (path, message) = (path.to_owned(), error.to_string());
        let hint = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => return Self::DiskFull { path, message },
            ErrorKind::FileTooLarge => "this file system takes no file of that size; set HF_HUB_CACHE to another disk",
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                "this user may not; set HF_HUB_CACHE to a folder of your own"
            }
            _ => "is the disk in order? HF_HUB_CACHE names another folder",
        };
        Self::Io { action, path, message, hint }
    }

    /// Whether the hub could not be asked at all, so that what is in the cache may be used in place of its answer.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } | Self::Offline { .. } | Self::RateLimited { .. } => true,
            Self::NoTls { .. } | Self::Certificates { .. } | Self::Handshake { .. } => true,
            Self::Status { status, .. } => *status >= 500,
            _ => false,
        }
    }

    /// Whether the same request may succeed a little later.
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
