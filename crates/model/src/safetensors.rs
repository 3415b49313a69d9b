//! Parser of safetensors files: a checked header over a memory map.

use crate::shard::{Entry, Shard, Shared, map, no_overlap};
use crate::sniff::sniff;
use crate::{Error, Result};
use serde::de::{Deserializer as _, Error as _, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::HashSet;
use std::fmt;
use std::path::Path;

/// Longest header that is read, as in the reference implementation.
const MAX_HEADER: u64 = 100_000_000;

/// Longest description of a tensor, in bytes. Usual ones have about 100; a parsed one takes many times the size of its text.
const MAX_ENTRY: usize = 4096;

const HINT: &str = "the file is damaged or truncated, fetch it again";

/// Types of the format, with bits per element.
const DTYPES: [(&str, u64); 22] = [
    ("BOOL", 8),
    ("F4", 4),
    ("F6_E2M3", 6),
    ("F6_E3M2", 6),
    ("U8", 8),
    ("I8", 8),
    ("F8_E5M2", 8),
    ("F8_E4M3", 8),
    ("F8_E8M0", 8),
    ("F8_E4M3FNUZ", 8),
    ("F8_E5M2FNUZ", 8),
    ("I16", 16),
    ("U16", 16),
    ("F16", 16),
    ("BF16", 16),
    ("I32", 32),
    ("U32", 32),
    ("F32", 32),
    ("C64", 64),
    ("F64", 64),
    ("I64", 64),
    ("U64", 64),
];

/// Maps a file and checks its header; the weights are not read.
pub(crate) fn open(path: &Path) -> Result<Shard> {
    let hint = "a checkpoint folder holds model.safetensors, or an index and every shard that it names";
    match map(path, hint)? {
        Some(bytes) => parse(path, bytes),
        None => Err(too_short(path, 0)),
    }
}

/// Checks the header of bytes that came from `path`.
pub(crate) fn parse(path: &Path, bytes: Shared) -> Result<Shard> {
    let data = bytes.bytes();
    let header = |message: String| Error::Header { path: path.to_owned(), message };
    let Some((length, rest)) = data.split_first_chunk::<8>() else {
        return Err(too_short(path, data.len() as u64));
    };
    let length = u64::from_le_bytes(*length);
    if length > rest.len() as u64 || length > MAX_HEADER {
        if let Some(found) = sniff(data) {
            return Err(found.error(path, "a safetensors file"));
        }
        let message = format!("its length field says {length} bytes, the file has {} after it", rest.len());
        return Err(header(message));
    }
    let (text, tensors) = rest.split_at(length as usize);
    let text = std::str::from_utf8(text).map_err(|e| header(format!("not UTF-8: {e}")))?;
    let start = 8 + length as usize;
    let mut entries = Vec::new();
    let mut names = HashSet::new();
    let mut fault = None;
    let mut add = |name: String, text: &str| {
        if name == "__metadata__" {
            return Ok(());
        }
        if text.len() > MAX_ENTRY {
            let message = format!("its description has {} bytes, at most {MAX_ENTRY} expected", text.len());
            return Err(tensor(path, &name, message));
        }
        let value = serde_json::from_str(text).map_err(|e| tensor(path, &name, format!("its description: {e}")))?;
        let entry = entry(path, name, &value, start, tensors.len())?;
        if !names.insert(entry.name.clone()) {
            return Err(tensor(path, &entry.name, "occurs twice in the header (duplicate name)"));
        }
        entries.push(entry);
        Ok(())
    };
    let parsed = each_field(text, &mut |name, text| add(name, text).map_err(|e| fault = Some(e)).is_ok());
    if let Some(fault) = fault {
        return Err(fault);
    }
    parsed.map_err(|e| header(format!("not valid JSON of tensors: {e}")))?;
    no_overlap(path, &mut entries, HINT)?;
    Ok(Shard { path: path.to_owned(), bytes, entries })
}

fn too_short(path: &Path, len: u64) -> Error {
    Error::Header { path: path.to_owned(), message: format!("the file is too short: {len} bytes, at least 8 expected") }
}

fn tensor(path: &Path, name: &str, message: impl Into<String>) -> Error {
    Error::Tensor { path: path.to_owned(), tensor: name.into(), message: message.into(), hint: HINT }
}

/// Calls `take` with the name and the text of each field of a JSON object, in order and with repeated names, until it returns
/// false.
fn each_field(text: &str, take: &mut dyn FnMut(String, &str) -> bool) -> serde_json::Result<()> {
    struct Fields<'a>(&'a mut dyn FnMut(String, &str) -> bool);

    impl<'de> Visitor<'de> for Fields<'_> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object of tensors")
        }

        fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> std::result::Result<(), M::Error> {
            while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                if !(self.0)(name, value.get()) {
                    return Err(M::Error::custom("a bad tensor"));
                }
            }
            Ok(())
        }
    }

    let mut json = serde_json::Deserializer::from_str(text);
    json.deserialize_map(Fields(take))?;
    json.end()
}

/// Checks one tensor: its type, its shape, and a byte range inside the file that has the shape's size.
fn entry(path: &Path, name: String, value: &Value, start: usize, len: usize) -> Result<Entry> {
    let bad = |message: String| tensor(path, &name, message);
    let numbers = |field: &str| -> Result<Vec<u64>> {
        let list = value.get(field).and_then(Value::as_array);
        list.and_then(|list| list.iter().map(Value::as_u64).collect())
            .ok_or_else(|| bad(format!("{field}: expected a list of whole numbers, found {}", at(value, field))))
    };
    let dtype = value.get("dtype").and_then(Value::as_str);
    let Some(&(dtype, bits)) = DTYPES.iter().find(|(name, _)| Some(*name) == dtype) else {
        return Err(bad(format!("dtype: expected a safetensors type such as BF16, found {}", at(value, "dtype"))));
    };
    let shape = numbers("shape")?;
    let offsets = numbers("data_offsets")?;
    let &[begin, end] = offsets.as_slice() else {
        return Err(bad(format!("data_offsets: expected begin and end, found {offsets:?}")));
    };
    if begin > end {
        return Err(bad(format!("data_offsets: begin {begin} is after end {end}")));
    }
    let bytes = shape.iter().try_fold(bits, |n, &d| n.checked_mul(d)).filter(|bits| bits % 8 == 0).map(|bits| bits / 8);
    if bytes != Some(end - begin) {
        let wanted = bytes.map_or("a whole number of bytes below 2^61".into(), |n| format!("{n} bytes"));
        let message = format!("shape {shape:?} of {dtype}: expected {wanted}, data_offsets hold {}", end - begin);
        return Err(bad(message));
    }
    if end > len as u64 {
        let message = format!("data_offsets [{begin}, {end}] are outside the file, which has {len} bytes of data");
        return Err(bad(message));
    }
    let shape = shape.into_iter().map(|d| d as usize).collect();
    Ok(Entry { dtype, shape, range: start + begin as usize..start + end as usize, name })
}

fn at(value: &Value, field: &str) -> String {
    let text = value.get(field).map_or("nothing".into(), Value::to_string);
    text.chars().take(60).collect()
}
