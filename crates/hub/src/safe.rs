//! Validation of remote names that become local paths.

use crate::error::{Error, Result};
use std::fmt;
use std::path::PathBuf;

/// The path of a file in a repository, separated by `/`. It stays inside its folder and is valid on every system.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FilePath(String);

impl FilePath {
    /// Checks a path.
    ///
    /// # Errors
    ///
    /// [`Error::UnsafePath`] with the rule that the path breaks.
    pub fn new(path: &str) -> Result<Self> {
        match flaw(path) {
            None => Ok(Self(path.to_owned())),
            Some(reason) => Err(Error::UnsafePath { path: path.to_owned(), reason }),
        }
    }

    /// The path in the repository.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last part of the path.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// Number of folders above the file.
    pub(crate) fn depth(&self) -> usize {
        self.0.matches('/').count()
    }

    /// The relative path with this system's separators.
    pub(crate) fn to_path(&self) -> PathBuf {
        self.0.split('/').collect()
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Device names of Windows, reserved with any extension.
const DEVICES: [&str; 6] = ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"];

/// The rule that a path breaks.
fn flaw(path: &str) -> Option<&'static str> {
    if path.len() > 1024 {
        return Some("it has more than 1024 bytes");
    }
    if path.contains('\\') {
        return Some("a \\ separates folders on Windows");
    }
    if path.chars().any(char::is_control) {
        return Some("it holds control characters");
    }
    if path.contains(['<', '>', ':', '"', '|', '?', '*']) {
        return Some("one of <>:\"|?* has a special meaning on Windows");
    }
    path.split('/').find_map(|part| match part {
        "" => Some("a part of it is empty, or it begins or ends with /"),
        "." | ".." => Some("it leads through . or .."),
        _ if part.len() > 255 => Some("a part of it has more than 255 bytes"),
        _ if part.ends_with(['.', ' ']) => Some("Windows drops a dot or a space at the end of a name"),
        _ if is_device(part) => Some("it is the name of a device on Windows"),
        _ => None,
    })
}

fn is_device(part: &str) -> bool {
    let stem = part.split('.').next().unwrap_or(part).trim_end().to_ascii_uppercase();
    let numbered = |prefix: &str| {
        let mut rest = stem.strip_prefix(prefix).unwrap_or("").chars();
        matches!((rest.next(), rest.next()), (Some('0'..='9' | '¹' | '²' | '³'), None))
    };
    DEVICES.contains(&stem.as_str()) || numbered("COM") || numbered("LPT")
}

/// Checks a branch, tag or commit, which becomes a path below `refs` and a part of URLs.
pub(crate) fn check_revision(revision: &str) -> Result<()> {
    let bad = flaw(revision).is_some()
        || revision.contains([' ', '~', '^', '[', '@'])
        || revision.split('/').any(|part| part.starts_with('.') || part.ends_with(".lock"));
    if !bad {
        return Ok(());
    }
    let hint = "branches, tags and commits have no spaces and none of ~^:?*[\\@".into();
    Err(Error::Name { name: revision.to_owned(), expected: "the name of a revision".into(), hint })
}

/// Whether a text is a full commit hash: 40 lower-case hexadecimal digits.
pub(crate) fn is_commit(text: &str) -> bool {
    is_hex(text, 40)
}

/// Whether a text consists of `digits` lower-case hexadecimal digits.
pub(crate) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Whether an ETag can be the name of a blob.
pub(crate) fn is_blob_name(etag: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' || byte == b'.';
    !etag.is_empty() && etag.len() <= 128 && !etag.starts_with('.') && etag.bytes().all(plain) && flaw(etag).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_stay_inside() {
        for good in [
            "config.json",
            "a/b/c.gguf",
            "ünï/x y.txt",
            ".gitattributes",
            "..a",
            "a..",
            "com.txt",
            "console",
            "COM10",
            "a/nul-1",
        ] {
            let found = FilePath::new(good);
            assert_eq!(found.is_ok(), good != "a..", "{good}: {found:?}");
        }
        for bad in [
            "",
            "/",
            "/etc/passwd",
            "a/",
            "a//b",
            ".",
            "..",
            "../a",
            "a/../b",
            "a/./b",
            "a\\b",
            "..\\a",
            "C:/a",
            "C:a",
            "a:b",
            "\\\\host\\share",
            "//host/share",
            "a\0b",
            "a\nb",
            "con",
            "CON.txt",
            "nul",
            "a/aux.json",
            "com1",
            "LPT9.x",
            "COM¹",
            "CONIN$",
            "a ",
            "a.",
            "a./b",
            "what?",
            "a*b",
        ] {
            assert!(matches!(FilePath::new(bad), Err(Error::UnsafePath { .. })), "{bad:?}");
        }
        assert!(FilePath::new(&"a".repeat(256)).is_err() && FilePath::new(&"a/".repeat(600)).is_err());
        assert_eq!(FilePath::new("a/b/c").unwrap().depth(), 2);
        assert_eq!(FilePath::new("a/b/c").unwrap().name(), "c");
    }

    #[test]
    fn revisions_and_blobs() {
        for good in ["main", "v1.0", "refs/pr/1", "refs/convert/parquet", "feature-x_y"] {
            assert!(check_revision(good).is_ok(), "{good}");
        }
        for bad in ["", "../x", "a/../b", "a b", "a:b", "/a", "a/", ".a", "a\\b", "a@b", "x.lock", "a^", "\u{7}"] {
            assert!(check_revision(bad).is_err(), "{bad:?}");
        }
        assert!(is_commit(&"0a".repeat(20)) && !is_commit(&"0A".repeat(20)) && !is_commit("0a"));
        for good in [&"0a".repeat(32), "abc-12", "5f"] {
            assert!(is_blob_name(good), "{good}");
        }
        for bad in ["", "..", ".x", "a/b", "a\\b", "a b", "nul", "a.", &"a".repeat(129)] {
            assert!(!is_blob_name(bad), "{bad:?}");
        }
    }
}
