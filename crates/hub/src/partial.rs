//! Partial downloads and their locks.
//!
//! Two locks keep processes from fetching the same blob twice. `.locks/…/<etag>.lock` is shared with Python. The partial
//! file itself is locked too, because the folder `.locks` may be emptied at any time. On a file system without locks, two
//! processes may write the same bytes to the same offsets; the checksum decides.

use crate::cache::{self, Folder};
use crate::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Read size in bytes.
const PIECE: usize = 256 << 10;

/// Expected checksum of the content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// This SHA-256.
    Sha256(String),
    /// The SHA-1 of `blob {length}\0` and the content.
    GitBlob(String),
    /// Unknown: not checked.
    Anything,
}

/// A lock on a blob, held until it is dropped.
pub(crate) struct Lock {
    _file: Option<File>,
}

impl Lock {
    /// Takes the lock shared with Python; `None` while another process has it.
    pub(crate) fn take(folder: &Folder, etag: &str) -> Result<Option<Self>> {
        let path = folder.locks().join(format!("{etag}.lock"));
        let file = open_shared(&path)?;
        match try_lock(&file, &path)? {
            Locked::Ours => {}
            Locked::Theirs => return Ok(None),
            Locked::Nobodys => return Ok(Some(Self { _file: None })),
        }
        // the previous holder may have removed the file after it was opened here: such a lock protects nothing
        Ok(is_same(&file, &path).then_some(Self { _file: Some(file) }))
    }
}

enum Locked {
    Ours,
    Theirs,
    /// The file system has no locks.
    Nobodys,
}

fn try_lock(file: &File, path: &Path) -> Result<Locked> {
    match file.try_lock() {
        Ok(()) => Ok(Locked::Ours),
        Err(TryLockError::WouldBlock) => Ok(Locked::Theirs),
        Err(TryLockError::Error(error)) if no_locks(&error) => Ok(Locked::Nobodys),
        Err(TryLockError::Error(error)) => Err(Error::io("lock", path, &error)),
    }
}

/// Errors of network file systems without locks: ENOLCK, ENOSYS and EOPNOTSUPP.
fn no_locks(error: &std::io::Error) -> bool {
    let known = if cfg!(target_os = "linux") { &[37, 38, 95][..] } else { &[77, 78, 45, 102] };
    error.kind() == ErrorKind::Unsupported
        || cfg!(unix) && error.raw_os_error().is_some_and(|code| known.contains(&code))
}

/// Opens a lock file that other users of a shared cache can lock too.
fn open_shared(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o664);
    match options.open(path) {
        Ok(file) => {
            // the umask may have cleared the group's write permission; fails for another user's file
            #[cfg(unix)]
            if file.metadata().is_ok_and(|metadata| metadata.len() == 0) {
                let _ = file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o664));
            }
            Ok(file)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            cache::create_folder(path.parent().unwrap_or(path))?;
            options.open(path).map_err(|error| Error::io("open", path, &error))
        }
        Err(error) => Err(Error::io("open", path, &error)),
    }
}

/// Whether a path still names an open file.
#[cfg(unix)]
fn is_same(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

/// Windows does not remove the name of an open file.
#[cfg(not(unix))]
fn is_same(_: &File, path: &Path) -> bool {
    path.exists()
}

/// A blob that is not complete yet.
pub(crate) struct Partial {
    path: PathBuf,
    file: File,
    length: u64,
    sha256: Sha256,
    expected: Expected,
}

impl Partial {
    /// Opens the partial file, or creates an empty one; `None` while another process has it.
    pub(crate) fn open(path: &Path, expected: Expected) -> Result<Option<Self>> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path);
        let file = file.map_err(|error| Error::io("open", path, &error))?;
        if matches!(try_lock(&file, path)?, Locked::Theirs) || !is_same(&file, path) {
            return Ok(None);
        }
        let length = file.metadata().map_err(|error| Error::io("read", path, &error))?.len();
        Ok(Some(Self { path: path.to_owned(), file, length, sha256: Sha256::new(), expected }))
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Computes the checksum of the bytes on disk; `tell` gets the bytes read so far, and an error from it ends the read.
    pub(crate) fn check_again(&mut self, tell: &mut dyn FnMut(u64) -> Result<()>) -> Result<()> {
        self.sha256 = Sha256::new();
        if matches!(self.expected, Expected::Sha256(_)) {
            let sha256 = &mut self.sha256;
            let read = read_all(&mut self.file, &self.path, &mut |bytes| sha256.update(bytes), tell)?;
            self.length = read;
        }
        self.seek(self.length)
    }

    fn seek(&mut self, to: u64) -> Result<()> {
        self.file.seek(SeekFrom::Start(to)).map(|_| ()).map_err(|error| Error::io("read", &self.path, &error))
    }

    /// Restarts with an empty file. The old file is removed, not truncated: without working locks, another process may use it.
    pub(crate) fn restart(self) -> Result<Option<Self>> {
        let (path, expected) = (self.path.clone(), self.expected.clone());
        self.discard()?;
        Self::open(&path, expected)
    }

    /// Adds bytes at the end.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| Error::io("write", &self.path, &error))?;
        self.length += bytes.len() as u64;
        self.sha256.update(bytes);
        Ok(())
    }

    /// Removes the file.
    pub(crate) fn discard(self) -> Result<()> {
        drop(self.file);
        cache::remove_if_there(&self.path)
    }

    /// Compares length and checksum with the expected ones; `name` is for messages.
    pub(crate) fn verify(&mut self, name: &str, size: Option<u64>) -> Result<()> {
        if let Some(expected) = size.filter(|size| *size != self.length) {
            return Err(Error::Length { file: name.to_owned(), expected, found: self.length });
        }
        let (kind, expected, found) = match &self.expected {
            Expected::Anything => return Ok(()),
            Expected::Sha256(expected) => ("SHA-256", expected, hex(&self.sha256.clone().finalize())),
            Expected::GitBlob(expected) => {
                let mut sha1 = sha1::Sha1::new();
                sha1.update(format!("blob {}\0", self.length));
                read_all(&mut self.file, &self.path, &mut |bytes| sha1.update(bytes), &mut |_| Ok(()))?;
                ("SHA-1 of the git blob", expected, hex(&sha1.finalize()))
            }
        };
        if *expected == found {
            return Ok(());
        }
        Err(Error::Checksum { file: name.to_owned(), kind, expected: expected.clone(), found })
    }

    /// Flushes the file to disk and renames it to the blob.
    pub(crate) fn finish(self, blob: &Path) -> Result<()> {
        self.file.sync_all().map_err(|error| Error::io("write", &self.path, &error))?;
        // Windows does not rename a file that is open and locked
        drop(self.file);
        fs::rename(&self.path, blob).map_err(|error| Error::io("rename a download to", blob, &error))?;
        #[cfg(unix)]
        if let Some(folder) = blob.parent() {
            // unsupported on some file systems; the file itself is already flushed
            let _ = File::open(folder).and_then(|folder| folder.sync_all());
        }
        Ok(())
    }
}

/// Passes a whole file to `eat`; returns its length.
fn read_all(
    file: &mut File,
    path: &Path,
    eat: &mut dyn FnMut(&[u8]),
    tell: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<u64> {
    let fail = |error| Error::io("read", path, &error);
    file.seek(SeekFrom::Start(0)).map_err(fail)?;
    let (mut piece, mut total) = (vec![0; PIECE], 0);
    loop {
        tell(total)?;
        match file.read(&mut piece) {
            Ok(0) => return Ok(total),
            Ok(n) => {
                eat(&piece[..n]);
                total += n as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(fail(error)),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 of "hello".
    const SHA256: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    /// `git hash-object` of "hello".
    const BLOB: &str = "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0";

    fn open(path: &Path, expected: Expected) -> Partial {
        Partial::open(path, expected).unwrap().expect("nobody has it")
    }

    #[test]
    fn a_download_goes_on_where_it_ended_and_becomes_a_blob() {
        let folder = tempfile::tempdir().unwrap();
        let (path, blob) = (folder.path().join("p"), folder.path().join("b"));
        for expected in [Expected::Sha256(SHA256.into()), Expected::GitBlob(BLOB.into()), Expected::Anything] {
            let mut first = open(&path, expected.clone());
            first.write(b"hel").unwrap();
            assert!(matches!(first.verify("x", Some(5)), Err(Error::Length { expected: 5, found: 3, .. })));
            drop(first);
            let mut second = open(&path, expected);
            assert_eq!(second.length(), 3);
            second.check_again(&mut |_| Ok(())).unwrap();
            second.write(b"lo").unwrap();
            second.verify("x", Some(5)).unwrap();
            second.finish(&blob).unwrap();
            assert_eq!((fs::read(&blob).unwrap().as_slice(), path.exists()), (&b"hello"[..], false));
        }
    }

    #[test]
    fn other_content_is_an_error_with_both_checksums() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p");
        for (expected, value) in [(Expected::Sha256(SHA256.into()), SHA256), (Expected::GitBlob(BLOB.into()), BLOB)] {
            let mut partial = open(&path, expected);
            partial.write(b"hellO").unwrap();
            let error = partial.verify("weights", Some(5)).unwrap_err().to_string();
            assert!(error.contains("weights") && error.contains(value), "{error}");
            let partial = partial.restart().unwrap().unwrap();
            assert_eq!(partial.length(), 0);
            partial.discard().unwrap();
            assert!(!path.exists());
        }
    }

    #[test]
    fn only_one_has_a_lock() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(root.path(), &"a/b".parse().unwrap(), true);
        let held = Lock::take(&folder, "e").unwrap().expect("free");
        assert!(Lock::take(&folder, "e").unwrap().is_none());
        assert!(Lock::take(&folder, "f").unwrap().is_some());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(folder.locks().join("e.lock")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o664);
        }
        drop(held);
        assert!(Lock::take(&folder, "e").unwrap().is_some());
        let path = root.path().join("p");
        let partial = open(&path, Expected::Anything);
        assert!(Partial::open(&path, Expected::Anything).unwrap().is_none());
        drop(partial);
        open(&path, Expected::Anything);
    }
}
