//! Options of the server.

use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Options of a [`Server`](crate::Server).
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Address or name to listen on.
    pub host: String,
    /// Port; 0 for a free one.
    pub port: u16,
    /// Names that requests may give the model, the one in answers first; where empty, the name of the model's file or folder.
    pub model_names: Vec<String>,
    /// Keys that requests have to name one of; where empty, none is asked for.
    pub api_keys: ApiKeys,
    /// Origins of web pages that may ask, such as `http://localhost:3000`; `*` for all. Pages of the server's own origin always may.
    pub allowed_origins: Vec<String>,
    /// Further names of the server in the header `Host`, which is checked if it listens on a loopback address only.
    pub allowed_hosts: Vec<String>,
    /// Most bytes of a request's body.
    pub max_body: usize,
    /// Most open connections; others wait to be accepted.
    pub max_connections: usize,
    /// Most answers of one request: prompts times `n`.
    pub max_answers: usize,
    /// Most time until a request's header is complete, which is also the longest silence of an open connection between requests.
    pub header_time: Duration,
    /// Most time until a request's body is complete.
    pub body_time: Duration,
    /// Most time in which a client reads nothing of its answer.
    pub write_time: Duration,
    /// Most time of a request, waiting included.
    pub request_time: Duration,
    /// Most time for the open requests after the signal to end.
    pub drain_time: Duration,
    /// Whether a line is written to standard error for each request.
    pub log: bool,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".into(),
            port: 8080,
            model_names: Vec::new(),
            api_keys: ApiKeys::default(),
            allowed_origins: Vec::new(),
            allowed_hosts: Vec::new(),
            max_body: 32 << 20,
            max_connections: 1024,
            max_answers: 128,
            header_time: Duration::from_secs(60),
            body_time: Duration::from_secs(60),
            write_time: Duration::from_secs(30),
            request_time: Duration::from_secs(3600),
            drain_time: Duration::from_secs(60),
            log: false,
        }
    }
}

/// API keys, as their SHA-256.
#[derive(Clone, Default)]
pub struct ApiKeys(Arc<[[u8; 32]]>);

/// An API key, by its place among the known ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyNumber(pub(crate) usize);

impl ApiKeys {
    /// Keys, one a line. Empty lines and lines that begin with `#` are skipped.
    ///
    /// # Errors
    ///
    /// [`Error::NoKeys`](crate::Error::NoKeys) if there is none.
    pub fn parse(name: &Path, text: &str) -> crate::Result<Self> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let keys: Arc<[[u8; 32]]> = lines.map(digest).collect();
        match keys.is_empty() {
            true => Err(crate::Error::NoKeys { path: name.to_owned() }),
            false => Ok(Self(keys)),
        }
    }

    /// Reads a file of keys.
    ///
    /// # Errors
    ///
    /// [`Error::KeyFile`](crate::Error::KeyFile) if it cannot be read, and those of [`parse`](Self::parse).
    pub fn read(path: &Path) -> crate::Result<Self> {
        let text = std::fs::read_to_string(path);
        Self::parse(path, &text.map_err(|source| crate::Error::KeyFile { path: path.to_owned(), source })?)
    }

    /// Whether no key is asked for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The place of a key. The time depends on the number of known keys only: digests are compared in full.
    pub(crate) fn find(&self, key: &str) -> Option<KeyNumber> {
        let wanted = digest(key);
        let mut found = None;
        for (number, known) in self.0.iter().enumerate() {
            let difference = known.iter().zip(&wanted).fold(0, |all, (a, b)| all | (a ^ b));
            if std::hint::black_box(difference) == 0 {
                found = Some(KeyNumber(number));
            }
        }
        found
    }
}

impl std::fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ApiKeys({})", self.0.len())
    }
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_file() {
        let keys = ApiKeys::parse(Path::new("keys"), "# of the team\nfirst\r\n\n  second  \n").unwrap();
        assert_eq!([keys.find("first"), keys.find("second")], [Some(KeyNumber(0)), Some(KeyNumber(1))]);
        assert_eq!([keys.find("# of the team"), keys.find(""), keys.find("firs")], [None; 3]);
        let error = ApiKeys::parse(Path::new("keys"), "# nothing\n").unwrap_err().to_string();
        assert!(error.contains("keys") && error.contains("hint"), "{error}");
        assert_eq!(format!("{keys:?}"), "ApiKeys(2)");
    }
}
