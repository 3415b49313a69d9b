//! Metadata of a GGUF file: typed values, with strings and arrays not copied, and typed errors.

use crate::{Error, Result};
use phi3_tensor::Bytes;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// Type of a metadata value, by its number in the file (`gguf_metadata_value_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl Kind {
    const ALL: [Kind; 13] = [
        Kind::U8,
        Kind::I8,
        Kind::U16,
        Kind::I16,
        Kind::U32,
        Kind::I32,
        Kind::F32,
        Kind::Bool,
        Kind::String,
        Kind::Array,
        Kind::U64,
        Kind::I64,
        Kind::F64,
    ];

    pub(crate) fn of(id: u32) -> Option<Self> {
        Self::ALL.get(id as usize).copied()
    }

    /// Size of a value in bytes; of strings and arrays, the least size.
    pub(crate) fn least_bytes(self) -> usize {
        match self {
            Kind::U8 | Kind::I8 | Kind::Bool => 1,
            Kind::U16 | Kind::I16 => 2,
            Kind::U32 | Kind::I32 | Kind::F32 => 4,
            Kind::U64 | Kind::I64 | Kind::F64 | Kind::String => 8,
            Kind::Array => 12,
        }
    }

    /// A number or boolean from its bytes; `None` for strings, arrays and too few bytes.
    pub(crate) fn scalar(self, bytes: &[u8]) -> Option<Value> {
        Some(match self {
            Kind::U8 => Value::Unsigned(u64::from(*bytes.first()?)),
            Kind::I8 => Value::Signed(i64::from(*bytes.first()? as i8)),
            Kind::U16 => Value::Unsigned(u64::from(u16::from_le_bytes(*bytes.first_chunk()?))),
            Kind::I16 => Value::Signed(i64::from(i16::from_le_bytes(*bytes.first_chunk()?))),
            Kind::U32 => Value::Unsigned(u64::from(u32::from_le_bytes(*bytes.first_chunk()?))),
            Kind::I32 => Value::Signed(i64::from(i32::from_le_bytes(*bytes.first_chunk()?))),
            Kind::F32 => Value::Float(f64::from(f32::from_le_bytes(*bytes.first_chunk()?))),
            Kind::Bool => Value::Bool(*bytes.first()? != 0),
            Kind::U64 => Value::Unsigned(u64::from_le_bytes(*bytes.first_chunk()?)),
            Kind::I64 => Value::Signed(i64::from_le_bytes(*bytes.first_chunk()?)),
            Kind::F64 => Value::Float(f64::from_le_bytes(*bytes.first_chunk()?)),
            Kind::String | Kind::Array => return None,
        })
    }
}

/// A metadata value. Whole numbers and floating-point numbers of every width are one kind each.
#[derive(Clone)]
pub(crate) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    /// Not checked to be UTF-8.
    String(Bytes),
    Array(Array),
}

/// An array in the file's layout.
#[derive(Clone)]
pub(crate) struct Array {
    pub(crate) kind: Kind,
    pub(crate) len: usize,
    /// The elements, checked to be complete.
    pub(crate) bytes: Bytes,
}

impl Value {
    /// Short form for errors.
    fn shown(&self) -> String {
        match self {
            Value::Unsigned(n) => n.to_string(),
            Value::Signed(n) => n.to_string(),
            Value::Float(x) => x.to_string(),
            Value::Bool(b) => b.to_string(),
            Value::String(bytes) => {
                let text = String::from_utf8_lossy(bytes);
                format!("the string {:?}", text.chars().take(40).collect::<String>())
            }
            Value::Array(array) => format!("an array of {} elements", array.len),
        }
    }

    fn integer(&self) -> Option<u64> {
        match *self {
            Value::Unsigned(n) => Some(n),
            Value::Signed(n) => u64::try_from(n).ok(),
            _ => None,
        }
    }
}

/// Keys and values of a GGUF file; errors name the file and the key.
#[derive(Clone)]
pub struct Metadata {
    pub(crate) path: PathBuf,
    pub(crate) values: BTreeMap<String, Value>,
}

const HINT: &str =
    "the file may be damaged, made by an old converter, or have a wrong general.architecture; fetch it again";

impl Metadata {
    /// The file, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of all keys, in alphabetical order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// An error about a key.
    pub(crate) fn bad(&self, key: &str, expected: impl Into<String>, hint: &'static str) -> Error {
        let found = self.values.get(key).map_or("nothing: the key is missing".into(), Value::shown);
        Error::Field { path: self.path.clone(), field: key.into(), expected: expected.into(), found, hint }
    }

    fn read<T>(&self, key: &str, expected: &str, take: impl Fn(&Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        take(value).map(Some).ok_or_else(|| self.bad(key, expected, HINT))
    }

    /// A whole number in `range`, of any width; `None` where the key is absent.
    ///
    /// # Errors
    /// The value is of another type or outside the range.
    pub fn integer(&self, key: &str, range: RangeInclusive<usize>) -> Result<Option<usize>> {
        let expected = format!("a whole number (type u32) from {} to {}", range.start(), range.end());
        self.read(key, &expected, |value| usize::try_from(value.integer()?).ok().filter(|n| range.contains(n)))
    }

    /// A whole number in `range`, or an array with the same number for every layer; `None` where the key is absent.
    ///
    /// # Errors
    /// Those of [`integer`](Self::integer), and numbers that differ between layers.
    pub fn of_layers(&self, key: &str, range: RangeInclusive<usize>) -> Result<Option<usize>> {
        let expected = format!("a whole number from {} to {}, the same for all layers", range.start(), range.end());
        self.read(key, &expected, |value| {
            let number = match scalars(value, |value| value.integer()) {
                Some(list) => list.first().copied().filter(|first| list.iter().all(|other| other == first)),
                None => value.integer(),
            };
            usize::try_from(number?).ok().filter(|n| range.contains(n))
        })
    }

    /// [`of_layers`](Self::of_layers) of a required key.
    ///
    /// # Errors
    /// The key is missing, and those of [`of_layers`](Self::of_layers).
    pub fn required_of_layers(&self, key: &str, range: RangeInclusive<usize>) -> Result<usize> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        self.of_layers(key, range)?.ok_or_else(|| self.bad(key, expected, HINT))
    }

    /// [`integer`](Self::integer) of a required key.
    ///
    /// # Errors
    /// The key is missing, and those of [`integer`](Self::integer).
    pub fn required(&self, key: &str, range: RangeInclusive<usize>) -> Result<usize> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        self.integer(key, range)?.ok_or_else(|| self.bad(key, expected, HINT))
    }

    /// A finite number greater than zero; `None` where the key is absent.
    ///
    /// # Errors
    /// The value is of another type, not finite, zero or negative.
    pub fn positive(&self, key: &str) -> Result<Option<f32>> {
        self.read(key, "a number (type f32) greater than 0", |value| match value {
            Value::Float(x) => Some(*x as f32).filter(|x| x.is_normal() && *x > 0.0),
            _ => None,
        })
    }

    /// A finite number of at least zero, of any numeric type; `None` where the key is absent.
    ///
    /// # Errors
    /// The value is of another type, not finite or negative.
    pub fn amount(&self, key: &str) -> Result<Option<f32>> {
        self.read(key, "a number of at least 0", |value| {
            let number = match value {
                Value::Float(x) => *x as f32,
                Value::Unsigned(n) => *n as f32,
                Value::Signed(n) => *n as f32,
                _ => return None,
            };
            Some(number).filter(|x| x.is_finite() && *x >= 0.0)
        })
    }

    /// A whole number that may be negative; `None` where the key is absent.
    ///
    /// # Errors
    /// The value is of another type or out of range.
    pub fn whole(&self, key: &str) -> Result<Option<i64>> {
        self.read(key, "a whole number", |value| match value {
            Value::Unsigned(n) => i64::try_from(*n).ok(),
            Value::Signed(n) => Some(*n),
            _ => None,
        })
    }

    /// True or false; `None` where the key is absent.
    ///
    /// # Errors
    /// The value is of another type.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>> {
        self.read(key, "true or false (type bool)", |value| match value {
            Value::Bool(b) => Some(*b),
            _ => None,
        })
    }

    /// A string; `None` where the key is absent.
    ///
    /// # Errors
    /// The value is of another type or not UTF-8.
    pub fn string(&self, key: &str) -> Result<Option<String>> {
        self.read(key, "a string of UTF-8", |value| match value {
            Value::String(bytes) => String::from_utf8(bytes.to_vec()).ok(),
            _ => None,
        })
    }

    /// An array of strings; `None` where the key is absent.
    ///
    /// # Errors
    /// The value is of another type, or one of its strings is not UTF-8.
    pub fn strings(&self, key: &str) -> Result<Option<Vec<String>>> {
        self.read(key, "an array of strings of UTF-8", |value| {
            let Value::Array(Array { kind: Kind::String, len, bytes }) = value else { return None };
            let mut rest: &[u8] = bytes;
            (0..*len)
                .map(|_| {
                    let (length, after) = rest.split_first_chunk::<8>()?;
                    let (text, after) = after.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
                    rest = after;
                    String::from_utf8(text.to_vec()).ok()
                })
                .collect()
        })
    }

    /// An array of floating-point numbers; `None` where the key is absent.
    ///
    /// # Errors
    /// The value is of another type.
    pub fn floats(&self, key: &str) -> Result<Option<Vec<f32>>> {
        self.read(key, "an array of numbers (type f32)", |value| {
            scalars(value, |value| if let Value::Float(x) = value { Some(x as f32) } else { None })
        })
    }

    /// An array of whole numbers; `None` where the key is absent.
    ///
    /// # Errors
    /// The value is of another type.
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i64>>> {
        self.read(key, "an array of whole numbers (type i32)", |value| {
            scalars(value, |value| match value {
                Value::Unsigned(n) => i64::try_from(n).ok(),
                Value::Signed(n) => Some(n),
                _ => None,
            })
        })
    }
}

fn scalars<T>(value: &Value, take: impl Fn(Value) -> Option<T>) -> Option<Vec<T>> {
    let Value::Array(array) = value else { return None };
    array.bytes.chunks_exact(array.kind.least_bytes()).map(|bytes| take(array.kind.scalar(bytes)?)).collect()
}
