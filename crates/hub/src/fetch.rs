//! One file: from the hub into the cache.

use crate::api::{Metadata, RemoteFile, Subject};
use crate::cache::{Folder, file_length, remove_if_there};
use crate::error::{Error, Result};
use crate::http::{Answer, Client};
use crate::names::RepoId;
use crate::partial::{Expected, Lock, Partial};
use crate::safe::{self, FilePath};
use crate::url;
use crate::watch::{Event, Meter, Reports};
use std::io::Read as _;
use std::time::Duration;

/// How often a file that another process fetches is looked for.
const LOOK: Duration = Duration::from_millis(100);

/// Bytes that are read at once.
const PIECE: usize = 256 << 10;

/// What all files of a pull have in common.
pub(crate) struct Context<'a> {
    pub(crate) client: &'a Client<'a>,
    pub(crate) folder: &'a Folder,
    pub(crate) repo: &'a RepoId,
    pub(crate) commit: &'a str,
    pub(crate) reports: Reports<'a>,
}

/// A file that is wanted, with what a listing says of it.
pub(crate) struct Job {
    pub(crate) file: FilePath,
    pub(crate) remote: RemoteFile,
}

/// How an answer with content ended.
enum Read {
    Ended,
    /// The server begins anew: what has arrived cannot be continued.
    FromZero,
}

/// Failures in a row without a new byte.
struct Tries {
    failures: u32,
    /// Bytes that were there at best.
    furthest: u64,
}

impl Job {
    /// Whether the snapshot has the file, in the length that the hub says.
    pub(crate) fn is_there(&self, folder: &Folder, commit: &str) -> bool {
        let found = folder.found(commit, &self.file);
        found.is_some_and(|length| self.remote.size.is_none_or(|size| size == length))
    }
}

impl Context<'_> {
    /// Fetches a file, unless it is there, and lets the snapshot have it.
    pub(crate) fn fetch(&self, job: &Job) -> Result<()> {
        if job.is_there(self.folder, self.commit) {
            return Ok(());
        }
        // another revision may have the same content
        if let Some(etag) = job.remote.etag()
            && self.has_blob(etag, job.remote.size)
        {
            return self.finished(job, etag, false);
        }
        let metadata = self.metadata(job)?;
        let size = metadata.size.or(job.remote.size);
        let mut told = false;
        loop {
            self.reports.check()?;
            let Some(lock) = Lock::take(self.folder, &metadata.etag)? else {
                if !told {
                    self.reports.tell(Event::Waiting { file: job.file.to_string() });
                }
                told = true;
                self.reports.sleep(LOOK)?;
                continue;
            };
            if self.has_blob(&metadata.etag, size) {
                return self.finished(job, &metadata.etag, false);
            }
            // moved away from the blobs where there are no links
            if job.is_there(self.folder, self.commit) {
                return Ok(());
            }
            let expected = expected(&metadata.etag, &job.remote);
            if let Some(partial) = Partial::open(&self.folder.partial(&metadata.etag), expected)? {
                self.download(job, &metadata, size, partial)?;
                return self.finished(job, &metadata.etag, true);
            }
            drop(lock);
            self.reports.sleep(LOOK)?;
        }
    }

    /// Asks for a file's metadata, and compares it with the listing.
    fn metadata(&self, job: &Job) -> Result<Metadata> {
        let settings = self.client.settings();
        // the hub has answered before: a network that went away in the middle may come back
        let ask = || match self.client.metadata(self.repo, self.commit, &job.file) {
            Err(Error::Unreachable { url, message }) => Err(Error::Broken { url, message }),
            result => result,
        };
        let metadata = self.reports.patiently(job.file.as_str(), settings.tries, settings.pause, ask)?;
        let odd = |what: &str, listed: &str, found: &str| Error::NotAHub {
            url: format!("{}/{}", settings.endpoint, self.repo),
            message: format!("{}: the listing says {what} {listed}, the file's own address {found}", job.file),
        };
        if let (Some(listed), found) = (&job.remote.sha256, &metadata.etag)
            && safe::is_hex(found, 64)
            && listed != found
        {
            return Err(odd("SHA-256", listed, found));
        }
        if let (Some(listed), Some(found)) = (job.remote.size, metadata.size)
            && listed != found
        {
            return Err(odd("bytes", &listed.to_string(), &found.to_string()));
        }
        Ok(metadata)
    }

    /// Whether a blob is there, in its length. One of another length is removed; of a link, only the link.
    fn has_blob(&self, etag: &str, size: Option<u64>) -> bool {
        let blob = self.folder.blob(etag);
        match file_length(&blob) {
            None => false,
            Some(length) if size.is_none_or(|size| size == length) => true,
            Some(_) => remove_if_there(&blob).is_err(),
        }
    }

    fn finished(&self, job: &Job, etag: &str, is_new: bool) -> Result<()> {
        self.folder.link(self.commit, &job.file, etag, is_new)?;
        let size = self.folder.found(self.commit, &job.file).unwrap_or(0);
        self.reports.tell(Event::Finished { file: job.file.to_string(), size });
        Ok(())
    }

    /// Fetches content until it is complete and right. What has arrived stays, unless it is wrong.
    fn download(&self, job: &Job, metadata: &Metadata, size: Option<u64>, mut partial: Partial) -> Result<()> {
        let name = job.file.as_str();
        if size.is_some_and(|size| partial.length() > size) {
            partial = self.again(partial)?;
        }
        // bytes of an earlier try may be damaged; they are given one chance
        let mut is_resumed = partial.length() > 0;
        self.reports.tell(Event::Started { file: name.to_owned(), size, from: partial.length() });
        let mut meter = Meter::new(&self.reports, name);
        partial.check_again(&mut |done| meter.tell(done))?;
        let mut tries = Tries { failures: 0, furthest: partial.length() };
        loop {
            let error = match self.read(job, size, &mut partial) {
                Ok(Read::Ended) => match partial.verify(name, size) {
                    Ok(()) => return partial.finish(&self.folder.blob(&metadata.etag)),
                    // a connection that ended early, without an error
                    Err(Error::Length { expected, found, .. }) if found < expected => {
                        self.broken(job, format!("it ended at byte {found} of {expected}"))?
                    }
                    Err(error) if is_resumed => {
                        (partial, is_resumed) = (self.again(partial)?, false);
                        self.broken(job, format!("what an earlier try left was damaged: {error}"))?
                    }
                    Err(error) => {
                        partial.discard()?;
                        return Err(error);
                    }
                },
                Ok(Read::FromZero) => {
                    (partial, is_resumed) = (self.again(partial)?, false);
                    self.broken(job, "it cannot go on where it ended and begins anew".into())?
                }
                Err(error) => error,
            };
            self.failed(name, error, &mut tries, partial.length())?;
        }
    }

    fn broken(&self, job: &Job, message: String) -> Result<Error> {
        Ok(Error::Broken { url: url::shown(&self.client.resolve(self.repo, self.commit, &job.file)?), message })
    }

    /// Empties a partial download.
    fn again(&self, partial: Partial) -> Result<Partial> {
        // between the two steps another process may have taken it
        let taken = || Error::InUse { repo: self.repo.to_string(), path: self.folder.blobs() };
        partial.restart()?.ok_or_else(taken)
    }

    /// Waits after a failure, or gives up: after so many in a row without a new byte, or one that will not pass.
    fn failed(&self, name: &str, error: Error, tries: &mut Tries, length: u64) -> Result<()> {
        self.reports.check()?;
        tries.failures = if length > tries.furthest { 1 } else { tries.failures + 1 };
        tries.furthest = tries.furthest.max(length);
        let settings = self.client.settings();
        // a network that went away in the middle may come back
        let may_pass = error.may_pass() || matches!(error, Error::Unreachable { .. });
        if !may_pass || tries.failures >= settings.tries {
            return Err(error);
        }
        self.reports.pause(name, error, tries.failures, settings.pause)
    }

    /// One request for what is missing.
    fn read(&self, job: &Job, size: Option<u64>, partial: &mut Partial) -> Result<Read> {
        let from = partial.length();
        if size == Some(from) {
            return Ok(Read::Ended);
        }
        let uri = self.client.resolve(self.repo, self.commit, &job.file)?;
        let mut answer = self.client.get(uri, (from > 0).then_some(from))?;
        match answer.status() {
            200 if from == 0 => {}
            206 if from > 0 && continues(&answer, from, size) => {}
            // another part than was asked for, all of it, or none
            200 | 206 | 416 if from > 0 => return Ok(Read::FromZero),
            _ => return Err(self.refused(&answer, job)),
        }
        let uri = answer.uri.clone();
        let mut body = answer.response.body_mut().as_reader();
        let (mut piece, mut meter) = (vec![0; PIECE], Meter::new(&self.reports, job.file.as_str()));
        loop {
            meter.tell(partial.length())?;
            let n = match body.read(&mut piece) {
                Ok(0) => return Ok(Read::Ended),
                Ok(n) => n,
                Err(error) => match ureq::Error::from(error) {
                    // the rest of a compressed file cannot be read alone
                    ureq::Error::Decompress(..) if from > 0 => return Ok(Read::FromZero),
                    error => return Err(crate::http::failure(&uri, error)),
                },
            };
            partial.write(&piece[..n])?;
            if size.is_some_and(|size| partial.length() > size) {
                return Ok(Read::Ended);
            }
        }
    }

    fn refused(&self, answer: &Answer, job: &Job) -> Error {
        let subject = Subject { repo: self.repo, revision: self.commit, file: Some(&job.file) };
        // the address of a store is signed for a while only: the hub gives another one
        if !self.client.is_trusted(&answer.uri) && answer.status() != 404 {
            return Error::Broken { url: url::shown(&answer.uri), message: format!("status {}", answer.status()) };
        }
        self.client.refusal(answer, &subject)
    }
}

/// What the content must be.
fn expected(etag: &str, remote: &RemoteFile) -> Expected {
    if safe::is_hex(etag, 64) {
        Expected::Sha256(etag.to_owned())
    } else if let Some(sha256) = &remote.sha256 {
        Expected::Sha256(sha256.clone())
    } else if safe::is_hex(etag, 40) {
        Expected::GitBlob(etag.to_owned())
    } else {
        // a mirror's own way to name contents
        remote.blob_id.clone().map_or(Expected::Anything, Expected::GitBlob)
    }
}

/// Whether a 206 is the rest of the file: `Content-Range: bytes FROM-LAST/SIZE`.
fn continues(answer: &Answer, from: u64, size: Option<u64>) -> bool {
    let range = answer.header("content-range").and_then(|range| range.strip_prefix("bytes "));
    let Some((span, total)) = range.and_then(|range| range.split_once('/')) else { return false };
    let first = span.split_once('-').and_then(|(first, _)| first.trim().parse::<u64>().ok());
    let fits = total.trim() == "*" || size.is_none_or(|size| total.trim().parse() == Ok(size));
    first == Some(from) && fits
}
