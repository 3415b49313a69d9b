//! The cache, in the layout of Python's `huggingface_hub`.
//!
//! ```text
//! CACHEDIR.TAG
//! models--owner--name/refs/main                    a commit hash
//!                     blobs/<etag>                 contents; possibly a link into a store shared by repositories
//!                     snapshots/<commit>/<file>    a link to a blob, or a regular file
//!                     .no_exist/<commit>/<file>    empty: the repository has no such file
//!                     trees/<commit>.json          the files of a commit
//! .locks/models--owner--name/<etag>.lock
//! ```

use crate::api::{Listing, RemoteFile};
use crate::error::{Error, Result};
use crate::names::RepoId;
use crate::safe::{self, FilePath};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Suffix of this program's partial downloads; another process can resume them.
pub(crate) const PARTIAL: &str = ".phi3-run.incomplete";

/// Suffix of this program's listings. With the plain suffix `.json`, Python assumes that every listed file is in the cache.
const OWN_TREE: &str = ".phi3-run.json";

const TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n# Downloaded models; they can be fetched again.\n";

/// The folder of a repository in the cache.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    root: PathBuf,
    path: PathBuf,
    name: String,
    symlinks: bool,
}

impl Folder {
    pub(crate) fn new(root: &Path, repo: &RepoId, symlinks: bool) -> Self {
        let name = repo.folder();
        Self { root: root.to_owned(), path: root.join(&name), name, symlinks }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn locks(&self) -> PathBuf {
        self.root.join(".locks").join(&self.name)
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.path.join("blobs")
    }

    pub(crate) fn blob(&self, etag: &str) -> PathBuf {
        self.blobs().join(etag)
    }

    pub(crate) fn partial(&self, etag: &str) -> PathBuf {
        self.blobs().join(format!("{etag}{PARTIAL}"))
    }

    pub(crate) fn snapshots(&self) -> PathBuf {
        self.path.join("snapshots")
    }

    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.snapshots().join(commit)
    }

    pub(crate) fn pointer(&self, commit: &str, file: &FilePath) -> PathBuf {
        self.snapshot(commit).join(file.to_path())
    }

    pub(crate) fn refs(&self) -> PathBuf {
        self.path.join("refs")
    }

    pub(crate) fn absent(&self, commit: &str) -> PathBuf {
        self.path.join(".no_exist").join(commit)
    }

    /// Paths of both listings of a commit: this program's, and Python's.
    pub(crate) fn trees(&self, commit: &str) -> [PathBuf; 2] {
        [OWN_TREE, ".json"].map(|end| self.path.join("trees").join(format!("{commit}{end}")))
    }

    /// Creates the folders of a download, and `CACHEDIR.TAG`, which tells backup programs to skip the cache.
    pub(crate) fn create(&self, commit: &str) -> Result<()> {
        for folder in [self.blobs(), self.snapshot(commit), self.locks()] {
            create_folder(&folder)?;
        }
        let tag = self.root.join("CACHEDIR.TAG");
        if !tag.exists() {
            // optional: this program does not read it
            let _ = fs::write(&tag, TAG);
        }
        Ok(())
    }

    /// The commit of a revision, if the cache has it.
    pub(crate) fn commit(&self, revision: &str) -> Result<Option<String>> {
        if safe::is_commit(revision) {
            return Ok(Some(revision.to_owned()));
        }
        let path = self.refs().join(revision.split('/').collect::<PathBuf>());
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim().to_owned()).filter(|commit| safe::is_commit(commit))),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(Error::io("read", &path, &error)),
        }
    }

    /// Writes the commit of a revision.
    pub(crate) fn write_commit(&self, revision: &str, commit: &str) -> Result<()> {
        if safe::is_commit(revision) || self.commit(revision)?.as_deref() == Some(commit) {
            return Ok(());
        }
        replace(&self.refs().join(revision.split('/').collect::<PathBuf>()), commit.as_bytes())
    }

    /// Length of a file of a snapshot; `None` if it is missing or a broken link.
    pub(crate) fn found(&self, commit: &str, file: &FilePath) -> Option<u64> {
        file_length(&self.pointer(commit, file))
    }

    /// Paths of the files of a snapshot, without broken links.
    pub(crate) fn snapshot_files(&self, commit: &str) -> Result<BTreeSet<String>> {
        let files = walk(&self.snapshot(commit))?.into_iter();
        Ok(files.filter(|(_, path)| file_length(path).is_some()).map(|(path, _)| path).collect())
    }

    /// Paths of files recorded as absent from the repository.
    pub(crate) fn absent_files(&self, commit: &str) -> Result<BTreeSet<String>> {
        Ok(walk(&self.absent(commit))?.into_iter().map(|(path, _)| path).collect())
    }

    /// Records files as absent from the repository, which saves later requests for them. Errors are ignored.
    pub(crate) fn write_absent(&self, commit: &str, files: &[&str]) {
        let folder = self.absent(commit);
        for file in files {
            let path = folder.join(file);
            if !path.exists() && fs::create_dir_all(&folder).is_ok() {
                let _ = fs::write(&path, b"");
            }
        }
    }

    /// The stored listing of a commit, if any.
    pub(crate) fn listing(&self, commit: &str) -> Option<Listing> {
        // damaged listings are skipped
        self.trees(commit).iter().find_map(|path| read_tree(&fs::read(path).ok()?, commit))
    }

    /// Stores the listing of a commit, which saves later requests for it. Errors are ignored.
    pub(crate) fn write_listing(&self, listing: &Listing) {
        let [path, _] = self.trees(&listing.commit);
        if !path.exists() {
            let _ = replace(&path, tree(listing).to_string().as_bytes());
        }
    }

    /// Makes a blob the content of a snapshot's file: by a relative link, else by moving (a new blob) or copying it.
    pub(crate) fn link(&self, commit: &str, file: &FilePath, etag: &str, is_new: bool) -> Result<()> {
        let (pointer, blob) = (self.pointer(commit, file), self.blob(etag));
        if let Some(folder) = pointer.parent() {
            create_folder(folder)?;
        }
        if self.symlinks {
            let target: PathBuf = std::iter::repeat_n("..", file.depth() + 2).chain(["blobs", etag]).collect();
            if fs::read_link(&pointer).is_ok_and(|there| there == target) {
                return Ok(());
            }
            // a rename: another process may be reading the file of this name
            let link = beside(&pointer);
            if symlink(&target, &link).is_ok() {
                return fs::rename(&link, &pointer).map_err(|error| {
                    let _ = fs::remove_file(&link);
                    Error::io("rename a link to", &pointer, &error)
                });
            }
        }
        // a blob that is a link is not moved: its target is shared
        let is_link = fs::symlink_metadata(&blob).is_ok_and(|metadata| metadata.is_symlink());
        if is_new && !is_link {
            return fs::rename(&blob, &pointer).map_err(|error| Error::io("move a file to", &pointer, &error));
        }
        let copy = beside(&pointer);
        let copied = fs::copy(&blob, &copy).and_then(|_| fs::rename(&copy, &pointer));
        copied.map_err(|error| {
            let _ = fs::remove_file(&copy);
            Error::io("copy a file to", &pointer, &error)
        })
    }
}

/// Length of the file at a path, links followed; `None` for anything but a file.
pub(crate) fn file_length(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().filter(fs::Metadata::is_file).map(|metadata| metadata.len())
}

pub(crate) fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|error| Error::io("make the folder", path, &error))
}

/// Removes a file, or a link without its target.
pub(crate) fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if !is_absent(&error) => Err(Error::io("remove", path, &error)),
        _ => Ok(()),
    }
}

/// Whether an error means that the path does not exist.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory)
}

/// Files below a folder: relative paths separated by `/`, and full paths. Links to folders are not followed.
pub(crate) fn walk(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let (mut files, mut folders) = (Vec::new(), vec![(String::new(), folder.to_owned())]);
    while let Some((prefix, folder)) = folders.pop() {
        for path in entries(&folder)? {
            // file names on the hub are UTF-8
            let Some(name) = path.file_name().and_then(OsStr::to_str) else { continue };
            let name = format!("{prefix}{name}");
            match fs::symlink_metadata(&path) {
                Ok(metadata) if metadata.is_dir() => folders.push((format!("{name}/"), path)),
                Ok(_) => files.push((name, path)),
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(Error::io("read", &path, &error)),
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Sorted entries of a folder; empty if it does not exist.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = match fs::read_dir(folder) {
        Ok(read) => read,
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("read the folder", folder, &error)),
    };
    let entries = read.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>();
    let mut entries = entries.map_err(|error| Error::io("read the folder", folder, &error))?;
    entries.sort();
    Ok(entries)
}

/// A temporary name in the folder of a file, unique to this process and thread.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.{:?}.tmp", std::process::id(), std::thread::current().id()).replace(['(', ')'], ""));
    path.with_file_name(name)
}

/// Writes a small file atomically.
fn replace(path: &Path, content: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        create_folder(folder)?;
    }
    let new = beside(path);
    fs::write(&new, content).and_then(|()| fs::rename(&new, path)).map_err(|error| {
        let _ = fs::remove_file(&new);
        Error::io("write", path, &error)
    })
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, link)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

/// A listing in Python's format.
fn tree(listing: &Listing) -> Value {
    let files: Map<String, Value> = listing.files.iter().map(|file| (file.path.clone(), entry(file))).collect();
    json!({ "format_version": 1, "files": files })
}

fn entry(file: &RemoteFile) -> Value {
    let mut entry = json!({ "size": file.size, "blob_id": file.blob_id });
    if let Some(sha256) = &file.sha256 {
        entry["lfs_sha256"] = json!(sha256);
        entry["lfs_size"] = json!(file.size);
    }
    entry
}

fn read_tree(bytes: &[u8], commit: &str) -> Option<Listing> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    if value["format_version"] != 1 {
        return None;
    }
    let hash = |value: &Value, digits| value.as_str().filter(|hash| safe::is_hex(hash, digits)).map(str::to_owned);
    let files = value["files"].as_object()?.iter().map(|(path, entry)| RemoteFile {
        path: path.clone(),
        size: entry["lfs_size"].as_u64().or(entry["size"].as_u64()),
        blob_id: hash(&entry["blob_id"], 40),
        sha256: hash(&entry["lfs_sha256"], 64),
    });
    Some(Listing { commit: commit.to_owned(), files: files.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(root: &Path, symlinks: bool) -> Folder {
        Folder::new(root, &"a/b".parse().unwrap(), symlinks)
    }

    fn commit() -> String {
        "0f".repeat(20)
    }

    #[test]
    fn revisions_lead_to_commits() {
        let root = tempfile::tempdir().unwrap();
        let folder = folder(root.path(), true);
        assert_eq!(folder.commit("main").unwrap(), None);
        assert_eq!(folder.commit(&commit()).unwrap(), Some(commit()));
        for revision in ["main", "refs/pr/1"] {
            folder.write_commit(revision, &commit()).unwrap();
            assert_eq!(folder.commit(revision).unwrap(), Some(commit()));
        }
        assert_eq!(fs::read_to_string(folder.path().join("refs/refs/pr/1")).unwrap(), commit());
        assert_eq!(entries(&folder.refs()).unwrap().len(), 2);
        // a folder or a file without a commit hash is not a revision
        assert_eq!(folder.commit("refs").unwrap(), None);
        fs::write(folder.refs().join("odd"), "x").unwrap();
        assert_eq!(folder.commit("odd").unwrap(), None);
        // an unchanged file is not written again: the cache may be read-only
        let before = fs::metadata(folder.refs().join("main")).unwrap().modified().unwrap();
        folder.write_commit("main", &commit()).unwrap();
        assert_eq!(fs::metadata(folder.refs().join("main")).unwrap().modified().unwrap(), before);
    }

    #[test]
    fn listings_are_kept_as_python_keeps_them() {
        let root = tempfile::tempdir().unwrap();
        let folder = folder(root.path(), true);
        let large =
            RemoteFile { path: "m".into(), size: Some(9), blob_id: Some("1".repeat(40)), sha256: Some("2".repeat(64)) };
        let small = RemoteFile { path: "x/c".into(), size: None, blob_id: None, sha256: None };
        let listing = Listing { commit: commit(), files: vec![large, small] };
        assert_eq!(folder.listing(&commit()), None);
        folder.write_listing(&listing);
        assert_eq!(folder.listing(&commit()), Some(listing.clone()));
        let [own, python] = folder.trees(&commit());
        assert!(own.exists() && !python.exists());
        fs::rename(&own, &python).unwrap();
        assert_eq!(folder.listing(&commit()), Some(listing));
        for damaged in ["", "[]", r#"{"format_version":2,"files":{}}"#, r#"{"format_version":1}"#] {
            fs::write(&python, damaged).unwrap();
            assert_eq!(folder.listing(&commit()), None, "{damaged}");
        }
    }

    #[test]
    fn files_are_links_or_files_of_their_own() {
        for symlinks in [true, false] {
            let root = tempfile::tempdir().unwrap();
            let folder = folder(root.path(), symlinks);
            folder.create(&commit()).unwrap();
            assert!(
                fs::read_to_string(root.path().join("CACHEDIR.TAG"))
                    .unwrap()
                    .starts_with("Signature: 8a477f597d28d172")
            );
            let (first, second) = (FilePath::new("c").unwrap(), FilePath::new("x/y/c").unwrap());
            fs::write(folder.blob("e1"), "content").unwrap();
            folder.link(&commit(), &second, "e1", false).unwrap();
            folder.link(&commit(), &first, "e1", true).unwrap();
            for file in [&first, &second] {
                assert_eq!(folder.found(&commit(), file), Some(7));
                assert_eq!(fs::read_to_string(folder.pointer(&commit(), file)).unwrap(), "content");
            }
            let is_link = |file| fs::symlink_metadata(folder.pointer(&commit(), file)).unwrap().is_symlink();
            let linked = symlinks && cfg!(unix);
            assert!(!symlinks || cfg!(windows) || is_link(&first) && is_link(&second));
            assert_eq!(folder.blob("e1").exists(), linked || symlinks && is_link(&first));
            if linked {
                let target = fs::read_link(folder.pointer(&commit(), &second)).unwrap();
                assert_eq!(target, Path::new("../../../../blobs/e1"));
            }
            assert_eq!(folder.snapshot_files(&commit()).unwrap().into_iter().collect::<Vec<_>>(), ["c", "x/y/c"]);
        }
    }

    #[test]
    fn a_link_to_nowhere_is_no_file_and_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let folder = folder(root.path(), true);
        folder.create(&commit()).unwrap();
        let file = FilePath::new("c").unwrap();
        if symlink(Path::new("../../blobs/none"), &folder.pointer(&commit(), &file)).is_err() {
            println!("skipped: no symbolic links here");
            return;
        }
        assert_eq!(folder.found(&commit(), &file), None);
        fs::write(folder.blob("e2"), "x").unwrap();
        folder.link(&commit(), &file, "e2", true).unwrap();
        assert_eq!(folder.found(&commit(), &file), Some(1));
    }

    #[test]
    fn a_file_that_is_linked_again_is_there_all_the_time() {
        let root = tempfile::tempdir().unwrap();
        let folder = folder(root.path(), true);
        folder.create(&commit()).unwrap();
        let file = FilePath::new("c").unwrap();
        for etag in ["e1", "e2"] {
            fs::write(folder.blob(etag), etag).unwrap();
        }
        folder.link(&commit(), &file, "e1", false).unwrap();
        std::thread::scope(|scope| {
            let linking = scope.spawn(|| {
                for etag in ["e2", "e1"].into_iter().cycle().take(200) {
                    folder.link(&commit(), &file, etag, false).unwrap();
                }
            });
            while !linking.is_finished() {
                let read = fs::read_to_string(folder.pointer(&commit(), &file)).unwrap();
                assert!(["e1", "e2"].contains(&read.as_str()), "{read:?}");
            }
        });
    }

    #[test]
    fn absent_files_are_remembered() {
        let root = tempfile::tempdir().unwrap();
        let folder = folder(root.path(), true);
        assert!(folder.absent_files(&commit()).unwrap().is_empty());
        folder.write_absent(&commit(), &["added_tokens.json", "chat_template.json"]);
        assert_eq!(folder.absent_files(&commit()).unwrap().len(), 2);
    }
}
