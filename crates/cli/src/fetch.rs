//! Resolution of the model argument to a path. A path is unchanged; a name becomes a path in the hub's cache, after a download if
//! it is not there.

use phi3_runner::{Error, Result};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Required files of a model.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    Weights,
    /// Tokenizer and chat template.
    Text,
}

/// The folder or file of a model. An existing path is returned as it is, and so is an argument that cannot be a name.
pub(super) fn path(model: &Path, need: Need, quiet: bool) -> Result<PathBuf> {
    if model.symlink_metadata().is_ok() {
        return Ok(model.to_owned());
    }
    match name(model.as_os_str()) {
        Some(name) => named(name, need, quiet),
        None => Ok(model.to_owned()),
    }
}

/// The argument, if it may be a name. It is a path if it begins like one, has more than one slash, or ends like a file in an
/// existing folder.
fn name(typed: &OsStr) -> Option<&str> {
    let text = typed.to_str().filter(|text| !text.is_empty())?;
    let host = text.split('/').next().unwrap_or("").to_ascii_lowercase();
    if text.contains("://") || ["huggingface.co", "www.huggingface.co", "hf.co"].contains(&host.as_str()) {
        return Some(text);
    }
    let is_drive = matches!(text.as_bytes(), [letter, b':', b'/' | b'\\', ..] if letter.is_ascii_alphabetic());
    if text.starts_with(['.', '/', '~', '\\']) || text.contains('\\') || text.ends_with('/') || is_drive {
        return None;
    }
    // slashes in a revision or a file after the name are not counted
    let head = text.split(['@', ':']).next().unwrap_or(text);
    if head.matches('/').count() > 1 {
        return None;
    }
    let is_file = [".gguf", ".safetensors", ".json"].iter().any(|end| text.to_ascii_lowercase().ends_with(end));
    let folder = Path::new(text).parent().unwrap_or(Path::new(""));
    let beside = is_file && head == text && (folder == Path::new("") || folder.is_dir());
    (!beside).then_some(text)
}

#[cfg(not(feature = "hub"))]
fn named(name: &str, _: Need, _: bool) -> Result<PathBuf> {
    Err(no_downloads(&format!("there is no file or folder {name:?}")))
}

/// Error of a build without the hub.
#[cfg(not(feature = "hub"))]
pub(super) fn no_downloads(what: &str) -> Error {
    let hint = "build it with the feature hub, or give the path of a checkpoint folder or a GGUF file";
    Error::Program(format!("{what}, and this build cannot download models by name; hint: {hint}").into())
}

/// No effect: this build has no downloads.
#[cfg(not(feature = "hub"))]
pub(super) fn set_offline() {}

#[cfg(not(feature = "hub"))]
pub(super) fn is_stopped(_: &Error) -> bool {
    false
}

#[cfg(feature = "hub")]
pub(super) use hub::{hub, is_stopped, named, program, set_offline, watched};

#[cfg(feature = "hub")]
mod hub {
    use super::{Error, Need, PathBuf, Result};
    use crate::bars::Bars;
    use crate::output;
    use phi3_hub::{Hub, Local, ModelName, Settings, Wanted, Watch};
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Whether `--offline` was typed.
    static OFFLINE: AtomicBool = AtomicBool::new(false);

    /// Disables downloads from now on.
    pub(crate) fn set_offline() {
        OFFLINE.store(true, Ordering::Relaxed);
    }

    /// The hub of the environment's settings.
    pub(crate) fn hub() -> Result<Hub> {
        let mut settings = Settings::from_env().map_err(program)?;
        settings.offline |= OFFLINE.load(Ordering::Relaxed);
        Ok(Hub::new(settings))
    }

    pub(crate) fn program(error: phi3_hub::Error) -> Error {
        Error::Program(error.into())
    }

    /// Whether Ctrl-C ended a download.
    pub(crate) fn is_stopped(error: &Error) -> bool {
        let Error::Program(error) = error else { return false };
        matches!(error.downcast_ref(), Some(phi3_hub::Error::Stopped))
    }

    /// A model by name.
    pub(crate) fn named(name: &str, need: Need, quiet: bool) -> Result<PathBuf> {
        // the argument may also be a mistyped path
        let mistyped = |error: phi3_hub::Error| match error {
            phi3_hub::Error::Name { .. } | phi3_hub::Error::RepoNotFound { .. } if !name.contains("://") => {
                Error::Program(format!("there is no file or folder {name:?} here, and {error}").into())
            }
            error => program(error),
        };
        let wanted = if need == Need::Text { Wanted::Text } else { Wanted::Model };
        let model: ModelName = name.parse().map_err(mistyped)?;
        let hub = hub()?;
        let local = watched(quiet, |watch| hub.get(&model, wanted, watch));
        local.map(|local| local.path).map_err(mistyped)
    }

    /// Runs a download with progress bars; Ctrl-C ends it.
    pub(crate) fn watched(
        quiet: bool,
        call: impl FnOnce(&mut Watch<'_>) -> phi3_hub::Result<Local>,
    ) -> phi3_hub::Result<Local> {
        let mut bars = Bars::new(quiet);
        output::with_ctrl_c(|stop| call(&mut Watch { stop, tell: &mut |event| bars.tell(event) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_are_told_apart() {
        for text in [
            "phi-4-mini",
            "phi-4-mini:q4_k_m",
            "microsoft/phi-4",
            "a/b@refs/pr/1",
            "a/b:sub/folder/file.gguf",
            "a/b@refs/pr/1:x.gguf",
            "no-such-folder/x.gguf",
            "hf.co/a/b",
            "HF.co/a/b/tree/main",
            "huggingface.co/a/b",
            "https://huggingface.co/a/b/blob/main/x.gguf",
            "https://example.com/a/b",
        ] {
            assert_eq!(name(OsStr::new(text)), Some(text), "{text}");
        }
        for text in [
            "",
            ".",
            "..",
            "./a/b",
            "../a",
            "/a/b",
            "~/a",
            "a/b/c",
            "a/b/c:d",
            "a\\b",
            "C:\\a",
            "c:/a",
            "\\\\host\\a",
            "models/",
            "x.gguf",
            "X.GGUF",
            "config.json",
            "src/x.gguf",
            "model.safetensors",
        ] {
            assert_eq!(name(OsStr::new(text)), None, "{text}");
        }
    }

    #[test]
    fn what_is_there_is_taken_as_it_is() {
        assert_eq!(path(Path::new("src"), Need::Weights, true).unwrap(), Path::new("src"));
        assert_eq!(path(Path::new("no/such/path"), Need::Weights, true).unwrap(), Path::new("no/such/path"));
    }
}
