//! Recognition of a file's real kind from its first bytes: a failed download, or another format.

use crate::Error;
use std::path::Path;

/// A recognized kind of file, other than the expected one.
pub(crate) struct Found {
    what: String,
    hint: &'static str,
}

impl Found {
    fn new(what: impl Into<String>, hint: &'static str) -> Option<Self> {
        Some(Self { what: what.into(), hint })
    }

    /// The error for `path`, a file that should be `expected`.
    pub(crate) fn error(self, path: &Path, expected: &'static str) -> Error {
        Error::Foreign { path: path.to_owned(), expected, found: self.what, hint: self.hint }
    }
}

/// Bytes examined at the start of a file.
const HEAD: usize = 512;

/// Characters of a text shown in an error.
const SHOWN: usize = 60;

const PICKLE: &str = "safetensors or GGUF weights are read, pickles are not: take the safetensors files of the model, or \
    save it with safe_serialization=True";
const AGAIN: &str =
    "the download is not a model: check the address, the access token and the licence, then fetch it again";

/// Archives by their first bytes.
const ARCHIVES: [(&[u8], &str); 7] = [
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!", "RAR"),
    (b"\x04\x22\x4d\x18", "lz4"),
];

/// Formats older than GGUF, by their first bytes.
const OLD_GGML: [&[u8]; 4] = [b"lmgg", b"fmgg", b"tjgg", b"algg"];

/// Recognizes files that are not models, and model files of other formats; `None` if nothing is recognized.
pub(crate) fn sniff(bytes: &[u8]) -> Option<Found> {
    let head = &bytes[..bytes.len().min(HEAD)];
    binary(bytes, head).or_else(|| text(head))
}

fn binary(bytes: &[u8], head: &[u8]) -> Option<Found> {
    if head.starts_with(b"GGUF") {
        return Found::new("a GGUF file", "give that file itself as the model");
    }
    if head.starts_with(b"PK\x03\x04") {
        let pickled = head.windows(8).any(|bytes| bytes == b"data.pkl");
        return match pickled {
            true => Found::new("a PyTorch pickle (in a ZIP archive)", PICKLE),
            false => Found::new("a ZIP archive", "unpack it first; of PyTorch's formats only safetensors is read"),
        };
    }
    if head.len() > 2 && head[0] == 0x80 && (2..=5).contains(&head[1]) {
        return Found::new("a PyTorch pickle", PICKLE);
    }
    if head.starts_with(b"\x89HDF\r\n\x1a\n") {
        return Found::new("an HDF5 file, as Keras saves weights", "take the safetensors files of the model");
    }
    if head.starts_with(b"\x93NUMPY") {
        return Found::new("a NumPy array", "take the safetensors files of the model");
    }
    if let Some((_, name)) = ARCHIVES.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Found::new(format!("a compressed archive ({name})"), "unpack it first");
    }
    if head.get(257..262) == Some(b"ustar") {
        return Found::new("a tar archive", "unpack it first");
    }
    if OLD_GGML.iter().any(|magic| head.starts_with(magic)) {
        return Found::new("a GGML file, older than GGUF", "take a GGUF file of the model");
    }
    // a count, the length of a name, and the name
    if head.get(8..).is_some_and(|name| name.starts_with(b"blk.") || name.starts_with(b"output.weight")) {
        return Found::new("an importance matrix for a quantizer", "give the model's own file");
    }
    if is_safetensors(bytes) {
        return Found::new("a safetensors file", "give the folder that holds it and config.json as the model");
    }
    if head.len() >= 16 && head.iter().all(|&byte| byte == 0) {
        return Found::new(
            "zero bytes only",
            "the download reserved disk space and did not fill it: fetch the file again",
        );
    }
    None
}

fn is_safetensors(bytes: &[u8]) -> bool {
    let length = bytes.first_chunk::<8>().map(|length| u64::from_le_bytes(*length));
    length.is_some_and(|length| length <= bytes.len() as u64) && bytes.get(8) == Some(&b'{')
}

fn text(head: &[u8]) -> Option<Found> {
    let text = readable(head)?;
    let found = instead_of_text(text);
    found.or_else(|| match text.starts_with(['{', '[']) {
        true => Found::new(format!("JSON text, perhaps a server's error: {}", line(text)), AGAIN),
        false => Found::new(format!("text, perhaps a server's message: {}", line(text)), AGAIN),
    })
}

/// The text at the start of a file; `None` if it is not text.
fn readable(head: &[u8]) -> Option<&str> {
    let valid = match std::str::from_utf8(head) {
        Ok(text) => text,
        // the head may end inside a character
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&head[..error.valid_up_to()]).ok()?,
        Err(_) => return None,
    };
    let text = valid.trim_start_matches('\u{feff}').trim();
    let has_controls = text.chars().any(|c| c.is_control() && !c.is_whitespace());
    (!text.is_empty() && !has_controls).then_some(text)
}

/// Recognizes a text that replaces another file: a Git LFS pointer, a web page, an XML document.
fn instead_of_text(text: &str) -> Option<Found> {
    let lower = text.to_ascii_lowercase();
    if lower.starts_with("version https://git-lfs") || lower.starts_with("version https://hawser") {
        let size = lower.lines().find_map(|line| line.strip_prefix("size ")).unwrap_or("unknown");
        let what = format!("a Git LFS pointer to the file, which has {size} bytes");
        return Found::new(what, "run `git lfs pull` in the repository, or download the file itself");
    }
    if lower.starts_with("<!doctype html") || lower.starts_with("<html") || lower.contains("<html") {
        return Found::new("a web page (HTML)", AGAIN);
    }
    if lower.starts_with("<?xml") || lower.starts_with("<error") {
        return Found::new(format!("an XML document, perhaps a server's error: {}", line(text)), AGAIN);
    }
    None
}

/// Checks that bytes are not recognized as something other than a text file: a Git LFS pointer, a web page, a binary file.
///
/// # Errors
/// [`Error::Foreign`] with the recognized kind.
pub fn check_text(path: &Path, bytes: &[u8]) -> crate::Result<()> {
    let head = &bytes[..bytes.len().min(HEAD)];
    match binary(bytes, head).or_else(|| instead_of_text(readable(head)?)) {
        Some(found) => Err(found.error(path, "a text file")),
        None => Ok(()),
    }
}

/// Recognizes a text that begins with a comment, which JSON does not have.
pub(crate) fn comment(bytes: &[u8]) -> Option<Found> {
    let text = bytes.trim_ascii_start();
    let begins = [&b"//"[..], b"/*", b"#"].iter().any(|mark| text.starts_with(mark));
    begins.then_some(Found {
        what: "a text that begins with a comment".into(),
        hint: "JSON has no comments: remove them",
    })
}

/// The start of a text on one line, quoted.
fn line(text: &str) -> String {
    let start: String = text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(SHOWN).collect();
    format!("{start:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(bytes: &[u8]) -> String {
        sniff(bytes).map_or("nothing".into(), |found| found.error(Path::new("m"), "a model").to_string())
    }

    #[test]
    fn what_a_download_may_bring_is_told() {
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 2393231072\n";
        assert!(told(pointer.as_bytes()).contains("2393231072 bytes; hint: run `git lfs pull`"));
        assert!(told(b"\n <!DOCTYPE HTML><html>").contains("web page"));
        assert!(told(b"<?xml version=\"1.0\"?><Error>").contains("XML"));
        assert!(told(b"\xef\xbb\xbf<html lang=en>").contains("web page"));
        assert!(told(b"{\"error\": \"Repository not found\"}").contains("Repository not found"));
        assert!(told("Accès refusé".as_bytes()).contains("Accès refusé"));
        assert!(told(&[0; 64]).contains("zero bytes"));
        let archive = [&b"PK\x03\x04"[..], &[0; 26], b"archive/data.pkl"].concat();
        assert!(told(&archive).contains("PyTorch"));
        assert!(told(b"PK\x03\x04\x14\0\0\0model/config.json").contains("unpack"));
        assert!(told(b"\x02\0\0\0\x15\0\0\0blk.0.attn_qkv.weight\0").contains("importance matrix"));
        assert!(told(b"\x80\x02\x8a\x0al").contains("pickle"));
        assert!(told(b"\x1f\x8b\x08\0").contains("gzip"));
        assert!(told(b"tjgg\x03\0\0\0").contains("GGML"));
        assert!(told(b"GGUF\x03\0\0\0").contains("GGUF"));
        let safetensors = [&16u64.to_le_bytes()[..], b"{\"a\": 1}        "].concat();
        assert!(told(&safetensors).contains("safetensors"));
    }

    #[test]
    fn other_bytes_and_halved_characters_are_no_text() {
        assert_eq!(told(b"\x01\x02\x03\x04"), "nothing");
        assert_eq!(told(b""), "nothing");
        assert_eq!(told(b"\xff\xfe\xfd"), "nothing");
        let long = format!("{}é", "a".repeat(HEAD - 1));
        assert!(told(long.as_bytes()).contains("text"));
    }
}
