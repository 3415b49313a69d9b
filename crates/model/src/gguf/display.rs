//! Metadata as text and as JSON.

use super::value::{Array, Kind, Metadata, Value};
use serde_json::{Number, json};

/// Longest array that is shown whole, in elements; of a longer one the first [`FIRST`] elements are shown.
const WHOLE: usize = 256;
const FIRST: usize = 16;

/// Longest array and string on one line, in elements and in characters.
const ON_A_LINE: usize = 8;
const CHARACTERS: usize = 60;

impl Metadata {
    /// A key's value: a number, a boolean, a string or an array. A long array becomes an object with its `type`, its `length` and
    /// its `first` values. Null for an absent key and for numbers that JSON cannot hold (NaN, infinity).
    pub fn json(&self, key: &str) -> serde_json::Value {
        self.values.get(key).map_or(serde_json::Value::Null, Value::json)
    }

    /// A key's value on one line, long strings and arrays cut short.
    pub fn display(&self, key: &str) -> String {
        match self.values.get(key) {
            None => String::new(),
            Some(Value::Array(array)) => {
                let first: Vec<String> = array.first(ON_A_LINE).iter().map(line).collect();
                let dots = if array.len > first.len() { ", …" } else { "" };
                format!("[{}{dots}] ({} values, {})", first.join(", "), array.len, array.kind.name())
            }
            Some(value) => line(&value.json()),
        }
    }
}

/// A value on one line: control characters are escaped, and a long string is cut short.
fn line(value: &serde_json::Value) -> String {
    let Some(text) = value.as_str() else { return value.to_string() };
    let mut line = String::new();
    for c in text.chars().take(CHARACTERS) {
        match c.is_control() {
            true => line.extend(c.escape_default()),
            false => line.push(c),
        }
    }
    if text.chars().nth(CHARACTERS).is_some() {
        line.push('…');
    }
    line
}

impl Value {
    fn json(&self) -> serde_json::Value {
        match self {
            Value::Unsigned(n) => (*n).into(),
            Value::Signed(n) => (*n).into(),
            Value::Float(x) => Number::from_f64(shortest(*x)).map_or(serde_json::Value::Null, Into::into),
            Value::Bool(b) => (*b).into(),
            Value::String(bytes) => String::from_utf8_lossy(bytes).into(),
            Value::Array(array) if array.kind != Kind::Array && array.len <= WHOLE => array.first(WHOLE).into(),
            Value::Array(array) => {
                json!({ "type": array.kind.name(), "length": array.len, "first": array.first(FIRST) })
            }
        }
    }
}

/// A number that f32 holds exactly, by its shortest decimal digits: 1e-5, not 9.99999974737875e-6. Others are unchanged.
fn shortest(x: f64) -> f64 {
    let single = x as f32;
    if f64::from(single) == x { single.to_string().parse().unwrap_or(x) } else { x }
}

impl Array {
    /// The first `most` elements; none of an array of arrays.
    fn first(&self, most: usize) -> Vec<serde_json::Value> {
        let count = self.len.min(most);
        match self.kind {
            Kind::Array => Vec::new(),
            Kind::String => {
                let mut rest: &[u8] = &self.bytes;
                let mut next = || {
                    let (length, after) = rest.split_first_chunk::<8>()?;
                    let (text, after) = after.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
                    rest = after;
                    Some(String::from_utf8_lossy(text).into())
                };
                (0..count).map_while(|_| next()).collect()
            }
            kind => {
                let elements = self.bytes.chunks_exact(kind.least_bytes()).take(count);
                elements.filter_map(|bytes| Some(kind.scalar(bytes)?.json())).collect()
            }
        }
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::U8 => "u8",
            Kind::I8 => "i8",
            Kind::U16 => "u16",
            Kind::I16 => "i16",
            Kind::U32 => "u32",
            Kind::I32 => "i32",
            Kind::F32 => "f32",
            Kind::Bool => "bool",
            Kind::String => "string",
            Kind::Array => "array",
            Kind::U64 => "u64",
            Kind::I64 => "i64",
            Kind::F64 => "f64",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use phi3_tensor::Bytes;
    use std::sync::Arc;

    fn bytes(data: Vec<u8>) -> Bytes {
        let len = data.len();
        Bytes::new(Arc::new(data), 0..len).unwrap()
    }

    #[test]
    fn values_have_their_types_and_long_arrays_their_first_elements() {
        let string = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
        let strings = |count: usize| Array {
            kind: Kind::String,
            len: count,
            bytes: bytes((0..count).flat_map(|i| string(&format!("t{i}"))).collect()),
        };
        let floats = Array { kind: Kind::F32, len: 2, bytes: bytes([1.5f32, 1e-5].map(f32::to_le_bytes).concat()) };
        let values = [
            ("a", Value::Unsigned(15)),
            ("b", Value::Float(f64::from(1e-5f32))),
            ("c", Value::String(bytes("phi3\n".into()))),
            ("d", Value::Array(strings(2))),
            ("e", Value::Array(strings(300))),
            ("f", Value::Bool(true)),
            ("g", Value::Float(f64::NAN)),
            ("h", Value::Array(floats)),
        ];
        let values = values.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let metadata = Metadata { path: "x.gguf".into(), values };
        assert_eq!((metadata.json("a"), metadata.json("b")), (15.into(), 1e-5.into()));
        assert_eq!((metadata.json("c"), metadata.json("d")), ("phi3\n".into(), json!(["t0", "t1"])));
        assert_eq!(metadata.json("e")["length"], 300);
        assert_eq!(metadata.json("e")["first"].as_array().map(Vec::len), Some(FIRST));
        assert_eq!((metadata.json("f"), metadata.json("g")), (true.into(), serde_json::Value::Null));
        assert_eq!(metadata.json("h"), json!([1.5, 1e-5]));
        assert_eq!((metadata.display("a"), metadata.display("c")), ("15".into(), "phi3\\n".into()));
        assert_eq!(metadata.display("d"), "[t0, t1] (2 values, string)");
        assert!(metadata.display("e").ends_with("t7, …] (300 values, string)"));
    }
}
