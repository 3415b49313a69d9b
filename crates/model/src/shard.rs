//! A weight file of any format: a checked tensor table over a memory map.

use crate::{Error, Result};
use phi3_tensor::Memory;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The bytes of a file, shared.
pub(crate) type Shared = Arc<dyn Memory>;

/// Bytes in memory, in place of a file.
pub(crate) struct Lent<T>(pub(crate) T);

impl<T: AsRef<[u8]> + Send + Sync> Memory for Lent<T> {
    fn bytes(&self) -> &[u8] {
        self.0.as_ref()
    }
}

/// A mapped file.
struct Map(memmap2::Mmap);

impl Memory for Map {
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn is_mapped(&self) -> bool {
        true
    }

    #[cfg(unix)]
    fn release(&self, range: Range<usize>) {
        // a hint: if the call fails, the pages stay until the system reclaims them
        // SAFETY: the map is a read-only map of a file: dropped pages are read again from the file, with the same bytes.
        let _ = unsafe { self.0.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len()) };
    }
}

/// A tensor of a file.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// The type as the format calls it.
    pub(crate) dtype: &'static str,
    /// Outermost dimension first.
    pub(crate) shape: Vec<usize>,
    /// Byte range in the file.
    pub(crate) range: Range<usize>,
}

/// An opened file: its bytes and its tensors.
pub(crate) struct Shard {
    pub(crate) path: PathBuf,
    pub(crate) bytes: Shared,
    pub(crate) entries: Vec<Entry>,
}

/// Maps a regular file that is not empty; `None` where it is empty.
pub(crate) fn map(path: &Path, hint: &'static str) -> Result<Option<Shared>> {
    let read = |e: std::io::Error| Error::read(path, e, hint);
    // checked before the file is opened: opening a pipe would wait for its writer
    let metadata = std::fs::metadata(path).map_err(read)?;
    if !metadata.is_file() {
        return Err(read(std::io::Error::other("not a regular file, perhaps a folder")));
    }
    if metadata.len() == 0 {
        return Ok(None);
    }
    let file = File::open(path).map_err(read)?;
    // SAFETY: the map is read-only. The user of the library must not change or truncate the file while it is mapped.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(read)?;
    Ok(Some(Arc::new(Map(map))))
}

/// Sorts entries by offset; an error if two of them overlap.
pub(crate) fn no_overlap(path: &Path, entries: &mut [Entry], hint: &'static str) -> Result<()> {
    entries.sort_by_key(|entry| (entry.range.start, entry.range.end));
    for pair in entries.windows(2) {
        if pair[1].range.start < pair[0].range.end {
            return Err(Error::Tensor {
                path: path.to_owned(),
                tensor: pair[1].name.clone(),
                message: format!("its bytes overlap those of {}", pair[0].name),
                hint,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(target_os = "linux")]
    fn released_pages_leave_the_process() {
        const LEN: usize = 64 << 20;
        let mapped = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap().to_owned();
            line.trim().trim_end_matches("kB").trim().parse::<usize>().unwrap() << 10
        };
        let scratch = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&scratch, vec![7; LEN]).unwrap();
        let file = super::map(scratch.path(), "").unwrap().unwrap();
        let sum = || file.bytes().iter().step_by(512).map(|&b| usize::from(b)).sum::<usize>();
        let whole = sum();
        let read = mapped();
        file.release(0..LEN);
        let released = mapped();
        assert!(read >= released + LEN / 2, "{read} bytes were mapped, {released} still are");
        assert_eq!(sum(), whole);
    }
}
