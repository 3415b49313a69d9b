//! Fields of a JSON object, each read with a typed error.

use crate::{Error, Result};
use serde_json::{Map, Value};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// A JSON object and where it stands.
pub(crate) struct Object {
    path: PathBuf,
    /// Field names around this object, each with a dot behind.
    within: String,
    map: Map<String, Value>,
}

/// A value as an error shows it: short, on one line.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 60 { text } else { format!("{}…", text.chars().take(60).collect::<String>()) }
}

/// Longest text that is parsed: indexes of hundreds of layers stay below one megabyte, and a parsed value takes many times
/// its text.
const MAX_BYTES: usize = 16 << 20;

const HINT: &str = "compare the file with the published one";

impl Object {
    /// Reads a file that must hold one JSON object.
    pub(crate) fn read(path: &Path, hint: &'static str) -> Result<Self> {
        let read = |e: std::io::Error| Error::read(path, &e, hint);
        if !std::fs::metadata(path).map_err(read)?.is_file() {
            return Err(Error::Read { path: path.to_owned(), message: "not a regular file".into(), hint });
        }
        let bytes = std::fs::read(path).map_err(read)?;
        Self::parse(path, &bytes)
    }

    /// Parses bytes that came from `path`.
    pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_BYTES {
            let message = format!("the file has {} bytes, at most {MAX_BYTES} expected", bytes.len());
            return Err(Error::Json { path: path.to_owned(), message });
        }
        let value: Value = serde_json::from_slice(bytes).map_err(|e| Error::json(path, &e))?;
        match value {
            Value::Object(map) => Ok(Self { path: path.to_owned(), within: String::new(), map }),
            other => Err(Error::Json {
                path: path.to_owned(),
                message: format!("expected a JSON object, found {}", shown(&other)),
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

    /// A whole number of `range`; `None` where absent or null.
    pub(crate) fn integer(&self, field: &str, range: RangeInclusive<usize>) -> Result<Option<usize>> {
        let Some(value) = self.get(field) else { return Ok(None) };
        match value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| range.contains(n)) {
            Some(n) => Ok(Some(n)),
            None => Err(self.bad(field, format!("a whole number from {} to {}", range.start(), range.end()), HINT)),
        }
    }

    /// A whole number that must be there.
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
