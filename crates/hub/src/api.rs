//! Requests to the hub: the files of a revision, and the metadata of a file.

use crate::error::{Error, Result};
use crate::http::{Answer, Client, wanted_pause};
use crate::names::RepoId;
use crate::safe::{self, FilePath};
use crate::url;
use serde_json::Value;
use std::io::Read;

/// Largest accepted listing, in bytes.
const LARGEST_LISTING: u64 = 64 << 20;

/// The files of a repository at a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The commit's hash: 40 hexadecimal digits.
    pub commit: String,
    /// The files, in the hub's order.
    pub files: Vec<RemoteFile>,
}

/// A file in a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemoteFile {
    /// Path in the repository, unchecked: it may be unsafe as a local path. See [`FilePath`].
    pub path: String,
    /// Length in bytes, if the hub reports it.
    pub size: Option<u64>,
    /// SHA-1 of the git blob; for a large file, of its LFS pointer.
    pub blob_id: Option<String>,
    /// SHA-256 of the content; large files only.
    pub sha256: Option<String>,
}

impl RemoteFile {
    /// Expected ETag, which is also the name of the blob in the cache.
    pub(crate) fn etag(&self) -> Option<&str> {
        self.sha256.as_deref().or(self.blob_id.as_deref())
    }
}

/// Metadata from a file's own address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The commit's hash.
    pub commit: String,
    /// Identifier of the content. At the public hub: a SHA-256 (64 digits) or the SHA-1 of a git blob (40 digits).
    pub etag: String,
    /// Length in bytes, if the hub reports it.
    pub size: Option<u64>,
}

/// Subject of a request, for error messages.
pub(crate) struct Subject<'a> {
    pub(crate) repo: &'a RepoId,
    pub(crate) revision: &'a str,
    pub(crate) file: Option<&'a FilePath>,
}

impl Client<'_> {
    /// The files of a repository at a revision.
    pub(crate) fn list(&self, repo: &RepoId, revision: &str) -> Result<Listing> {
        let path = format!("api/models/{repo}/revision/{}?blobs=true", url::part(revision));
        let mut answer = self.get(self.address(&path)?, None)?;
        if answer.status() != 200 {
            return Err(self.refusal(&answer, &Subject { repo, revision, file: None }));
        }
        let shown = url::shown(&answer.uri);
        let mut bytes = Vec::new();
        let body = answer.response.body_mut().as_reader().take(LARGEST_LISTING + 1).read_to_end(&mut bytes);
        body.map_err(|error| crate::http::failure(&answer.uri, error.into()))?;
        if bytes.len() as u64 > LARGEST_LISTING {
            let message = format!("its listing has more than {LARGEST_LISTING} bytes");
            return Err(Error::NotAHub { url: shown, message });
        }
        listing(&bytes).map_err(|message| Error::NotAHub { url: shown, message })
    }

    /// A file's metadata at a revision.
    pub(crate) fn metadata(&self, repo: &RepoId, revision: &str, file: &FilePath) -> Result<Metadata> {
        let answer = self.head(self.resolve(repo, revision, file)?)?;
        let shown = url::shown(&answer.uri);
        let is_redirect = answer.redirect()?.is_some();
        if answer.status() != 200 && !is_redirect {
            return Err(self.refusal(&answer, &Subject { repo, revision, file: Some(file) }));
        }
        let odd = |message: &str| Error::NotAHub { url: shown.clone(), message: message.into() };
        let commit = answer.header("x-repo-commit").ok_or_else(|| odd("the header X-Repo-Commit is missing"))?;
        if !safe::is_commit(commit) {
            return Err(odd("the header X-Repo-Commit is not a commit hash"));
        }
        if safe::is_commit(revision) && revision != commit {
            return Err(odd("it answers for another commit"));
        }
        let etag = answer.header("x-linked-etag").or_else(|| answer.header("etag"));
        let etag = plain_etag(etag.ok_or_else(|| odd("the header ETag is missing"))?);
        if !safe::is_blob_name(etag) {
            return Err(odd("the header ETag cannot be used as a file name"));
        }
        // the Content-Length of a redirect is that of its own body
        let length = || if is_redirect { None } else { answer.header("content-length") };
        let size = answer.header("x-linked-size").or_else(length);
        let size = size.map(|size| size.parse().map_err(|_| odd("the file's size is not a number"))).transpose()?;
        Ok(Metadata { commit: commit.to_owned(), etag: etag.to_owned(), size })
    }

    /// The address of a file.
    pub(crate) fn resolve(&self, repo: &RepoId, revision: &str, file: &FilePath) -> Result<ureq::http::Uri> {
        self.address(&format!("{repo}/resolve/{}/{}", url::part(revision), url::path(file.as_str())))
    }

    /// The error for an answer without content.
    pub(crate) fn refusal(&self, answer: &Answer, subject: &Subject<'_>) -> Error {
        let (status, url) = (answer.status(), url::shown(&answer.uri));
        let said = answer.header("x-error-message").map(|text| text.chars().take(300).collect::<String>());
        let repo = subject.repo.to_string();
        let page = format!("{}/{repo}", self.settings().endpoint);
        let has_token = self.settings().token.is_some();
        let message = said.clone().unwrap_or_else(|| "no reason given".into());
        match (answer.header("x-error-code"), status) {
            (Some("GatedRepo"), _) => {
                let hint = match has_token {
                    true => "try again; the token in use must belong to the account that accepted them",
                    false => "set HF_TOKEN to a token of that account",
                };
                Error::Gated { repo, message, url: page, hint }
            }
            (Some("RevisionNotFound"), _) => {
                Error::RevisionNotFound { repo, revision: subject.revision.to_owned(), url: format!("{page}/commits") }
            }
            (Some("EntryNotFound"), _) | (None, 404) if subject.file.is_some() => Error::FileNotFound {
                file: subject.file.map_or_else(String::new, ToString::to_string),
                revision: subject.revision.to_owned(),
                url: format!("{page}/tree/{}", url::part(subject.revision)),
                repo,
            },
            (_, 401) if said.as_deref().is_some_and(|said| said.contains("Invalid credentials")) => Error::Refused {
                repo,
                status,
                message,
                hint: "the token (HF_TOKEN, or the file token in HF_HOME) is not valid or has expired; make another at https://huggingface.co/settings/tokens",
            },
            (Some("RepoNotFound"), _) | (None, 401 | 404) => Error::RepoNotFound {
                repo,
                hint: match has_token {
                    true => "is the name right, and does the account of the token in use have access to it?".into(),
                    false => {
                        "is the name right? For a private repository, set HF_TOKEN to a token with read access".into()
                    }
                },
            },
            (_, 401 | 403) => {
                Error::Refused { repo, status, message, hint: "HF_TOKEN must be a token that may read this repository" }
            }
            (_, 429) => Error::RateLimited { wait: wanted_pause(answer.response.headers()) },
            _ => {
                let hint = match status {
                    500.. => "the hub has an internal error; try again later",
                    _ => "try again later, or set HF_ENDPOINT to a mirror",
                };
                Error::Status { url, status, message, hint }
            }
        }
    }
}

/// An ETag without quotes and without the prefix `W/` of weak ones.
fn plain_etag(etag: &str) -> &str {
    etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"')
}

/// Parses a listing; the error describes the defect.
fn listing(bytes: &[u8]) -> std::result::Result<Listing, String> {
    let value: Value =
        serde_json::from_slice(bytes).map_err(|error| format!("its listing is not valid JSON: {error}"))?;
    let text = |value: &Value, key: &str| value[key].as_str().map(str::to_owned);
    let commit =
        text(&value, "sha").filter(|sha| safe::is_commit(sha)).ok_or("its listing has no commit hash in sha")?;
    let siblings = value["siblings"].as_array().ok_or("its listing has no files in siblings")?;
    let file = |(i, sibling): (usize, &Value)| {
        let path = text(sibling, "rfilename").ok_or_else(|| format!("siblings[{i}] has no rfilename"))?;
        let lfs = &sibling["lfs"];
        Ok(RemoteFile {
            path,
            size: lfs["size"].as_u64().or(sibling["size"].as_u64()),
            blob_id: text(sibling, "blobId").filter(|id| safe::is_hex(id, 40)),
            sha256: text(lfs, "sha256").filter(|hash| safe::is_hex(hash, 64)),
        })
    };
    let files = siblings.iter().enumerate().map(file).collect::<std::result::Result<Vec<_>, String>>()?;
    Ok(Listing { commit, files })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings() {
        let (sha, oid, hash) = ("ab".repeat(20), "cd".repeat(20), "ef".repeat(32));
        let text = format!(
            r#"{{"id":"a/b","sha":"{sha}","siblings":[{{"rfilename":"config.json","size":3,"blobId":"{oid}"}},
               {{"rfilename":"m.safetensors","size":7,"blobId":"{oid}","lfs":{{"sha256":"{hash}","size":7,"pointerSize":1}}}},
               {{"rfilename":"plain"}}]}}"#
        );
        let found = listing(text.as_bytes()).unwrap();
        assert_eq!((found.commit.as_str(), found.files.len()), (sha.as_str(), 3));
        let etags: Vec<_> = found.files.iter().map(RemoteFile::etag).collect();
        assert_eq!(etags, [Some(oid.as_str()), Some(hash.as_str()), None]);
        assert_eq!(found.files.iter().map(|file| file.size).collect::<Vec<_>>(), [Some(3), Some(7), None]);
        for (bad, word) in [
            ("<html>log in</html>", "JSON"),
            ("{}", "sha"),
            (r#"{"sha":"main","siblings":[]}"#, "sha"),
            (&format!(r#"{{"sha":"{sha}"}}"#), "siblings"),
            (&format!(r#"{{"sha":"{sha}","siblings":[{{}}]}}"#), "siblings[0]"),
        ] {
            let error = listing(bad.as_bytes()).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn etags_lose_their_quotes() {
        for etag in ["abc", "\"abc\"", "W/\"abc\""] {
            assert_eq!(plain_etag(etag), "abc");
        }
    }
}
