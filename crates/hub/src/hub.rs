//! Models by name: lookup in the cache, and downloads into it.

use crate::api::{Listing, Metadata, RemoteFile};
use crate::cache::Folder;
use crate::error::{Error, Result};
use crate::fetch::{Context, Job};
use crate::http::Client;
use crate::names::{ModelName, RepoId};
use crate::safe::{self, FilePath};
use crate::select::{self, INDEX, Plan, Wanted};
use crate::settings::Settings;
use crate::watch::{Event, Reports, Watch};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Interval between checks of the stop flag.
const LOOK: Duration = Duration::from_millis(30);

/// A hub and its cache. Creation opens no connections; the first request does.
#[derive(Clone, Debug)]
pub struct Hub {
    settings: Settings,
}

/// A model in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// Path to open: the first GGUF file, or the folder of a published checkpoint.
    pub path: PathBuf,
    /// The commit of the files.
    pub commit: String,
    /// The requested files, relative to the commit's folder.
    pub files: Vec<FilePath>,
}

/// A usable model in the cache.
struct Found {
    local: Local,
    /// Whether the hub has no further files of it.
    is_complete: bool,
}

impl Hub {
    /// A hub with these settings.
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// A hub with the environment's settings; see [`Settings::from_env`].
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] names the invalid variable.
    pub fn from_env() -> Result<Self> {
        Settings::from_env().map(Self::new)
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The files of a repository at a revision, as the hub lists them.
    pub fn list(&self, repo: &RepoId, revision: &str, watch: &mut Watch<'_>) -> Result<Listing> {
        safe::check_revision(revision)?;
        self.online(&repo.to_string())?;
        let client = Client::new(&self.settings);
        watched(&client, watch, |reports| self.ask(&client, &reports, repo, revision, self.settings.tries))
    }

    /// The metadata of one file.
    pub fn metadata(&self, repo: &RepoId, revision: &str, file: &FilePath, watch: &mut Watch<'_>) -> Result<Metadata> {
        safe::check_revision(revision)?;
        self.online(&repo.to_string())?;
        let client = Client::new(&self.settings);
        watched(&client, watch, |reports| {
            let (tries, pause) = (self.settings.tries, self.settings.pause);
            reports.patiently(file.as_str(), tries, pause, || client.metadata(repo, revision, file))
        })
    }

    /// A model in the cache; `None` if a required file is missing. Sends no requests and writes nothing.
    pub fn cached(&self, name: &ModelName, wanted: Wanted) -> Result<Option<Local>> {
        Ok(self.find(name, wanted)?.map(|found| found.local))
    }

    /// A model from the cache; missing files are fetched. The commit of a cached branch is not refreshed: [`Hub::pull`] does
    /// that.
    ///
    /// If the hub is unreachable or the cache cannot be written, a model that lacks only optional files is returned as it is,
    /// with [`Event::Unreachable`].
    pub fn get(&self, name: &ModelName, wanted: Wanted, watch: &mut Watch<'_>) -> Result<Local> {
        let cached = match self.find(name, wanted)? {
            Some(found) if found.is_complete || self.settings.offline => return Ok(found.local),
            found => found.map(|found| found.local),
        };
        let Some(cached) = cached else { return self.pull(name, wanted, watch) };
        // one try only: the cached model is usable
        match self.online_pull(name, wanted, watch, 1) {
            Err(error) if error.is_unreachable() || matches!(error, Error::Io { .. }) => {
                (watch.tell)(Event::Unreachable { reason: error.to_string() });
                Ok(cached)
            }
            result => result,
        }
    }

    /// A model at the hub's current commit of the revision; cached files are not fetched again. A revision that is a full commit
    /// hash and complete in the cache needs no request.
    pub fn pull(&self, name: &ModelName, wanted: Wanted, watch: &mut Watch<'_>) -> Result<Local> {
        if safe::is_commit(name.revision())
            && let Some(Found { local, is_complete: true }) = self.find(name, wanted)?
        {
            return Ok(local);
        }
        self.online_pull(name, wanted, watch, self.settings.tries)
    }

    /// Requests the listing, at most `tries` times, and fetches missing files.
    fn online_pull(&self, name: &ModelName, wanted: Wanted, watch: &mut Watch<'_>, tries: u32) -> Result<Local> {
        self.online(&name.to_string())?;
        let client = Client::new(&self.settings);
        watched(&client, watch, |reports| self.fetch(&client, reports, name, wanted, tries))
    }

    fn online(&self, what: &str) -> Result<()> {
        match self.settings.offline {
            true => Err(Error::Offline { what: what.to_owned(), cache: self.settings.cache.clone() }),
            false => Ok(()),
        }
    }

    pub(crate) fn folder(&self, repo: &RepoId) -> Folder {
        Folder::new(&self.settings.cache, repo, self.settings.symlinks)
    }

    /// The model in the cache, if it is usable.
    fn find(&self, name: &ModelName, wanted: Wanted) -> Result<Option<Found>> {
        let folder = self.folder(name.repo());
        let Some(commit) = folder.commit(name.revision())? else { return Ok(None) };
        let there = folder.snapshot_files(&commit)?;
        let listing = folder.listing(&commit);
        let paths = listing.as_ref().map_or_else(|| there.clone(), paths);
        // a choice that fails here may succeed with the hub's listing
        let Ok(plan) = select::plan(name, wanted, &paths) else { return Ok(None) };
        let mut files = plan.files.clone();
        if plan.has_index {
            let index = fs::read(folder.snapshot(&commit).join(INDEX)).ok();
            let Some(Ok(shards)) = index.map(|index| select::shards(name.repo().as_str(), &index)) else {
                return Ok(None);
            };
            files.extend(shards);
        }
        let jobs = listing.as_ref().map(|listing| jobs(name.repo(), listing, &files)).transpose().unwrap_or_default();
        let is_there = |at: usize, file: &FilePath| match &jobs {
            Some(jobs) => jobs[at].is_there(&folder, &commit),
            None => there.contains(file.as_str()),
        };
        let (here, missing): (Vec<_>, Vec<_>) =
            files.into_iter().enumerate().partition(|(at, file)| is_there(*at, file));
        if missing.iter().any(|(_, file)| !select::is_optional(file)) {
            return Ok(None);
        }
        let knows_absent = || -> Result<bool> {
            let absent = folder.absent_files(&commit)?;
            Ok(!plan.by_default && plan.absent.iter().all(|file| absent.contains(*file)))
        };
        let is_complete = missing.is_empty() && (listing.is_some() || knows_absent()?);
        let files = here.into_iter().map(|(_, file)| file).collect();
        Ok(Some(Found { local: local(&folder, commit, &plan, files), is_complete }))
    }

    fn ask(
        &self,
        client: &Client<'_>,
        reports: &Reports<'_>,
        repo: &RepoId,
        revision: &str,
        tries: u32,
    ) -> Result<Listing> {
        reports.patiently(repo.as_str(), tries, self.settings.pause, || client.list(repo, revision))
    }

    fn fetch(
        &self,
        client: &Client<'_>,
        reports: Reports<'_>,
        name: &ModelName,
        wanted: Wanted,
        tries: u32,
    ) -> Result<Local> {
        let (repo, revision) = (name.repo(), name.revision());
        let folder = self.folder(repo);
        let kept =
            Some(revision).filter(|revision| safe::is_commit(revision)).and_then(|commit| folder.listing(commit));
        let listing = match kept {
            Some(listing) => listing,
            None => self.ask(client, &reports, repo, revision, tries)?,
        };
        let commit = listing.commit.as_str();
        let plan = select::plan(name, wanted, &paths(&listing))?;
        let context = Context { client, folder: &folder, repo, commit, reports };
        let mut files = plan.files.clone();
        if plan.has_index {
            files.extend(self.shards(&context, &listing)?);
        }
        let mut jobs = jobs(repo, &listing, &files)?;
        jobs.retain(|job| !job.is_there(&folder, commit));
        if jobs.is_empty() {
            // the cache may be read-only
            let _ = folder.write_commit(revision, commit);
        } else {
            folder.create(commit)?;
            let bytes = jobs.iter().filter_map(|job| job.remote.size).sum();
            context.reports.tell(Event::Planned { files: jobs.len(), bytes });
            fetch_all(&context, &jobs)?;
            folder.write_commit(revision, commit)?;
        }
        folder.write_listing(&listing);
        folder.write_absent(commit, &plan.absent);
        Ok(local(&folder, commit.to_owned(), &plan, files))
    }

    /// The shards that the index names. The index is fetched first, if it is missing.
    fn shards(&self, context: &Context<'_>, listing: &Listing) -> Result<Vec<FilePath>> {
        let index = [FilePath::new(INDEX)?];
        for job in jobs(context.repo, listing, &index)? {
            context.folder.create(context.commit)?;
            context.fetch(&job)?;
        }
        let path = context.folder.pointer(context.commit, &index[0]);
        let bytes = fs::read(&path).map_err(|error| Error::io("read", &path, &error))?;
        select::shards(context.repo.as_str(), &bytes)
    }
}

fn paths(listing: &Listing) -> BTreeSet<String> {
    listing.files.iter().map(|file| file.path.clone()).collect()
}

/// Files with their entries in the listing.
fn jobs(repo: &RepoId, listing: &Listing, files: &[FilePath]) -> Result<Vec<Job>> {
    let job = |file: &FilePath| {
        let remote: Option<&RemoteFile> = listing.files.iter().find(|remote| remote.path == file.as_str());
        let missing = || Error::Index {
            repo: repo.to_string(),
            file: INDEX.into(),
            message: format!("it names {file}, which the repository does not have"),
        };
        Ok(Job { file: file.clone(), remote: remote.ok_or_else(missing)?.clone() })
    };
    files.iter().map(job).collect()
}

fn local(folder: &Folder, commit: String, plan: &Plan, files: Vec<FilePath>) -> Local {
    let path = match &plan.gguf {
        Some(file) => folder.pointer(&commit, file),
        None => folder.snapshot(&commit),
    };
    Local { path, commit, files }
}

/// Fetches several files in parallel. The first failure aborts the others.
fn fetch_all(context: &Context<'_>, jobs: &[Job]) -> Result<()> {
    let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
    let work = || {
        while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = context.fetch(job) {
                // errors of the aborted downloads are not reported
                if !context.reports.failed.swap(true, Ordering::Relaxed) {
                    *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    context.client.stop();
                }
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = context.client.settings().connections.clamp(1, jobs.len().max(1));
        (0..threads).for_each(|_| {
            scope.spawn(work);
        });
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// Runs `work` on another thread; this thread delivers the events and checks the stop flag.
fn watched<T: Send>(
    client: &Client<'_>,
    watch: &mut Watch<'_>,
    work: impl FnOnce(Reports<'_>) -> Result<T> + Send,
) -> Result<T> {
    let (failed, stop) = (AtomicBool::new(false), watch.stop);
    let (events, inbox) = mpsc::channel();
    let result = std::thread::scope(|scope| {
        let reports = Reports { stop, failed: &failed, events };
        let worker = scope.spawn(move || work(reports));
        let mut is_stopping = false;
        loop {
            match inbox.recv_timeout(LOOK) {
                Ok(event) => (watch.tell)(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if stop.load(Ordering::Relaxed) && !std::mem::replace(&mut is_stopping, true) {
                client.stop();
            }
        }
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    match result {
        // aborted requests return other errors
        Err(_) if stop.load(Ordering::Relaxed) => Err(Error::Stopped),
        result => result,
    }
}
