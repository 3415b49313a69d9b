//! URLs: escaping, joining and comparison.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ureq::http::Uri;

/// Escape set of a path segment.
const PART: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Escape set of a path.
const PATH: &AsciiSet = &PART.remove(b'/');

/// Escapes a path segment, such as a revision; slashes are escaped too.
pub(crate) fn part(text: &str) -> String {
    utf8_percent_encode(text, PART).to_string()
}

/// Escapes a path; slashes are kept.
pub(crate) fn path(text: &str) -> String {
    utf8_percent_encode(text, PATH).to_string()
}

/// Scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// The origin of an `http` or `https` address; `None` for any other.
    pub(crate) fn of(uri: &Uri) -> Option<Self> {
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let standard = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let host = uri.host().filter(|host| !host.is_empty())?.to_ascii_lowercase();
        Some(Self { port: uri.port_u16().unwrap_or(standard), scheme, host })
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Whether the scheme is `https`.
    pub(crate) fn is_secure(&self) -> bool {
        self.scheme == "https"
    }

    /// Whether secrets for `self` may be sent to `other`: the same origin, or the same host upgraded from `http` (port 80) to
    /// `https` (port 443).
    pub(crate) fn trusts(&self, other: &Self) -> bool {
        let upgraded = self.host == other.host && (self.port, other.port) == (80, 443) && other.is_secure();
        self == other || upgraded
    }
}

/// Resolves a `Location` header against an address; `None` unless the result is an `http` or `https` address.
pub(crate) fn join(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next().unwrap_or(location);
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    let before = |end: char| location.split([end, '/', '?']).next().unwrap_or("").len();
    let has_scheme = location[before(':')..].starts_with(':');
    let whole = if has_scheme {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", base.path())
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    whole.parse().ok().filter(|uri| Origin::of(uri).is_some())
}

/// An address for messages, without the query, which may hold a secret signature.
pub(crate) fn shown(uri: &Uri) -> String {
    let (scheme, host) = (uri.scheme_str().unwrap_or(""), uri.host().unwrap_or(""));
    let port = uri.port_u16().map_or_else(String::new, |port| format!(":{port}"));
    format!("{scheme}://{host}{port}{}", uri.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_paths_are_escaped() {
        assert_eq!(part("refs/pr/1"), "refs%2Fpr%2F1");
        assert_eq!(path("a b/ü-1_2.3~%.gguf"), "a%20b/%C3%BC-1_2.3~%25.gguf");
    }

    #[test]
    fn locations_are_joined() {
        let base: Uri = "https://h:8/a/b?x=1".parse().unwrap();
        for (location, expected) in [
            ("/c/d?e", "https://h:8/c/d?e"),
            ("c", "https://h:8/a/c"),
            ("?y", "https://h:8/a/b?y"),
            ("//o/c", "https://o/c"),
            ("http://o:9/c#d", "http://o:9/c"),
            ("/c?u=http://x", "https://h:8/c?u=http://x"),
        ] {
            assert_eq!(join(&base, location).unwrap(), expected.parse::<Uri>().unwrap(), "{location}");
        }
        for bad in ["ftp://o/c", "file:///etc/passwd", "javascript:x", "http://", "http:/x", "/a b"] {
            assert_eq!(join(&base, bad), None, "{bad}");
        }
    }

    #[test]
    fn origins_that_may_be_told_secrets() {
        let of = |text: &str| Origin::of(&text.parse().unwrap()).unwrap();
        let trusts = |a: &str, b: &str| of(a).trusts(&of(b));
        assert!(trusts("https://h/a", "https://H:443/b"));
        assert!(trusts("http://h/a", "https://h/b"));
        for (from, to) in [
            ("https://h/", "http://h/"),
            ("https://h/", "https://h:444/"),
            ("http://h:80/", "https://h:444/"),
            ("https://h/", "https://x.h/"),
            ("http://127.0.0.1/", "http://localhost/"),
        ] {
            assert!(!trusts(from, to), "{from} {to}");
        }
        assert_eq!(shown(&"https://h:8/a?signature=x".parse().unwrap()), "https://h:8/a");
    }
}
