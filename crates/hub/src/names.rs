//! Names of models: `owner/name`, a short name or a URL, with an optional revision and GGUF file.

use crate::error::{Error, Result};
use crate::safe::{self, FilePath};
use crate::table;
use percent_encoding::percent_decode_str;
use std::fmt;
use std::str::FromStr;

/// The default branch.
pub const MAIN: &str = "main";

const FORMS: &str = "owner/name, a short name, or a URL of huggingface.co; then @revision and :file.gguf or :q4_k_m";

/// A repository: `owner/name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepoId(String);

/// The selected part of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The published weights; in a repository of GGUF files only, the default one.
    Whole,
    /// The GGUF file of a quantization, such as `q4_k_m`; case-insensitive.
    Label(String),
    /// A GGUF file by its path in the repository.
    File(FilePath),
}

/// A model by name.
///
/// ```
/// use phi3_hub::{ModelName, Part};
///
/// let name: ModelName = "bartowski/phi-4-GGUF@main:q4_k_m".parse()?;
/// assert_eq!(name.repo().as_str(), "bartowski/phi-4-GGUF");
/// assert_eq!(name.part(), &Part::Label("q4_k_m".into()));
///
/// let name: ModelName = "phi-3.5-mini".parse()?;
/// assert_eq!(name.to_string(), "microsoft/Phi-3.5-mini-instruct");
/// # Ok::<(), phi3_hub::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModelName {
    repo: RepoId,
    revision: Option<String>,
    part: Part,
}

impl RepoId {
    /// The id as text, `owner/name`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of its folder in the cache: `models--owner--name`.
    pub fn folder(&self) -> String {
        format!("models--{}", self.0.replace('/', "--"))
    }

    /// The repository of a cache folder `models--owner--name`.
    pub(crate) fn from_folder(name: &str) -> Option<Self> {
        name.strip_prefix("models--")?.replacen("--", "/", 1).parse().ok()
    }
}

impl FromStr for RepoId {
    type Err = Error;

    /// Reads `owner/name` by the hub's rules.
    fn from_str(text: &str) -> Result<Self> {
        let bad = |expected: &str| Error::Name {
            name: text.to_owned(),
            expected: expected.to_owned(),
            hint: "is the name right? The hub's search is at https://huggingface.co/models".into(),
        };
        let Some((owner, name)) = text.split_once('/') else { return Err(bad("owner/name")) };
        for part in [owner, name] {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if part.is_empty() || !part.chars().all(plain) {
                return Err(bad("owner/name of letters, digits, '-', '_' and '.'"));
            }
            if part.starts_with(['-', '.']) || part.ends_with(['-', '.']) {
                return Err(bad("owner and name that neither begin nor end with '-' or '.'"));
            }
        }
        if text.contains("--") || text.contains("..") || text.ends_with(".git") || text.len() > 96 {
            return Err(bad("at most 96 characters without \"--\" or \"..\", and no .git at the end"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ModelName {
    /// A model by its parts.
    ///
    /// # Errors
    ///
    /// [`Error::Name`] for an invalid revision.
    pub fn new(repo: RepoId, revision: Option<&str>, part: Part) -> Result<Self> {
        if let Some(revision) = revision {
            safe::check_revision(revision)?;
        }
        Ok(Self { repo, revision: revision.map(str::to_owned), part })
    }

    /// The repository.
    pub fn repo(&self) -> &RepoId {
        &self.repo
    }

    /// The branch, tag or commit.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(MAIN)
    }

    /// Whether a revision was named.
    pub fn has_revision(&self) -> bool {
        self.revision.is_some()
    }

    /// The part of the repository.
    pub fn part(&self) -> &Part {
        &self.part
    }
}

impl FromStr for ModelName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match without_host(text)? {
            Some(path) => from_url(text, path),
            None => from_words(text, text),
        }
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.repo)?;
        if let Some(revision) = &self.revision {
            write!(f, "@{revision}")?;
        }
        match &self.part {
            Part::Whole => Ok(()),
            Part::Label(label) => write!(f, ":{label}"),
            Part::File(file) => write!(f, ":{file}"),
        }
    }
}

fn bad(text: &str, expected: impl Into<String>, hint: impl Into<String>) -> Error {
    Error::Name { name: text.to_owned(), expected: expected.into(), hint: hint.into() }
}

/// `owner/name@revision:part`, or a short name in place of `owner/name`; `text` is for messages.
fn from_words(text: &str, words: &str) -> Result<ModelName> {
    let at = words.find(['@', ':']).unwrap_or(words.len());
    let (head, rest) = words.split_at(at);
    let (revision, part) = match rest.strip_prefix('@') {
        Some(rest) => match rest.split_once(':') {
            Some((revision, part)) => (Some(revision), Some(part)),
            None => (Some(rest), None),
        },
        None => (None, rest.strip_prefix(':')),
    };
    let part = part.map_or(Ok(Part::Whole), |part| named_part(text, part))?;
    let repo = if head.contains('/') { head.parse()? } else { short(text, head, &part)? };
    ModelName::new(repo, revision, part)
}

/// Parses the part after the colon.
fn named_part(text: &str, part: &str) -> Result<Part> {
    let is_label = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if is_gguf(part) {
        return Ok(Part::File(FilePath::new(part)?));
    }
    if part.is_empty() || !part.chars().all(is_label) {
        let expected = "a GGUF file or a quantization after the colon, such as :q4_k_m";
        return Err(bad(text, expected, "for anything that is no GGUF file, name the repository without a file"));
    }
    Ok(Part::Label(part.to_owned()))
}

/// Whether a path has the extension `.gguf`.
pub(crate) fn is_gguf(path: &str) -> bool {
    path.len() > 5 && path.is_char_boundary(path.len() - 5) && path[path.len() - 5..].eq_ignore_ascii_case(".gguf")
}

/// The repository of a short name.
fn short(text: &str, name: &str, part: &Part) -> Result<RepoId> {
    let Some(known) = table::find(name) else {
        let names: Vec<&str> = table::SHORT_NAMES.iter().map(|known| known.name).collect();
        let hint = format!("short names are {}; anything else is {FORMS}", names.join(", "));
        return Err(bad(text, "a short name or owner/name", hint));
    };
    if *part == Part::Whole { known.repo.parse() } else { known.gguf.parse() }
}

/// The path of a URL of the hub, without query and fragment; `None` for text without the hub's host.
fn without_host(text: &str) -> Result<Option<&str>> {
    let scheme = text.find("://").map(|at| (&text[..at], &text[at + 3..]));
    let rest = match scheme {
        Some((scheme, rest)) if ["https", "http"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) => rest,
        Some((scheme, _)) => return Err(bad(text, "https://", format!("{scheme}:// is not understood"))),
        None => text,
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let is_hub = ["huggingface.co", "www.huggingface.co", "hf.co"].iter().any(|hub| host.eq_ignore_ascii_case(hub));
    match (is_hub, scheme) {
        (true, _) => Ok(Some(path.split(['?', '#']).next().unwrap_or(path))),
        (false, Some(_)) => Err(bad(
            text,
            "a URL of huggingface.co",
            "for a mirror, give owner/name and set HF_ENDPOINT to its address",
        )),
        (false, None) => Ok(None),
    }
}

/// `owner/name`, perhaps with `/tree/revision`, `/blob/revision/file` or `/resolve/revision/file`.
fn from_url(text: &str, path: &str) -> Result<ModelName> {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let forms = "a URL of a model or of a GGUF file";
    let (owner, name, rest) = match segments.as_slice() {
        [owner, name, rest @ ..] => (*owner, *name, rest),
        _ => return Err(bad(text, forms, "copy the address of the model's page")),
    };
    if ["datasets", "spaces", "kernels", "buckets", "collections", "papers", "docs", "blog", "api"].contains(&owner) {
        return Err(bad(text, forms, format!("{owner}/ holds no models")));
    }
    if rest.is_empty() {
        return from_words(text, &format!("{owner}/{name}"));
    }
    if name.contains(':') || name.contains('@') {
        // the file after the colon and the revision may contain slashes
        return from_words(text, &format!("{owner}/{name}/{}", rest.join("/")));
    }
    let repo: RepoId = format!("{owner}/{name}").parse()?;
    let decoded = |segment: &str| {
        let text_of = percent_decode_str(segment).decode_utf8().map(|text| text.into_owned());
        text_of.map_err(|_| bad(text, forms, "its escapes are not UTF-8"))
    };
    let (kind, rest) = (rest[0], &rest[1..]);
    let is_file = match kind {
        "tree" => false,
        "blob" | "resolve" | "raw" => true,
        _ => return Err(bad(text, forms, format!("/{kind} is not /tree, /blob or /resolve"))),
    };
    // revisions of pull requests and conversions contain slashes, which browsers show unescaped
    let of_revision = match rest {
        ["refs", "pr" | "convert", _, ..] => 3,
        [_, ..] => 1,
        [] => return Err(bad(text, forms, format!("a revision is missing after /{kind}"))),
    };
    let (revision, file) = rest.split_at(of_revision);
    let revision = decoded(&revision.join("/"))?;
    let file = decoded(&file.join("/"))?;
    let part = match (is_file, file.as_str()) {
        (false, "") => Part::Whole,
        (true, file) if is_gguf(file) => Part::File(FilePath::new(file)?),
        (true, _) => {
            return Err(bad(text, forms, "for anything that is no GGUF file, name the repository without a file"));
        }
        (false, _) => return Err(bad(text, forms, "a folder of a repository is not a model; name a GGUF file in it")),
    };
    ModelName::new(repo, Some(&revision), part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        text.parse::<ModelName>().map_or_else(|error| error.to_string(), |name| name.to_string())
    }

    #[test]
    fn names_with_revisions_and_parts() {
        for same in [
            "microsoft/phi-4",
            "microsoft/phi-4@v1.0",
            "a/b@refs/pr/1",
            "a/b@refs/pr/1:q4_k_m",
            "a/b:Q4_K_M",
            "a/b:x/y-Q8_0.gguf",
            "a/b@main:y.GGUF",
            "a/b:file@2.gguf",
            "0x/1_2.3-4",
        ] {
            assert_eq!(shown(same), same);
        }
        let name: ModelName = "a/b@r:y.gguf".parse().unwrap();
        assert_eq!((name.revision(), name.part()), ("r", &Part::File(FilePath::new("y.gguf").unwrap())));
        let name: ModelName = "a/b".parse().unwrap();
        assert_eq!((name.revision(), name.has_revision()), ("main", false));
    }

    #[test]
    fn urls() {
        for (url, expected) in [
            ("https://huggingface.co/microsoft/phi-4", "microsoft/phi-4"),
            ("HTTPS://HuggingFace.co/microsoft/phi-4/", "microsoft/phi-4"),
            ("http://hf.co/a/b?library=x#y", "a/b"),
            ("hf.co/a/b", "a/b"),
            ("hf.co/a/b:Q4_K_M", "a/b:Q4_K_M"),
            ("huggingface.co/a/b@v1:d/e.gguf", "a/b@v1:d/e.gguf"),
            ("hf.co/a/b@refs/pr/2:q8_0", "a/b@refs/pr/2:q8_0"),
            ("www.huggingface.co/a/b", "a/b"),
            ("https://huggingface.co/a/b/tree/main", "a/b@main"),
            ("https://huggingface.co/a/b/tree/refs%2Fpr%2F7", "a/b@refs/pr/7"),
            ("https://huggingface.co/a/b/tree/refs/pr/7", "a/b@refs/pr/7"),
            ("https://huggingface.co/a/b/blob/main/d/e.gguf", "a/b@main:d/e.gguf"),
            ("https://huggingface.co/a/b/resolve/v1/e%20f.gguf?download=true", "a/b@v1:e f.gguf"),
        ] {
            assert_eq!(shown(url), expected, "{url}");
        }
        for (url, word) in [
            ("https://huggingface.co/datasets/a/b", "datasets"),
            ("https://huggingface.co/a", "URL of a model"),
            ("https://example.com/a/b", "HF_ENDPOINT"),
            ("ftp://huggingface.co/a/b", "ftp"),
            ("https://huggingface.co/a/b/discussions/1", "discussions"),
            ("https://huggingface.co/a/b/blob/main/README.md", "no GGUF file"),
            ("https://huggingface.co/a/b/tree/main/cpu", "folder"),
            ("https://huggingface.co/a/b/tree", "revision"),
            ("https://huggingface.co/a/b/blob/main/..%2Fe.gguf", ".."),
            ("https://huggingface.co/a/b/tree/%ff", "UTF-8"),
        ] {
            let error = shown(url);
            assert!(error.contains(word) && error.contains("hint: "), "{url}: {error}");
        }
    }

    #[test]
    fn what_is_no_name() {
        for (text, word) in [
            ("", "short name"),
            ("phi-9", "phi-4-mini"),
            ("a/b/c", "letters"),
            ("a/", "letters"),
            ("/b", "letters"),
            ("a/b c", "letters"),
            ("a/ü", "letters"),
            ("a/-b", "begin"),
            ("a/b.", "end"),
            ("a/b--c", "--"),
            ("a/b..c", ".."),
            ("a/b.git", ".git"),
            ("a/b@", "revision"),
            ("a/b@../x", "revision"),
            ("a/b:", "colon"),
            ("a/b:model.safetensors/x", "colon"),
            ("a/b:../x.gguf", ".."),
            ("a/b:C:\\x.gguf", "\\"),
        ] {
            let error = shown(text);
            assert!(error.contains(word) && error.contains("hint: "), "{text}: {error}");
        }
        let long = format!("a/{}", "b".repeat(95));
        assert!(shown(&long).contains("96"));
    }

    #[test]
    fn folders_of_the_cache() {
        let repo: RepoId = "microsoft/Phi-3-mini-4k-instruct".parse().unwrap();
        assert_eq!(repo.folder(), "models--microsoft--Phi-3-mini-4k-instruct");
        assert_eq!(RepoId::from_folder(&repo.folder()), Some(repo));
        for other in ["datasets--a--b", "models--", "models--gpt2", "version.txt", "models--a--b--c"] {
            assert_eq!(RepoId::from_folder(other), None, "{other}");
        }
    }
}
