//! The text files of a folder.

use crate::passages::{Passage, split};
use phi3_runner::{Error, Result};
use std::path::{Path, PathBuf};

/// The passages of a folder.
#[derive(Debug, Default)]
pub(crate) struct Corpus {
    pub(crate) passages: Vec<Passage>,
    /// Number of files that were read.
    pub(crate) files: usize,
    /// Files that were skipped, and why: one sentence each.
    pub(crate) notes: Vec<String>,
}

impl Corpus {
    /// Reads the text files (`.md`, `.markdown`, `.txt`) of a folder and of the folders in it. Hidden ones and symbolic links are not
    /// read. A file that cannot be read or is not UTF-8 is skipped, with a note.
    ///
    /// # Errors
    ///
    /// A folder cannot be read.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let mut files = text_files(folder)?;
        files.sort();
        let mut corpus = Self::default();
        for path in files {
            let name = path.strip_prefix(folder).unwrap_or(&path).display().to_string();
            let bytes = match std::fs::read(&path) {
                Ok(bytes) => bytes,
                Err(error) => {
                    corpus.notes.push(format!("{name} is skipped: {error}."));
                    continue;
                }
            };
            let Ok(text) = String::from_utf8(bytes) else {
                corpus.notes.push(format!("{name} is skipped: it is not UTF-8."));
                continue;
            };
            corpus.files += 1;
            corpus.passages.extend(split(&name, &text));
        }
        Ok(corpus)
    }
}

/// The text files below a folder.
fn text_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = |path: &Path, error: std::io::Error| Error::File {
        action: "read",
        path: path.to_owned(),
        source: error.into(),
        hint: "name a folder that can be read",
    };
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(|error| unreadable(&folder, error))? {
            let entry = entry.map_err(|error| unreadable(&folder, error))?;
            let path = entry.path();
            let kind = entry.file_type().map_err(|error| unreadable(&path, error))?;
            let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
            let is_text = path.extension().is_some_and(|end| ["md", "markdown", "txt"].iter().any(|text| end == *text));
            if kind.is_dir() && !is_hidden {
                folders.push(path);
            } else if kind.is_file() && !is_hidden && is_text {
                files.push(path);
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
        fs::create_dir(folder.path().join("more")).unwrap();
        fs::create_dir(folder.path().join(".git")).unwrap();
        write("b.md", b"# Title\n\nText.\n");
        write("a.txt", b"Plain text.");
        write("empty.md", b"");
        write("latin.txt", b"caf\xe9");
        write("program.rs", b"fn main() {}");
        write("more/c.markdown", b"More text.");
        write(".git/d.md", b"Hidden.");
        let corpus = Corpus::read(folder.path()).unwrap();
        let files: Vec<String> = corpus.passages.iter().map(|passage| passage.file.replace('\\', "/")).collect();
        assert_eq!(files, ["a.txt", "b.md", "more/c.markdown"]);
        assert_eq!(corpus.files, 4);
        assert_eq!(corpus.notes, ["latin.txt is skipped: it is not UTF-8."]);
        let error = Corpus::read(&folder.path().join("absent")).unwrap_err().to_string();
        assert!(error.contains("absent"), "{error}");
    }
}
