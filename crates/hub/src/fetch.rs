//! Download of one file into the cache.

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

/// Interval between checks for a file that another process is fetching.
const LOOK: Duration = Duration::from_millis(100);

/// Read size in bytes.
const PIECE: usize = 256 << 10;

/// State shared by all files of a pull.
pub(crate) struct Context<'a> {
    pub(crate) client: &'a Client<'a>,
    pub(crate) folder: &'a Folder,
    pub(crate) repo: &'a RepoId,
    pub(crate) commit: &'a str,
    pub(crate) reports: Reports<'a>,
}

/// A file to fetch, with its entry in the listing.
pub(crate) struct Job {
    pub(crate) file: FilePath,
    pub(crate) remote: RemoteFile,
}

/// The end of an answer with content.
enum Read {
    Ended,
    /// The server cannot resume: the download has to restart.
    FromZero,
}

/// Retry state.
struct Tries {
    failures: u32,
    /// Most bytes received so far.
    furthest: u64,
}

impl Job {
    /// Whether the snapshot has the file with the length that the hub reports.
    pub(crate) fn is_there(&self, folder: &Folder, commit: &str) -> bool {
        let found = folder.found(commit, &self.file);
        found.is_some_and(|length| self.remote.size.is_none_or(|size| size == length))
    }
}

impl Context<'_> {
    /// Fetches a file into the snapshot, unless it is there.
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
            // without links, the other process moved the blob into the snapshot
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

    /// Requests a file's metadata, and compares it with the listing.
    fn metadata(&self, job: &Job) -> Result<Metadata> {
        let settings = self.client.settings();
        // the hub has answered before, so an unreachable host is retried
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

    /// Whether a blob with the expected length exists. One of another length is removed; if it is a link, only the link.
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

    /// Fetches content until it is complete and verified. Received bytes are kept, unless they are wrong.
    fn download(&self, job: &Job, metadata: &Metadata, size: Option<u64>, mut partial: Partial) -> Result<()> {
        let name = job.file.as_str();
        if size.is_some_and(|size| partial.length() > size) {
            partial = self.again(partial)?;
        }
        // bytes of an earlier try may be damaged: on a mismatch the download restarts once
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
                        self.broken(job, format!("the partial file of an earlier try was damaged: {error}"))?
                    }
                    Err(error) => {
                        partial.discard()?;
                        return Err(error);
                    }
                },
                Ok(Read::FromZero) => {
                    (partial, is_resumed) = (self.again(partial)?, false);
                    self.broken(job, "the server cannot resume the download; it restarts".into())?
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
        // another process may lock the file between the two steps
        let taken = || Error::InUse { repo: self.repo.to_string(), path: self.folder.blobs() };
        partial.restart()?.ok_or_else(taken)
    }

    /// Waits after a failure. Returns the error if it is permanent, or after `tries` failures in a row without a new byte.
    fn failed(&self, name: &str, error: Error, tries: &mut Tries, length: u64) -> Result<()> {
        self.reports.check()?;
        tries.failures = if length > tries.furthest { 1 } else { tries.failures + 1 };
        tries.furthest = tries.furthest.max(length);
        let settings = self.client.settings();
        // the network may come back
        let may_pass = error.may_pass() || matches!(error, Error::Unreachable { .. });
        if !may_pass || tries.failures >= settings.tries {
            return Err(error);
        }
        self.reports.pause(name, error, tries.failures, settings.pause)
    }

    /// One request for the missing bytes.
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
            // another range than requested, the whole file, or no range
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
                    // a compressed stream cannot be decoded from the middle
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
        // signed addresses of a store expire: the hub is asked for a new one
        if !self.client.is_trusted(&answer.uri) && answer.status() != 404 {
            return Error::Broken { url: url::shown(&answer.uri), message: format!("status {}", answer.status()) };
        }
        self.client.refusal(answer, &subject)
    }
}

/// The expected content.
fn expected(etag: &str, remote: &RemoteFile) -> Expected {
    if safe::is_hex(etag, 64) {
        Expected::Sha256(etag.to_owned())
    } else if let Some(sha256) = &remote.sha256 {
        Expected::Sha256(sha256.clone())
    } else if safe::is_hex(etag, 40) {
        Expected::GitBlob(etag.to_owned())
    } else {
        // the ETag has a mirror's own format
        remote.blob_id.clone().map_or(Expected::Anything, Expected::GitBlob)
    }
}

/// Whether a 206 holds the rest of the file, by `Content-Range: bytes FROM-LAST/SIZE`.
fn continues(answer: &Answer, from: u64, size: Option<u64>) -> bool {
    let range = answer.header("content-range").and_then(|range| range.strip_prefix("bytes "));
    let Some((span, total)) = range.and_then(|range| range.split_once('/')) else { return false };
    let first = span.split_once('-').and_then(|(first, _)| first.trim().parse::<u64>().ok());
    let fits = total.trim() == "*" || size.is_none_or(|size| total.trim().parse() == Ok(size));
    first == Some(from) && fits
}
