//! Fields of a JSON object, each read with a typed error.

use crate::sniff::{comment, sniff};
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// A JSON object with its file and its place in the file.
pub(crate) struct Object {
    path: PathBuf,
    /// Names of the enclosing fields, each followed by a dot.
    within: String,
    map: Map<String, Value>,
}

/// Short one-line form of a value, for errors.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 60 { text } else { format!("{}…", text.chars().take(60).collect::<String>()) }
}

/// Longest text that is parsed, in bytes. Indexes of hundreds of layers stay below one megabyte; a parsed value takes many times
/// the size of its text.
const MAX_BYTES: usize = 16 << 20;

const HINT: &str = "compare the file with the published one";

/// Converts JSON text of other programs to standard JSON: removes byte order marks, converts UTF-16 and UTF-32 to UTF-8, and
/// quotes Python's `NaN`, `Infinity` and `-Infinity`. As strings these are ignored in unused fields, and named in the error of a
/// field that must be a number.
///
/// # Errors
/// The bytes are recognized as something other than JSON, such as a Git LFS pointer or a web page, or are not text.
pub fn json_text<'a>(path: &Path, bytes: &'a [u8]) -> Result<Cow<'a, [u8]>> {
    let mut text = match bytes {
        [0xFF, 0xFE, 0, 0, rest @ ..] => utf_32(path, rest, u32::from_le_bytes)?,
        [0, 0, 0xFE, 0xFF, rest @ ..] => utf_32(path, rest, u32::from_be_bytes)?,
        [b'{' | b'[', 0, 0, 0, ..] => utf_32(path, bytes, u32::from_le_bytes)?,
        [0, 0, 0, b'{' | b'[', ..] => utf_32(path, bytes, u32::from_be_bytes)?,
        [0xFF, 0xFE, rest @ ..] => utf_16(path, rest, u16::from_le_bytes)?,
        [0xFE, 0xFF, rest @ ..] => utf_16(path, rest, u16::from_be_bytes)?,
        // JSON begins with an ASCII character
        [first, 0, ..] if *first != 0 => utf_16(path, bytes, u16::from_le_bytes)?,
        [0, first, ..] if *first != 0 => utf_16(path, bytes, u16::from_be_bytes)?,
        _ => Cow::Borrowed(bytes),
    };
    // a copied text may have several marks
    let marks = 3 * text.chunks(3).take_while(|bytes| *bytes == b"\xEF\xBB\xBF").count();
    text = match text {
        Cow::Borrowed(text) => Cow::Borrowed(&text[marks..]),
        Cow::Owned(text) => Cow::Owned(text[marks..].to_vec()),
    };
    let begins_as_json = text
        .iter()
        .find(|byte| !byte.is_ascii_whitespace())
        .is_none_or(|&byte| matches!(byte, b'{' | b'[' | b'"' | b'-' | b'0'..=b'9' | b'n' | b't' | b'f' | b'N' | b'I'));
    if !begins_as_json && let Some(found) = sniff(&text) {
        return Err(comment(&text).unwrap_or(found).error(path, "JSON"));
    }
    if begins_as_json {
        check_encoding(path, &text)?;
    }
    Ok(match standard_numbers(&text) {
        Some(rewritten) => Cow::Owned(rewritten),
        None => text,
    })
}

fn utf_16<'a>(path: &Path, bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<Cow<'a, [u8]>> {
    let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).collect();
    match String::from_utf16(&units) {
        Ok(text) if bytes.len().is_multiple_of(2) => Ok(Cow::Owned(text.into_bytes())),
        _ => Err(Error::Json {
            path: path.to_owned(),
            source: "it begins as UTF-16, but is not valid in that encoding".into(),
            hint: "save the file as UTF-8",
        }),
    }
}

fn utf_32<'a>(path: &Path, bytes: &[u8], unit: fn([u8; 4]) -> u32) -> Result<Cow<'a, [u8]>> {
    let units = bytes.chunks(4).map(|bytes| char::from_u32(unit(bytes.try_into().ok()?)));
    match units.collect::<Option<String>>() {
        Some(text) => Ok(Cow::Owned(text.into_bytes())),
        None => Err(Error::Json {
            path: path.to_owned(),
            source: "it begins as UTF-32, but is not valid in that encoding".into(),
            hint: "save the file as UTF-8",
        }),
    }
}

/// Checks for faults that editors do not show: bytes that are not UTF-8, and zero bytes after the text.
fn check_encoding(path: &Path, text: &[u8]) -> Result<()> {
    let error = |source, hint| Err(Error::Json { path: path.to_owned(), source, hint });
    let zeros = text.iter().rev().take_while(|byte| **byte == 0).count();
    if zeros > 0 {
        let hint = "the file was not written to its end, fetch it again";
        return error(format!("{zeros} zero bytes after the text").into(), hint);
    }
    match std::str::from_utf8(text) {
        Err(invalid) => error(invalid.into(), "save the file as UTF-8"),
        Ok(_) => Ok(()),
    }
}

/// Quotes the three numbers of Python that JSON lacks; `None` if there are none.
fn standard_numbers(text: &[u8]) -> Option<Vec<u8>> {
    let (mut out, mut copied, mut at) = (Vec::new(), 0, 0);
    let mut in_string = false;
    while at < text.len() {
        match text[at] {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            b'N' | b'I' | b'-' if !in_string => {
                let names = ["NaN", "Infinity", "-Infinity"];
                if let Some(name) = names.into_iter().find(|name| text[at..].starts_with(name.as_bytes())) {
                    out.extend_from_slice(&text[copied..at]);
                    out.extend(format!("\"{name}\"").bytes());
                    at += name.len();
                    copied = at;
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    (copied > 0).then(|| [&out, &text[copied..]].concat())
}

impl Object {
    /// Reads a file that must hold one JSON object.
    pub(crate) fn read(path: &Path, hint: &'static str) -> Result<Self> {
        let read = |e: std::io::Error| Error::read(path, e, hint);
        if !std::fs::metadata(path).map_err(read)?.is_file() {
            return Err(read(std::io::Error::other("not a regular file")));
        }
        let bytes = std::fs::read(path).map_err(read)?;
        Self::parse(path, &bytes)
    }

    /// Parses bytes that came from `path`.
    pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_BYTES {
            let message = format!("the file has {} bytes, at most {MAX_BYTES} expected", bytes.len());
            return Err(Error::Json { path: path.to_owned(), source: message.into(), hint: HINT });
        }
        let bytes = json_text(path, bytes)?;
        let value: Value = serde_json::from_slice(&bytes).map_err(|e| Error::json(path, e))?;
        match value {
            Value::Object(map) => Ok(Self { path: path.to_owned(), within: String::new(), map }),
            other => Err(Error::Foreign {
                path: path.to_owned(),
                expected: "a JSON object",
                found: shown(&other),
                hint: HINT,
            }),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The names of all fields.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.map.keys().map(String::as_str)
    }

    /// The field, unless it is absent or null.
    pub(crate) fn get(&self, field: &str) -> Option<&Value> {
        self.map.get(field).filter(|value| !value.is_null())
    }

    /// An error about a field.
    pub(crate) fn bad(&self, field: &str, expected: impl Into<String>, hint: &'static str) -> Error {
        Error::Field {
            path: self.path.clone(),
            field: format!("{}{field}", self.within),
            expected: expected.into(),
            found: self.map.get(field).map_or("nothing: the field is missing".into(), shown),
            hint,
        }
    }

    /// A note about a field, which is not an error.
    pub(crate) fn note(&self, field: &str, text: &str) -> String {
        format!("{}: {}{field}: {text}", self.path.display(), self.within)
    }

    /// An object inside this one; `None` where absent or null.
    pub(crate) fn object(&self, field: &str) -> Result<Option<Self>> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::Object(map)) => {
                Ok(Some(Self { path: self.path.clone(), within: format!("{}{field}.", self.within), map: map.clone() }))
            }
            Some(_) => Err(self.bad(field, "an object", HINT)),
        }
    }

    /// A whole number in `range`; `None` where absent or null.
    pub(crate) fn integer(&self, field: &str, range: RangeInclusive<usize>) -> Result<Option<usize>> {
        let Some(value) = self.get(field) else { return Ok(None) };
        match value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| range.contains(n)) {
            Some(n) => Ok(Some(n)),
            None => Err(self.bad(field, format!("a whole number from {} to {}", range.start(), range.end()), HINT)),
        }
    }

    /// A required whole number in `range`.
    pub(crate) fn required(&self, field: &str, range: RangeInclusive<usize>) -> Result<usize> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        self.integer(field, range)?.ok_or_else(|| self.bad(field, expected, HINT))
    }

    /// A finite number greater than zero; `None` where absent or null.
    pub(crate) fn positive(&self, field: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(field) else { return Ok(None) };
        match value.as_f64().filter(|n| n.is_finite() && *n > 0.0) {
            Some(n) => Ok(Some(n)),
            None => Err(self.bad(field, "a number greater than 0", HINT)),
        }
    }

    /// A finite number of at least zero; `None` where absent or null.
    pub(crate) fn number(&self, field: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(field) else { return Ok(None) };
        match value.as_f64().filter(|n| n.is_finite() && *n >= 0.0) {
            Some(n) => Ok(Some(n)),
            None => Err(self.bad(field, "a number of at least 0", HINT)),
        }
    }

    /// A number from 0 to 1; `None` where absent or null.
    pub(crate) fn share(&self, field: &str) -> Result<Option<f64>> {
        match self.number(field)? {
            Some(n) if n > 1.0 => Err(self.bad(field, "a number from 0 to 1", HINT)),
            share => Ok(share),
        }
    }

    /// True or false; `None` where absent or null.
    pub(crate) fn boolean(&self, field: &str) -> Result<Option<bool>> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(*b)),
            Some(_) => Err(self.bad(field, "true or false", HINT)),
        }
    }

    /// A string; `None` where absent or null.
    pub(crate) fn string(&self, field: &str) -> Result<Option<&str>> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::String(s)) => Ok(Some(s)),
            Some(_) => Err(self.bad(field, "a string", HINT)),
        }
    }

    /// A string or a list of strings; none where absent or null.
    pub(crate) fn strings(&self, field: &str) -> Result<Vec<String>> {
        let strings = match self.get(field) {
            None => Some(Vec::new()),
            Some(Value::String(one)) => Some(vec![one.clone()]),
            Some(Value::Array(list)) => list.iter().map(|value| value.as_str().map(str::to_owned)).collect(),
            Some(_) => None,
        };
        strings.ok_or_else(|| self.bad(field, "a string or a list of strings", HINT))
    }

    /// A list of `len` finite numbers greater than zero.
    pub(crate) fn factors(&self, field: &str, len: usize) -> Result<Vec<f32>> {
        let expected = || format!("{len} numbers greater than 0 (half of the rotated dimensions)");
        let Some(Value::Array(list)) = self.get(field) else {
            return Err(self.bad(field, expected(), HINT));
        };
        if list.len() != len {
            return Err(Error::Field {
                path: self.path.clone(),
                field: format!("{}{field}", self.within),
                expected: expected(),
                found: format!("{} numbers", list.len()),
                hint: HINT,
            });
        }
        list.iter()
            .map(|v| v.as_f64().map(|v| v as f32).filter(|v| v.is_finite() && *v > 0.0))
            .collect::<Option<_>>()
            .ok_or_else(|| self.bad(field, expected(), HINT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(bytes: &[u8]) -> std::result::Result<Option<f64>, String> {
        let object = Object::parse(Path::new("c.json"), bytes).map_err(|e| e.to_string())?;
        object.positive("x").map_err(|e| e.to_string())
    }

    #[test]
    fn marks_and_encodings_of_other_programs_are_read() {
        let json = "{\"x\": 2.5, \"é\": \"\\\\\"}";
        let units: Vec<u16> = json.encode_utf16().collect();
        let little: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let big: Vec<u8> = units.iter().flat_map(|unit| unit.to_be_bytes()).collect();
        for bytes in [
            json.as_bytes().to_vec(),
            [b"\xEF\xBB\xBF", json.as_bytes()].concat(),
            [b"\xFF\xFE", &little[..]].concat(),
            [b"\xFE\xFF", &big[..]].concat(),
            little.clone(),
            big,
            [b"\xEF\xBB\xBF\xEF\xBB\xBF", json.as_bytes()].concat(),
            json.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect(),
            "\u{feff}".chars().chain(json.chars()).flat_map(|c| u32::from(c).to_le_bytes()).collect(),
            "\u{feff}".chars().chain(json.chars()).flat_map(|c| u32::from(c).to_be_bytes()).collect(),
        ] {
            assert_eq!(field(&bytes), Ok(Some(2.5)), "{bytes:?}");
        }
        let cut = field(&[b"\xFF\xFE", &little[..little.len() - 1]].concat()).unwrap_err();
        assert!(cut.contains("UTF-16"), "{cut}");
        let cut = field(b"{\0\0\0}\0").unwrap_err();
        assert!(cut.contains("UTF-32"), "{cut}");
        let latin = field(b"{\"x\": 1, \"\xE9\": 2}").unwrap_err();
        assert!(latin.contains("utf-8") && latin.contains("index 10"), "{latin}");
        let zeros = field(b"{\"x\": 1}\0\0").unwrap_err();
        assert!(zeros.contains("2 zero bytes"), "{zeros}");
    }

    #[test]
    fn python_s_numbers_are_read_past_or_named() {
        let beside = br#"{"a": NaN, "b": [Infinity, -Infinity], "c": "NaN \\", "d": "\"NaN", "x": -1e-3}"#;
        assert!(field(beside).unwrap_err().contains("found -0.001"));
        assert_eq!(field(br#"{"NaN": NaN,"x":1}"#), Ok(Some(1.0)));
        for name in ["NaN", "Infinity", "-Infinity"] {
            let said = field(format!("{{\"x\": {name}}}").as_bytes()).unwrap_err();
            assert!(said.contains("x: expected a number") && said.contains(name), "{said}");
        }
        assert!(field(b"{\"x\": Nothing}").is_err());
    }

    #[test]
    fn what_is_no_json_is_told() {
        let page = field(b"\n<!DOCTYPE html>\n<html>").unwrap_err();
        assert!(page.contains("expected JSON, found a web page"), "{page}");
        let pointer = field(b"version https://git-lfs.github.com/spec/v1\nsize 7\n").unwrap_err();
        assert!(pointer.contains("git lfs pull"), "{pointer}");
        for comment in ["// x", "/* x */", "# x"] {
            let said = field(format!("{comment}\n{{}}").as_bytes()).unwrap_err();
            assert!(said.contains("comment"), "{said}");
        }
        assert!(field(b"[1]").unwrap_err().contains("expected a JSON object, found [1]"));
        assert!(field(b"{\"x\": 1").unwrap_err().contains("incomplete"));
        assert!(!field(b"{\"x\": 1,,}").unwrap_err().contains("incomplete"));
    }
}
