//! Parser of GGUF files: header, metadata and tensor table. Counts and lengths are checked before memory is allocated for them.
//!
//! Layout after `docs/gguf.md` of ggml, versions 2 and 3, little-endian.

use super::value::{Array, Kind, Metadata, Value};
use crate::shard::{Entry, Shard, Shared, no_overlap};
use crate::sniff::sniff;
use crate::{Error, Result};
use phi3_tensor::Bytes;
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::path::Path;

/// Types of tensors: number, name, elements per block, bytes per block. Includes types without kernels and types removed from
/// the format, so that such files can be inspected.
const TYPES: [(u32, &str, usize, usize); 40] = [
    (0, "F32", 1, 4),
    (1, "F16", 1, 2),
    (2, "Q4_0", 32, 18),
    (3, "Q4_1", 32, 20),
    (6, "Q5_0", 32, 22),
    (7, "Q5_1", 32, 24),
    (8, "Q8_0", 32, 34),
    (9, "Q8_1", 32, 36),
    (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110),
    (12, "Q4_K", 256, 144),
    (13, "Q5_K", 256, 176),
    (14, "Q6_K", 256, 210),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (20, "IQ4_NL", 32, 18),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (23, "IQ4_XS", 256, 136),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (30, "BF16", 1, 2),
    (31, "Q4_0_4_4", 32, 18),
    (32, "Q4_0_4_8", 32, 18),
    (33, "Q4_0_8_8", 32, 18),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (36, "IQ4_NL_4_4", 32, 18),
    (37, "IQ4_NL_4_8", 32, 18),
    (38, "IQ4_NL_8_8", 32, 18),
    (39, "MXFP4", 32, 17),
    (40, "NVFP4", 64, 36),
    (41, "Q1_0", 128, 18),
];

/// Most dimensions of a tensor.
const MAX_DIMENSIONS: u32 = 4;

/// Default alignment of tensor data, in bytes.
const ALIGNMENT: usize = 32;

const HINT: &str = "the file is damaged or incomplete, fetch it again";

/// Reads forward; `None` if too few bytes are left.
struct Cursor<'a> {
    data: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn remaining(&self) -> usize {
        self.data.len() - self.at
    }

    fn take(&mut self, len: u64) -> Option<Range<usize>> {
        let len = usize::try_from(len).ok().filter(|&len| len <= self.remaining())?;
        self.at += len;
        Some(self.at - len..self.at)
    }

    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let chunk = *self.data.get(self.at..)?.first_chunk()?;
        self.at += N;
        Some(chunk)
    }

    fn u32(&mut self) -> Option<u32> {
        self.chunk().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.chunk().map(u64::from_le_bytes)
    }
}

struct Reader<'a> {
    path: &'a Path,
    bytes: &'a Shared,
    cursor: Cursor<'a>,
}

/// The metadata and tensors of bytes that came from `path`.
pub(super) fn parse(path: &Path, bytes: Shared) -> Result<(Metadata, Shard)> {
    let data = bytes.bytes();
    let mut reader = Reader { path, bytes: &bytes, cursor: Cursor { data, at: 0 } };
    let (tensors, keys) = reader.header()?;
    let metadata = reader.metadata(keys)?;
    let entries = reader.tensors(tensors, alignment(&metadata)?)?;
    let path = path.to_owned();
    Ok((metadata, Shard { path, bytes: bytes.clone(), entries }))
}

fn alignment(metadata: &Metadata) -> Result<usize> {
    let key = "general.alignment";
    let steps = metadata.integer(key, 0..=u32::MAX as usize)?.unwrap_or(ALIGNMENT);
    if steps.is_power_of_two() && steps >= 8 {
        return Ok(steps);
    }
    Err(metadata.bad(key, "a power of two of at least 8", "GGUF writers use 32"))
}

impl Reader<'_> {
    fn bad(&self, message: impl Into<String>) -> Error {
        Error::Gguf { path: self.path.to_owned(), message: message.into() }
    }

    /// Error: the file ends in the middle of `within`.
    fn ends(&self, within: &str) -> Error {
        let len = self.cursor.data.len();
        self.bad(format!("it ends in {within}: truncated at {len} bytes, or a length or count in it is too large"))
    }

    fn tensor(&self, name: &str, message: impl Into<String>) -> Error {
        let path = self.path.to_owned();
        Error::Tensor { path, tensor: name.into(), message: message.into(), hint: HINT }
    }

    /// The numbers of tensors and of keys.
    fn header(&mut self) -> Result<(usize, usize)> {
        let len = self.cursor.data.len();
        let Some(magic) = self.cursor.chunk::<4>() else {
            return Err(self.bad(format!("the file is too short: {len} bytes, at least 24 expected (truncated)")));
        };
        if &magic != b"GGUF" {
            if let Some(found) = sniff(self.cursor.data) {
                return Err(found.error(self.path, "a GGUF file"));
            }
            let magic = String::from_utf8_lossy(&magic).into_owned();
            return Err(self.bad(format!("not a GGUF file: its magic is {magic:?}, expected \"GGUF\"")));
        }
        match self.cursor.u32() {
            None => return Err(self.ends("the header (version)")),
            Some(2 | 3) => {}
            Some(version) if (1..=3).contains(&version.swap_bytes()) => {
                return Err(self.bad(format!(
                    "big-endian byte order (version {}); only little-endian files are supported",
                    version.swap_bytes()
                )));
            }
            Some(version) => return Err(self.bad(format!("version {version}; versions 2 and 3 are supported"))),
        }
        let (Some(tensors), Some(keys)) = (self.cursor.u64(), self.cursor.u64()) else {
            return Err(self.ends("the header"));
        };
        // a key takes at least 13 bytes, a description of a tensor 32
        let remaining = self.cursor.remaining() as u64;
        for (what, count, least) in [("keys", keys, 13), ("tensors", tensors, 32)] {
            if count > remaining / least {
                return Err(self.bad(format!("a count of {count} {what} is too large for the {remaining} bytes left")));
            }
        }
        Ok((tensors as usize, keys as usize))
    }

    /// A string: its length, and that many bytes of UTF-8.
    fn name(&mut self, what: &str) -> Result<String> {
        let range = self.cursor.u64().and_then(|len| self.cursor.take(len)).ok_or_else(|| self.ends(what))?;
        let name = std::str::from_utf8(&self.cursor.data[range]);
        name.map(str::to_owned).map_err(|e| self.bad(format!("{what} is not UTF-8: {e}")))
    }

    fn metadata(&mut self, keys: usize) -> Result<Metadata> {
        let mut values = BTreeMap::new();
        for i in 0..keys {
            let key = self.name(&format!("the name of key {i}"))?;
            let value = self.value(&key)?;
            if values.insert(key.clone(), value).is_some() {
                return Err(self.bad(format!("key {key} occurs twice (duplicate)")));
            }
        }
        Ok(Metadata { path: self.path.to_owned(), values })
    }

    fn kind(&mut self, key: &str) -> Result<Kind> {
        let id = self.cursor.u32().ok_or_else(|| self.ends(&format!("key {key}")))?;
        Kind::of(id).ok_or_else(|| self.bad(format!("key {key}: value type {id} is unknown")))
    }

    fn value(&mut self, key: &str) -> Result<Value> {
        let kind = self.kind(key)?;
        match kind {
            Kind::String => {
                let range = self.string(key)?;
                Ok(Value::String(self.share(range, key)?))
            }
            Kind::Array => self.array(key),
            _ => {
                let range = self.cursor.take(kind.least_bytes() as u64);
                let value = range.and_then(|range| kind.scalar(&self.cursor.data[range]));
                value.ok_or_else(|| self.ends(&format!("key {key}")))
            }
        }
    }

    fn share(&self, range: Range<usize>, key: &str) -> Result<Bytes> {
        Bytes::new(self.bytes.clone(), range).ok_or_else(|| self.ends(&format!("key {key}")))
    }

    fn string(&mut self, key: &str) -> Result<Range<usize>> {
        let range = self.cursor.u64().and_then(|len| self.cursor.take(len));
        range.ok_or_else(|| self.ends(&format!("key {key}, a string")))
    }

    /// Element type and number of elements, checked against the remaining bytes.
    fn array_head(&mut self, key: &str) -> Result<(Kind, usize)> {
        let kind = self.kind(key)?;
        let count = self.cursor.u64().ok_or_else(|| self.ends(&format!("key {key}, an array")))?;
        let remaining = self.cursor.remaining();
        if count > (remaining / kind.least_bytes()) as u64 {
            let message = format!("key {key}: an array length of {count} is too large for the {remaining} bytes left");
            return Err(self.bad(message + " (truncated?)"));
        }
        Ok((kind, count as usize))
    }

    /// An array; nested arrays are traversed without recursion.
    fn array(&mut self, key: &str) -> Result<Value> {
        let (kind, len) = self.array_head(key)?;
        let start = self.cursor.at;
        let mut open = vec![(kind, len)];
        while let Some((kind, left)) = open.last_mut() {
            match kind {
                _ if *left == 0 => {
                    open.pop();
                }
                Kind::String => {
                    *left -= 1;
                    self.string(key)?;
                }
                Kind::Array => {
                    *left -= 1;
                    let inner = self.array_head(key)?;
                    open.push(inner);
                }
                _ => {
                    // cannot overflow: checked against the bytes left
                    let bytes = *left * kind.least_bytes();
                    *left = 0;
                    self.cursor.take(bytes as u64).ok_or_else(|| self.ends(&format!("key {key}, an array")))?;
                }
            }
        }
        let bytes = self.share(start..self.cursor.at, key)?;
        Ok(Value::Array(Array { kind, len, bytes }))
    }

    fn tensors(&mut self, count: usize, alignment: usize) -> Result<Vec<Entry>> {
        let mut described = Vec::with_capacity(count);
        let mut names = HashSet::new();
        for i in 0..count {
            let (entry, offset) = self.description(i)?;
            if !offset.is_multiple_of(alignment as u64) {
                let message = format!("offset {offset} is no multiple of the alignment, {alignment}");
                return Err(self.tensor(&entry.name, message));
            }
            if !names.insert(entry.name.clone()) {
                return Err(self.tensor(&entry.name, "occurs twice in the file (duplicate name)"));
            }
            described.push((entry, offset));
        }
        let len = self.cursor.data.len();
        let start = self.cursor.at.checked_next_multiple_of(alignment);
        let mut entries = Vec::with_capacity(count);
        for (mut entry, offset) in described {
            let size = entry.range.len();
            let begin = usize::try_from(offset).ok().and_then(|offset| start?.checked_add(offset));
            let end = begin.and_then(|begin| begin.checked_add(size)).filter(|&end| end <= len);
            let (Some(begin), Some(end)) = (begin, end) else {
                let message =
                    format!("its {size} bytes at offset {offset} reach past the end of the file ({len} bytes)");
                return Err(self.tensor(&entry.name, message + ": truncated?"));
            };
            entry.range = begin..end;
            entries.push(entry);
        }
        no_overlap(self.path, &mut entries, HINT)?;
        Ok(entries)
    }

    /// Description of tensor `i` with the byte range `0..size`, and its offset.
    fn description(&mut self, i: usize) -> Result<(Entry, u64)> {
        let name = self.name(&format!("the name of tensor {i}"))?;
        let ends = |reader: &Self| reader.ends(&format!("the description of tensor {name}"));
        let count = self.cursor.u32().ok_or_else(|| ends(self))?;
        if !(1..=MAX_DIMENSIONS).contains(&count) {
            let message = format!("a count of {count} dimensions, expected 1 to {MAX_DIMENSIONS}");
            return Err(self.tensor(&name, message));
        }
        let mut shape = Vec::new();
        for _ in 0..count {
            let dimension = self.cursor.u64().ok_or_else(|| ends(self))?;
            match usize::try_from(dimension) {
                Ok(dimension) if dimension > 0 => shape.push(dimension),
                _ => return Err(self.tensor(&name, format!("shape: a dimension of {dimension} is out of range"))),
            }
        }
        let id = self.cursor.u32().ok_or_else(|| ends(self))?;
        let offset = self.cursor.u64().ok_or_else(|| ends(self))?;
        let Some(&(_, dtype, block, block_bytes)) = TYPES.iter().find(|(known, ..)| *known == id) else {
            return Err(self.tensor(&name, format!("type {id} is unknown or was removed from the format")));
        };
        if !shape[0].is_multiple_of(block) {
            let message = format!("rows of {} are no whole number of {dtype} blocks of {block}", shape[0]);
            return Err(self.tensor(&name, message));
        }
        let row = (shape[0] / block).checked_mul(block_bytes);
        let Some(size) = row.and_then(|row| shape[1..].iter().try_fold(row, |n, &d| n.checked_mul(d))) else {
            return Err(self.tensor(&name, format!("shape {shape:?} overflows: more bytes than can be counted")));
        };
        shape.reverse();
        Ok((Entry { name, dtype, shape, range: 0..size }, offset))
    }
}

#[cfg(test)]
mod tests {
    use super::TYPES;
    use phi3_tensor::DType;

    #[test]
    fn the_engine_s_types_are_those_of_the_format() {
        for dtype in DType::ALL {
            let (elements, bytes) = dtype.block();
            let name = dtype.name().to_uppercase();
            assert!(TYPES.contains(&(dtype.ggml_id(), &name, elements, bytes)), "{dtype}");
        }
    }
}
