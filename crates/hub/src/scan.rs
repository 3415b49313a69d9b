//! Listing and removal of cached models.

use crate::cache::{self, Folder, PARTIAL, entries, file_length, walk};
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::names::{ModelName, Part, RepoId};
use crate::safe;
use crate::select::{self, Wanted};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A repository in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedRepo {
    /// The repository.
    pub repo: RepoId,
    /// Its folder.
    pub path: PathBuf,
    /// Commits with files in the cache.
    pub revisions: Vec<CachedRevision>,
    /// Bytes of all files, each counted once; files in a store shared by repositories are included.
    pub bytes: u64,
    /// Partial downloads with their lengths in bytes.
    pub partial: Vec<(PathBuf, u64)>,
    /// When a file was last written.
    pub modified: Option<SystemTime>,
}

/// A commit in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedRevision {
    /// The commit's hash.
    pub commit: String,
    /// Branches and tags that point to it.
    pub refs: Vec<String>,
    /// Its files with their lengths in bytes.
    pub files: Vec<(String, u64)>,
}

impl CachedRevision {
    /// Total length of its files in bytes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, length)| length).sum()
    }
}

/// Result of a removal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Number of snapshot files removed.
    pub files: usize,
    /// Bytes freed; files in a store shared by repositories are not included.
    pub bytes: u64,
}

/// A file of a snapshot.
struct Entry {
    commit: String,
    name: String,
    path: PathBuf,
    /// The blob of this repository that it links to, if any.
    blob: Option<PathBuf>,
}

impl Hub {
    /// The repositories of models in the cache, by name.
    pub fn repositories(&self) -> Result<Vec<CachedRepo>> {
        let mut repos = Vec::new();
        for path in entries(&self.settings().cache)? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if let Some(repo) = RepoId::from_folder(name).filter(|_| path.is_dir()) {
                repos.push(self.repository(repo)?);
            }
        }
        Ok(repos)
    }

    fn repository(&self, repo: RepoId) -> Result<CachedRepo> {
        let folder = self.folder(&repo);
        let refs = refs(&folder)?;
        let mut revisions = BTreeMap::<String, CachedRevision>::new();
        let (mut counted, mut bytes, mut modified) = (BTreeSet::new(), 0, None);
        let mut count = |path: &Path| {
            let Ok(metadata) = fs::metadata(path) else { return 0 };
            // a file with several links is counted once
            if counted.insert(fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())) {
                bytes += metadata.len();
                modified = modified.max(metadata.modified().ok());
            }
            metadata.len()
        };
        for commit in commits(&folder)? {
            let revision = CachedRevision { refs: Vec::new(), files: Vec::new(), commit: commit.clone() };
            revisions.insert(commit, revision);
        }
        for entry in snapshot_entries(&folder)? {
            let length = count(&entry.path);
            if let Some(revision) = revisions.get_mut(&entry.commit) {
                revision.files.push((entry.name, length));
            }
        }
        for (name, commit) in refs {
            if let Some(revision) = revisions.get_mut(&commit) {
                revision.refs.push(name);
            }
        }
        let mut partial = Vec::new();
        for path in entries(&folder.blobs())? {
            let length = count(&path);
            if path.extension().is_some_and(|extension| extension == "incomplete") {
                partial.push((path, length));
            }
        }
        let path = folder.path().to_owned();
        Ok(CachedRepo { repo, path, revisions: revisions.into_values().collect(), bytes, partial, modified })
    }

    /// Removes a model from the cache: the whole repository, the named revision or the named GGUF file. Files of other
    /// revisions are kept, and so are files in a store shared by repositories.
    ///
    /// # Errors
    ///
    /// [`Error::NotCached`] if there is nothing to remove, [`Error::InUse`] during a download.
    pub fn remove(&self, name: &ModelName) -> Result<Removed> {
        let folder = self.folder(name.repo());
        let not_cached =
            |hint: String| Error::NotCached { what: name.to_string(), cache: self.settings().cache.clone(), hint };
        if fs::symlink_metadata(folder.path()).is_err() {
            return Err(not_cached("is the name right?".into()));
        }
        self.check_unused(name.repo(), &folder)?;
        if !name.has_revision() && *name.part() == Part::Whole {
            return self.remove_repository(name.repo(), &folder);
        }
        let commits = self.commits_of(name, &folder)?;
        let entries = snapshot_entries(&folder)?;
        let mut chosen = BTreeSet::new();
        for commit in &commits {
            let there: BTreeSet<String> =
                entries.iter().filter(|entry| entry.commit == *commit).map(|entry| entry.name.clone()).collect();
            match name.part() {
                Part::Whole => chosen.extend(there.into_iter().map(|file| (commit.clone(), file))),
                Part::Label(_) | Part::File(_) => {
                    let files = select::plan(name, Wanted::Model, &there).map(|plan| plan.files).unwrap_or_default();
                    chosen.extend(files.iter().map(|file| (commit.clone(), file.to_string())));
                }
            }
        }
        if chosen.is_empty() && (commits.is_empty() || *name.part() != Part::Whole) {
            let known: Vec<String> = self.repository(name.repo().clone())?.revisions.iter().map(described).collect();
            return Err(not_cached(format!("cached revisions of {}: {}", name.repo(), known.join("; "))));
        }
        remove_entries(&folder, &entries, &chosen, &commits)
    }

    /// The cached commits of a name: that of its revision, or all if it has none.
    fn commits_of(&self, name: &ModelName, folder: &Folder) -> Result<Vec<String>> {
        let all = commits(folder)?;
        if !name.has_revision() {
            return Ok(all);
        }
        let commit = folder.commit(name.revision())?;
        Ok(all.into_iter().filter(|known| Some(known) == commit.as_ref()).collect())
    }

    /// [`Error::InUse`] while a process of this program fetches into the repository.
    fn check_unused(&self, repo: &RepoId, folder: &Folder) -> Result<()> {
        for path in entries(&folder.blobs())? {
            let is_own = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(PARTIAL));
            let is_locked =
                || File::open(&path).is_ok_and(|file| matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)));
            if is_own && is_locked() {
                return Err(Error::InUse { repo: repo.to_string(), path });
            }
        }
        Ok(())
    }

    fn remove_repository(&self, repo: &RepoId, folder: &Folder) -> Result<Removed> {
        let known = self.repository(repo.clone())?;
        let shared: u64 =
            entries(&folder.blobs())?.iter().filter(|path| is_link(path)).filter_map(|path| file_length(path)).sum();
        let removed = Removed {
            files: known.revisions.iter().map(|revision| revision.files.len()).sum(),
            bytes: known.bytes.saturating_sub(shared),
        };
        if is_link(folder.path()) {
            // the folder is a user's link: only the link is removed
            cache::remove_if_there(folder.path())?;
            return Ok(Removed { bytes: 0, ..removed });
        }
        for path in [folder.path().to_owned(), folder.locks()] {
            // removes links without their targets
            match fs::remove_dir_all(&path) {
                Err(error) if !cache::is_absent(&error) => return Err(Error::io("remove", &path, &error)),
                _ => {}
            }
        }
        Ok(removed)
    }
}

/// A revision and its files, for messages.
fn described(revision: &CachedRevision) -> String {
    let name = revision.refs.first().unwrap_or(&revision.commit);
    let files: Vec<&str> = revision.files.iter().map(|(name, _)| name.as_str()).collect();
    format!("{name} ({})", files.join(", "))
}

fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink())
}

/// Branches and tags with their commits.
fn refs(folder: &Folder) -> Result<Vec<(String, String)>> {
    let files = walk(&folder.refs())?.into_iter();
    let read = |(name, path): (String, PathBuf)| {
        let commit = fs::read_to_string(path).ok()?.trim().to_owned();
        safe::is_commit(&commit).then_some((name, commit))
    };
    Ok(files.filter_map(read).collect())
}

/// Commits with a snapshot folder.
fn commits(folder: &Folder) -> Result<Vec<String>> {
    let names = entries(&folder.snapshots())?.into_iter();
    let commit = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.to_owned();
        (safe::is_commit(&name) && path.is_dir()).then_some(name)
    };
    Ok(names.filter_map(commit).collect())
}

/// The files of all snapshots.
fn snapshot_entries(folder: &Folder) -> Result<Vec<Entry>> {
    let mut found = Vec::new();
    for commit in commits(folder)? {
        for (name, path) in walk(&folder.snapshot(&commit))? {
            // one link level only: a blob may itself be a link, whose target is shared
            let target = fs::read_link(&path).ok();
            let blob = target.and_then(|target| Some(folder.blob(target.file_name()?.to_str()?)));
            found.push(Entry { commit: commit.clone(), name, path, blob });
        }
    }
    Ok(found)
}

/// Removes snapshot files, and then the blobs, refs and folders that only they used.
fn remove_entries(
    folder: &Folder,
    entries: &[Entry],
    chosen: &BTreeSet<(String, String)>,
    commits: &[String],
) -> Result<Removed> {
    let is_chosen = |entry: &&Entry| chosen.contains(&(entry.commit.clone(), entry.name.clone()));
    let (go, stay): (Vec<&Entry>, Vec<&Entry>) = entries.iter().partition(is_chosen);
    let mut removed = Removed::default();
    // refs first: after a failure, the remaining files are not found as a model
    let empty: Vec<&String> =
        commits.iter().filter(|commit| !stay.iter().any(|entry| entry.commit == **commit)).collect();
    for (name, commit) in refs(folder)? {
        if empty.contains(&&commit) {
            cache::remove_if_there(&folder.refs().join(name.split('/').collect::<PathBuf>()))?;
        }
    }
    let kept: BTreeSet<&PathBuf> = stay.iter().filter_map(|entry| entry.blob.as_ref()).collect();
    for entry in &go {
        if entry.blob.is_none() {
            removed.bytes += file_length(&entry.path).unwrap_or(0);
        }
        cache::remove_if_there(&entry.path)?;
        removed.files += 1;
    }
    let blobs: BTreeSet<&PathBuf> =
        go.iter().filter_map(|entry| entry.blob.as_ref()).filter(|blob| !kept.contains(blob)).collect();
    for blob in blobs {
        if !is_link(blob) {
            removed.bytes += file_length(blob).unwrap_or(0);
        }
        cache::remove_if_there(blob)?;
    }
    for commit in empty {
        for path in [folder.snapshot(commit), folder.absent(commit)] {
            match fs::remove_dir_all(&path) {
                Err(error) if !cache::is_absent(&error) => return Err(Error::io("remove", &path, &error)),
                _ => {}
            }
        }
        for path in folder.trees(commit) {
            cache::remove_if_there(&path)?;
        }
    }
    remove_empty_folders(folder, &go);
    Ok(removed)
}

/// Removes empty snapshot folders, and the repository's folder if it has no snapshots and no blobs left.
fn remove_empty_folders(folder: &Folder, gone: &[&Entry]) {
    for entry in gone {
        let parents = entry.path.ancestors().skip(1).take_while(|path| path.starts_with(folder.snapshots()));
        for parent in parents {
            if fs::remove_dir(parent).is_err() {
                break;
            }
        }
    }
    let is_empty = |path: &PathBuf| entries(path).is_ok_and(|entries| entries.is_empty());
    if is_empty(&folder.snapshots()) && is_empty(&folder.blobs()) {
        let _ = fs::remove_dir_all(folder.path());
        let _ = fs::remove_dir_all(folder.locks());
    }
}
