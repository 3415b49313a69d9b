//! A weight file, whatever its format: a checked table of tensors over a memory map.

use crate::{Error, Result};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The bytes of a file, shared.
pub(crate) type Shared = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A tensor's place in a file.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// The type as the format calls it.
    pub(crate) dtype: &'static str,
    /// Outermost dimension first.
    pub(crate) shape: Vec<usize>,
    /// Bytes of the whole file.
    pub(crate) range: Range<usize>,
}

/// An opened file: its tensors, and the bytes behind them.
pub(crate) struct Shard {
    pub(crate) path: PathBuf,
    pub(crate) bytes: Shared,
    pub(crate) entries: Vec<Entry>,
}

/// Maps a regular file that is not empty; `None` where it is empty.
pub(crate) fn map(path: &Path, hint: &'static str) -> Result<Option<Shared>> {
    let read = |e: std::io::Error| Error::read(path, &e, hint);
    // asked before it is opened: opening a pipe would wait for its writer
    let metadata = std::fs::metadata(path).map_err(read)?;
    if !metadata.is_file() {
        let message = "not a regular file, perhaps a folder".into();
        return Err(Error::Read { path: path.to_owned(), message, hint });
    }
    if metadata.len() == 0 {
        return Ok(None);
    }
    let file = File::open(path).map_err(read)?;
    // SAFETY: the map is read only; as with every mapped file, it must not be cut short while in use.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(read)?;
    Ok(Some(Arc::new(map)))
}

/// Sorts entries by their place; an error where two of them share bytes.
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
