//! Settings from the environment: endpoint, cache, token, proxies and timeouts.

use crate::error::{Error, Result};
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// The public hub.
pub const PUBLIC_ENDPOINT: &str = "https://huggingface.co";

/// Settings of a hub client. The environment variables are those of Python's `huggingface_hub`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// The hub's address without a slash at the end: `HF_ENDPOINT`.
    pub endpoint: String,
    /// The cache folder, parent of `models--owner--name`: `HF_HUB_CACHE`, else `HUGGINGFACE_HUB_CACHE`, else `hub` in `HF_HOME`.
    pub cache: PathBuf,
    /// `HF_TOKEN`, else `HUGGING_FACE_HUB_TOKEN`, else the file `HF_TOKEN_PATH` (`token` in `HF_HOME`).
    pub token: Option<Token>,
    /// Whether downloads are switched off: `HF_HUB_OFFLINE`, else `TRANSFORMERS_OFFLINE`.
    pub offline: bool,
    /// Timeout of a metadata request: `HF_HUB_ETAG_TIMEOUT` in seconds.
    pub etag_timeout: Duration,
    /// Timeout of a connection without data: `HF_HUB_DOWNLOAD_TIMEOUT` in seconds.
    pub download_timeout: Duration,
    /// Whether snapshot files are links to blobs; regular files with `HF_HUB_DISABLE_SYMLINKS`.
    pub symlinks: bool,
    /// Proxies by the scheme of the target address.
    pub proxies: Proxies,
    /// A PEM file of root certificates that replaces the system's: `SSL_CERT_FILE`.
    pub certificate_file: Option<PathBuf>,
    /// A folder of such files: `SSL_CERT_DIR`.
    pub certificate_folder: Option<PathBuf>,
    /// Maximum number of parallel downloads.
    pub connections: usize,
    /// Tries in a row without a new byte before a download fails.
    pub tries: u32,
    /// Pause after the first failed try; doubled after each further one, at most to eight times this value.
    pub pause: Duration,
}

/// `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, or the same in lower case.
#[derive(Clone, Default)]
pub struct Proxies {
    /// For `https://` addresses.
    pub https: Option<String>,
    /// For `http://` addresses.
    pub http: Option<String>,
    /// For both schemes, if they have no proxy of their own.
    pub all: Option<String>,
    /// Hosts reached without a proxy, separated by commas; `*` is every host, and a domain includes its subdomains.
    pub none: String,
}

/// The user's access token. `Debug` does not print it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token, trimmed of white space; `None` if it is empty.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for characters that cannot be sent in a header.
    pub fn new(text: &str, variable: &'static str) -> Result<Option<Self>> {
        let text = text.trim();
        if text.chars().any(|c| !c.is_ascii_graphic()) {
            let found = format!("{} characters, some of them not printable ASCII", text.chars().count());
            return Err(Error::Setting { variable, expected: "a token of letters, digits and punctuation", found });
        }
        Ok((!text.is_empty()).then(|| Self(text.to_owned())))
    }

    /// The value of the `Authorization` header.
    pub(crate) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // proxy addresses may hold passwords
        write!(f, "Proxies {{ https: {}, http: {} }}", self.https.is_some(), self.http.is_some())
    }
}

impl Settings {
    /// Settings for a cache, otherwise with the defaults of an empty environment.
    pub fn new(cache: impl Into<PathBuf>) -> Self {
        Self {
            endpoint: PUBLIC_ENDPOINT.into(),
            cache: cache.into(),
            token: None,
            offline: false,
            etag_timeout: Duration::from_secs(10),
            download_timeout: Duration::from_secs(10),
            symlinks: true,
            proxies: Proxies::default(),
            certificate_file: None,
            certificate_folder: None,
            connections: 4,
            tries: 5,
            pause: Duration::from_secs(1),
        }
    }

    /// Settings of the process environment. Reads the token's file.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] names the invalid variable.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(&|name| std::env::var_os(name), std::env::home_dir())
    }

    /// [`Settings::from_env`] with other variables than the process's.
    pub fn from_variables(variable: &dyn Fn(&str) -> Option<OsString>, home: Option<PathBuf>) -> Result<Self> {
        let variables = Variables { variable, home };
        let cache = match variables.path("HF_HUB_CACHE")? {
            Some(path) => path,
            None => match variables.path("HUGGINGFACE_HUB_CACHE")? {
                Some(path) => path,
                None => variables.hf_home()?.join("hub"),
            },
        };
        let defaults = Self::new(cache);
        let hidden = variables.flag("HF_HUB_DISABLE_IMPLICIT_TOKEN")?;
        let offline = match variables.text("HF_HUB_OFFLINE")? {
            Some(text) => is_true(&text),
            None => variables.flag("TRANSFORMERS_OFFLINE")?,
        };
        Ok(Self {
            endpoint: variables.text("HF_ENDPOINT")?.map_or(Ok(PUBLIC_ENDPOINT.into()), |text| endpoint(&text))?,
            token: if hidden { None } else { variables.token()? },
            offline,
            etag_timeout: variables.seconds("HF_HUB_ETAG_TIMEOUT")?.unwrap_or(defaults.etag_timeout),
            download_timeout: variables.seconds("HF_HUB_DOWNLOAD_TIMEOUT")?.unwrap_or(defaults.download_timeout),
            symlinks: !variables.flag("HF_HUB_DISABLE_SYMLINKS")?,
            proxies: Proxies {
                https: variables.either("HTTPS_PROXY", "https_proxy")?,
                // lower case first: CGI sets HTTP_PROXY from a request's `Proxy` header
                http: variables.either("http_proxy", "HTTP_PROXY")?,
                all: variables.either("ALL_PROXY", "all_proxy")?,
                none: variables.either("NO_PROXY", "no_proxy")?.unwrap_or_default(),
            },
            certificate_file: variables.path("SSL_CERT_FILE")?,
            certificate_folder: variables.path("SSL_CERT_DIR")?,
            ..defaults
        })
    }
}

/// Parses the endpoint; trailing slashes are removed.
fn endpoint(text: &str) -> Result<String> {
    let trimmed = text.trim().trim_end_matches('/');
    let uri: Option<ureq::http::Uri> = trimmed.parse().ok();
    let whole = uri.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
    });
    if !whole || trimmed.contains(['?', '#', '@']) {
        let expected = "an address such as https://huggingface.co or http://127.0.0.1:8080";
        return Err(Error::Setting { variable: "HF_ENDPOINT", expected, found: format!("{text:?}") });
    }
    Ok(trimmed.to_owned())
}

/// Python's rule for true.
fn is_true(text: &str) -> bool {
    ["1", "ON", "YES", "TRUE"].contains(&text.to_ascii_uppercase().as_str())
}

/// An environment.
struct Variables<'a> {
    variable: &'a dyn Fn(&str) -> Option<OsString>,
    home: Option<PathBuf>,
}

impl Variables<'_> {
    /// A variable that is set and not empty.
    fn raw(&self, name: &str) -> Option<OsString> {
        (self.variable)(name).filter(|value| !value.is_empty())
    }

    fn text(&self, name: &'static str) -> Result<Option<String>> {
        let Some(value) = self.raw(name) else { return Ok(None) };
        value.into_string().map(Some).map_err(|value| Error::Setting {
            variable: name,
            expected: "text in UTF-8",
            found: value.display().to_string(),
        })
    }

    fn either(&self, first: &'static str, second: &'static str) -> Result<Option<String>> {
        Ok(match self.text(first)? {
            Some(text) => Some(text),
            None => self.text(second)?,
        })
    }

    fn flag(&self, name: &'static str) -> Result<bool> {
        Ok(self.text(name)?.is_some_and(|text| is_true(&text)))
    }

    fn seconds(&self, name: &'static str) -> Result<Option<Duration>> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let seconds = text.trim().parse::<f64>().ok().filter(|seconds| *seconds > 0.0);
        match seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) {
            Some(seconds) => Ok(Some(seconds)),
            None => Err(Error::Setting {
                variable: name,
                expected: "a number of seconds greater than 0",
                found: format!("{text:?}"),
            }),
        }
    }

    fn home(&self, variable: &'static str) -> Result<PathBuf> {
        self.home.clone().filter(|home| !home.as_os_str().is_empty()).ok_or_else(|| Error::Setting {
            variable,
            expected: "a folder, because the user has no home folder",
            found: "nothing".into(),
        })
    }

    /// The folder `HF_HOME`.
    fn hf_home(&self) -> Result<PathBuf> {
        if let Some(path) = self.path("HF_HOME")? {
            return Ok(path);
        }
        let caches = match self.path("XDG_CACHE_HOME")? {
            Some(path) => path,
            None => self.home("HF_HOME")?.join(".cache"),
        };
        Ok(caches.join("huggingface"))
    }

    /// A path with a leading `~`, `$NAME` and `${NAME}` expanded, as in Python.
    fn path(&self, name: &'static str) -> Result<Option<PathBuf>> {
        let Some(value) = self.raw(name) else { return Ok(None) };
        // a path that is not UTF-8 is not expanded
        let Some(text) = value.to_str() else { return Ok(Some(value.into())) };
        let (mut path, rest) = match text.strip_prefix('~') {
            Some("") => return Ok(Some(self.home(name)?)),
            Some(rest) if rest.starts_with(std::path::is_separator) => (self.home(name)?.into_os_string(), rest),
            _ => (OsString::new(), text),
        };
        path.push(self.expand(rest));
        Ok(Some(path.into()))
    }

    /// Expands `$NAME` and `${NAME}`; unknown names are left unchanged.
    fn expand(&self, text: &str) -> OsString {
        let mut out = OsString::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            let (before, from) = rest.split_at(at);
            out.push(before);
            let after = &from[1..];
            let (name, end) = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
                Some((name, _)) => (name, name.len() + 3),
                None => {
                    let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
                    (&after[..end], end + 1)
                }
            };
            match (self.variable)(name).filter(|_| !name.is_empty()) {
                Some(value) => out.push(value),
                None => out.push(&from[..end]),
            }
            rest = &from[end..];
        }
        out.push(rest);
        out
    }

    fn token(&self) -> Result<Option<Token>> {
        for variable in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"] {
            if let Some(token) = self.text(variable)?.map_or(Ok(None), |text| Token::new(&text, variable))? {
                return Ok(Some(token));
            }
        }
        let variable = "HF_TOKEN_PATH";
        let path = match (self.path(variable)?, self.hf_home()) {
            (Some(path), _) => path,
            (None, Ok(home)) => home.join("token"),
            // without a home folder there is no token
            (None, Err(_)) => return Ok(None),
        };
        match std::fs::read_to_string(&path) {
            Ok(text) => Token::new(&text, variable),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                let found = format!("{}: {error}", path.display());
                Err(Error::Setting { variable, expected: "a readable file with a token, or no file", found })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn from(variables: &[(&str, &str)]) -> Result<Settings> {
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        Settings::from_variables(&find, Some("/h".into()))
    }

    #[test]
    fn the_cache_is_where_python_has_it() {
        let cache = |variables: &[(&str, &str)]| from(variables).unwrap().cache;
        assert_eq!(cache(&[]), Path::new("/h/.cache/huggingface/hub"));
        assert_eq!(cache(&[("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
        assert_eq!(cache(&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/y")]), Path::new("/y/hub"));
        assert_eq!(cache(&[("HF_HOME", "~/y")]), Path::new("/h/y/hub"));
        assert_eq!(cache(&[("HF_HOME", "~")]), Path::new("/h/hub"));
        assert_eq!(cache(&[("HF_HOME", "$A/${B}/$C$"), ("A", "/a"), ("B", "b")]), Path::new("/a/b/$C$/hub"));
        assert_eq!(cache(&[("HF_HOME", "")]), Path::new("/h/.cache/huggingface/hub"));
        assert_eq!(cache(&[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HOME", "/y")]), Path::new("/old"));
        assert_eq!(cache(&[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HUB_CACHE", "/new")]), Path::new("/new"));
        let homeless = Settings::from_variables(&|_| None, None).unwrap_err();
        assert!(homeless.to_string().contains("HF_HOME"), "{homeless}");
        for variable in ["HF_HOME", "HF_HUB_CACHE"] {
            assert!(Settings::from_variables(&|name| (name == variable).then(|| "/y".into()), None).is_ok());
        }
    }

    #[test]
    fn tokens_come_from_variables_then_from_the_file_and_are_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().display().to_string();
        std::fs::write(folder.path().join("token"), "hf_file\r\n").unwrap();
        let token = |more: &[(&str, &str)]| {
            from(&[&[("HF_HOME", home.as_str())], more].concat()).unwrap().token.map(|token| token.0)
        };
        assert_eq!(token(&[]).as_deref(), Some("hf_file"));
        assert_eq!(token(&[("HUGGING_FACE_HUB_TOKEN", " hf_old ")]).as_deref(), Some("hf_old"));
        assert_eq!(token(&[("HUGGING_FACE_HUB_TOKEN", "hf_old"), ("HF_TOKEN", "hf_new\n")]).as_deref(), Some("hf_new"));
        assert_eq!(token(&[("HF_TOKEN", "hf_new"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "yes")]), None);
        assert_eq!(token(&[("HF_TOKEN_PATH", "/no/such/file")]), None);
        let shown =
            format!("{:?}", from(&[("HF_TOKEN", "hf_secret"), ("HTTPS_PROXY", "http://u:hf_secret@p")]).unwrap());
        assert!(!shown.contains("secret"), "{shown}");
        let bad = from(&[("HF_TOKEN", "hf_se\ncret")]).unwrap_err().to_string();
        assert!(bad.contains("HF_TOKEN") && !bad.contains("cret"), "{bad}");
        let unreadable = from(&[("HF_TOKEN_PATH", &home)]).unwrap_err().to_string();
        assert!(unreadable.contains("HF_TOKEN_PATH"), "{unreadable}");
    }

    #[test]
    fn switches_times_and_proxies() {
        let offline = |variables: &[(&str, &str)]| from(variables).unwrap().offline;
        assert!(!offline(&[]) && !offline(&[("HF_HUB_OFFLINE", "0")]) && offline(&[("HF_HUB_OFFLINE", "1")]));
        assert!(offline(&[("TRANSFORMERS_OFFLINE", "on")]));
        // Python's `a or b` reads the second only if the first is empty
        assert!(!offline(&[("HF_HUB_OFFLINE", "0"), ("TRANSFORMERS_OFFLINE", "1")]));
        let seconds = |text: &str| from(&[("HF_HUB_DOWNLOAD_TIMEOUT", text)]).map(|s| s.download_timeout.as_secs_f64());
        assert_eq!((seconds("30").unwrap(), seconds("0.5").unwrap()), (30.0, 0.5));
        for bad in ["x", "0", "-1", "nan", "inf", "1e300"] {
            let error = seconds(bad).unwrap_err().to_string();
            assert!(error.contains("HF_HUB_DOWNLOAD_TIMEOUT") && error.contains(bad), "{error}");
        }
        let proxies =
            from(&[("https_proxy", "a"), ("HTTP_PROXY", "b"), ("ALL_PROXY", "c"), ("no_proxy", "d")]).unwrap();
        let Proxies { https, http, all, none } = proxies.proxies;
        assert_eq!(
            (https.as_deref(), http.as_deref(), all.as_deref(), none.as_str()),
            (Some("a"), Some("b"), Some("c"), "d")
        );
    }

    #[test]
    fn endpoints_are_addresses() {
        let of = |text: &str| from(&[("HF_ENDPOINT", text)]).map(|settings| settings.endpoint);
        assert_eq!(of("https://hf-mirror.com/").unwrap(), "https://hf-mirror.com");
        assert_eq!(of("http://127.0.0.1:8/hf/").unwrap(), "http://127.0.0.1:8/hf");
        for bad in ["hf-mirror.com", "ftp://x", "https://", "https://a b", "https://u:p@x", "https://x?y"] {
            let error = of(bad).unwrap_err().to_string();
            assert!(error.contains("HF_ENDPOINT"), "{error}");
        }
    }
}
