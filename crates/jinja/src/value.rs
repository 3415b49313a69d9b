//! Python values used in templates.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::depth::Limit;
use crate::error::{Error, ErrorKind, Result, fail};
use crate::iterate::Lazy;
use crate::objects::Object;

/// Maximum nesting of values.
const DEEPEST: Limit = Limit::new(150, 1000);

/// Size of a list item in bytes.
pub(crate) const ITEM: usize = size_of::<Value>();

#[derive(Clone)]
pub(crate) enum Value {
    Undefined(Rc<Undefined>),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Arc<str>),
    /// Text marked as HTML.
    Markup(Arc<str>),
    Bytes(Rc<[u8]>),
    List(Rc<Sequence>),
    Tuple(Rc<Sequence>),
    /// The named tuple of `groupby`: grouper and list.
    Group(Rc<Sequence>),
    Dict(Rc<Dict>),
    View(Rc<Dict>, Part),
    Range(Rc<Range>),
    /// An iterator or a generator, whose items can be taken once.
    Iterator(Rc<Lazy>),
    Object(Object),
}

/// The part of a dictionary that a view shows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Keys,
    Values,
    Items,
}

/// A missing value. It can be printed, iterated and tested; any other use fails with its message.
pub(crate) struct Undefined {
    message: String,
    kind: ErrorKind,
}

impl Undefined {
    pub(crate) fn error(&self) -> Error {
        Error::new(self.kind, self.message.clone())
    }
}

pub(crate) struct Sequence {
    pub(crate) items: Vec<Value>,
    depth: u16,
}

pub(crate) struct Range {
    pub(crate) start: i128,
    pub(crate) stop: i128,
    pub(crate) step: i128,
}

impl Range {
    pub(crate) fn len(&self) -> u128 {
        let (low, high) = if self.step > 0 { (self.start, self.stop) } else { (self.stop, self.start) };
        if low >= high { 0 } else { (low.abs_diff(high) - 1) / self.step.unsigned_abs() + 1 }
    }

    pub(crate) fn get(&self, index: i128) -> i128 {
        self.start + index * self.step
    }
}

/// A dictionary in insertion order, with Python's equality of keys.
#[derive(Default)]
pub(crate) struct Dict {
    entries: Vec<(Value, Value)>,
    index: HashMap<Key, usize>,
    depth: u16,
}

/// A hashable value; keys are equal if the values are equal.
#[derive(PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Undefined,
    None,
    Int(i128),
    Float(u64),
    Str(Arc<str>),
    Bytes(Rc<[u8]>),
    Tuple(Vec<Key>),
    Range(i128, i128, i128),
    Identity(usize),
}

impl Key {
    pub(crate) fn of(value: &Value) -> Result<Self> {
        Ok(match value {
            Value::Undefined(_) => Self::Undefined,
            Value::None => Self::None,
            Value::Bool(flag) => Self::Int(i128::from(*flag)),
            Value::Int(number) => Self::Int(*number),
            Value::Float(number) => match float_as_int(*number) {
                Some(number) => Self::Int(number),
                None => Self::Float(number.to_bits()),
            },
            Value::Str(text) | Value::Markup(text) => Self::Str(text.clone()),
            Value::Bytes(bytes) => Self::Bytes(bytes.clone()),
            Value::Tuple(tuple) | Value::Group(tuple) => {
                Self::Tuple(tuple.items.iter().map(Self::of).collect::<Result<_>>()?)
            }
            Value::Range(range) => match range.len() {
                0 => Self::Range(0, 0, 0),
                1 => Self::Range(1, range.start, 0),
                len => Self::Range(len as i128, range.start, range.step),
            },
            Value::List(_) | Value::Dict(_) | Value::View(_, Part::Keys | Part::Items) => {
                return fail!(Type, "unhashable type: '{}'", value.type_name());
            }
            Value::View(dict, Part::Values) => Self::Identity(Rc::as_ptr(dict) as usize),
            Value::Iterator(lazy) => Self::Identity(Rc::as_ptr(lazy) as usize),
            Value::Object(object) => Self::Identity(object.identity()),
        })
    }
}

/// A float as an integer, if it is integral and fits.
pub(crate) fn float_as_int(number: f64) -> Option<i128> {
    // 2^127 and beyond do not fit
    (number.fract() == 0.0 && number.abs() < 1.7e38).then_some(number as i128)
}

impl Dict {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn entries(&self) -> &[(Value, Value)] {
        &self.entries
    }

    pub(crate) fn get(&self, key: &Value) -> Result<Option<&Value>> {
        Ok(self.index.get(&Key::of(key)?).map(|&at| &self.entries[at].1))
    }

    pub(crate) fn get_str(&self, key: &str) -> Option<&Value> {
        self.index.get(&Key::Str(key.into())).map(|&at| &self.entries[at].1)
    }

    /// Sets a key; an existing key keeps its position.
    pub(crate) fn insert(&mut self, key: Value, value: Value) -> Result<()> {
        self.depth = self.depth.max(deeper(&key)?).max(deeper(&value)?);
        let next = self.entries.len();
        match *self.index.entry(Key::of(&key)?).or_insert(next) {
            at if at == next => self.entries.push((key, value)),
            at => self.entries[at].1 = value,
        }
        Ok(())
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.index.clear();
    }
}

/// Nesting depth of a container of the value.
pub(crate) fn deeper(value: &Value) -> Result<u16> {
    let depth = value.depth();
    match DEEPEST.reached(depth.into()) {
        Some(limit) => fail!(Limit, "values are nested more than {limit} deep"),
        None => Ok(depth + 1),
    }
}

fn deepest(items: &[Value]) -> Result<u16> {
    items.iter().try_fold(1, |depth, item| Ok(depth.max(deeper(item)?)))
}

impl Value {
    pub(crate) fn undefined(message: impl Into<String>) -> Self {
        Self::Undefined(Rc::new(Undefined { message: message.into(), kind: ErrorKind::Undefined }))
    }

    /// The undefined value for an attribute that the sandbox hides.
    pub(crate) fn unsafe_attribute(of: &Self, name: &str) -> Self {
        let message = format!("access to attribute '{name}' of '{}' object is unsafe.", of.type_name());
        Self::Undefined(Rc::new(Undefined { message, kind: ErrorKind::Security }))
    }

    pub(crate) fn str(text: impl AsRef<str>) -> Self {
        Self::Str(Arc::from(text.as_ref()))
    }

    pub(crate) fn list(items: Vec<Self>) -> Result<Self> {
        Ok(Self::List(Self::sequence(items)?))
    }

    pub(crate) fn tuple(items: Vec<Self>) -> Result<Self> {
        Ok(Self::Tuple(Self::sequence(items)?))
    }

    pub(crate) fn sequence(items: Vec<Self>) -> Result<Rc<Sequence>> {
        let depth = deepest(&items)?;
        Ok(Rc::new(Sequence { items, depth }))
    }

    pub(crate) fn dict(dict: Dict) -> Self {
        Self::Dict(Rc::new(dict))
    }

    fn depth(&self) -> u16 {
        match self {
            Self::List(list) | Self::Tuple(list) | Self::Group(list) => list.depth,
            Self::Dict(dict) | Self::View(dict, _) => dict.depth,
            Self::Iterator(lazy) => lazy.depth(),
            Self::Object(object) => object.depth(),
            _ => 0,
        }
    }

    /// The text of a `Str` or a `Markup`.
    pub(crate) fn as_str(&self) -> Option<&str> {
        self.as_text().map(|text| &**text)
    }

    pub(crate) fn as_text(&self) -> Option<&Arc<str>> {
        match self {
            Self::Str(text) | Self::Markup(text) => Some(text),
            _ => None,
        }
    }

    /// An integer; booleans are integers.
    pub(crate) fn as_int(&self) -> Option<i128> {
        match self {
            Self::Int(number) => Some(*number),
            Self::Bool(flag) => Some(i128::from(*flag)),
            _ => None,
        }
    }

    pub(crate) fn as_float(&self) -> Option<f64> {
        match self {
            Self::Float(number) => Some(*number),
            other => other.as_int().map(|number| number as f64),
        }
    }

    /// Items of a list or a tuple.
    pub(crate) fn as_items(&self) -> Option<&[Self]> {
        match self {
            Self::List(list) | Self::Tuple(list) | Self::Group(list) => Some(&list.items),
            _ => None,
        }
    }

    pub(crate) fn is_undefined(&self) -> bool {
        matches!(self, Self::Undefined(_))
    }

    /// An error if the value is undefined.
    pub(crate) fn defined(&self) -> Result<()> {
        match self {
            Self::Undefined(undefined) => Err(undefined.error()),
            _ => Ok(()),
        }
    }

    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Undefined(_) => "Undefined",
            Self::None => "NoneType",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Str(_) => "str",
            Self::Markup(_) => "Markup",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Group(_) => "_GroupTuple",
            Self::Dict(_) => "dict",
            Self::View(_, Part::Keys) => "dict_keys",
            Self::View(_, Part::Values) => "dict_values",
            Self::View(_, Part::Items) => "dict_items",
            Self::Range(_) => "range",
            Self::Iterator(lazy) => lazy.name(),
            Self::Object(object) => object.type_name(),
        }
    }

    /// Whether both are the same object.
    pub(crate) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::None, Self::None) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits(),
            (Self::Undefined(a), Self::Undefined(b)) => Rc::ptr_eq(a, b),
            // in Python, equal strings of one character are one object
            (Self::Str(a), Self::Str(b)) => Arc::ptr_eq(a, b) || a == b && a.chars().nth(1).is_none(),
            (Self::Markup(a), Self::Markup(b)) => Arc::ptr_eq(a, b),
            (Self::Bytes(a), Self::Bytes(b)) => Rc::ptr_eq(a, b),
            (Self::List(a), Self::List(b)) | (Self::Group(a), Self::Group(b)) => Rc::ptr_eq(a, b),
            (Self::Tuple(a), Self::Tuple(b)) => Rc::ptr_eq(a, b) || a.items.is_empty() && b.items.is_empty(),
            (Self::Dict(a), Self::Dict(b)) => Rc::ptr_eq(a, b),
            (Self::Range(a), Self::Range(b)) => Rc::ptr_eq(a, b),
            (Self::Iterator(a), Self::Iterator(b)) => Rc::ptr_eq(a, b),
            (Self::Object(a), Self::Object(b)) => a.identity() == b.identity(),
            _ => false,
        }
    }

    /// Converts JSON to Python values.
    pub(crate) fn from_json(json: &serde_json::Value) -> Result<Self> {
        use serde_json::Value as Json;
        Ok(match json {
            Json::Null => Self::None,
            Json::Bool(flag) => Self::Bool(*flag),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(number), _) => Self::Int(number.into()),
                (None, Some(number)) => Self::Int(number.into()),
                (None, None) => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Self::str(text),
            Json::Array(items) => Self::list(items.iter().map(Self::from_json).collect::<Result<_>>()?)?,
            Json::Object(map) => {
                let mut dict = Dict::default();
                for (key, value) in map {
                    dict.insert(Self::str(key), Self::from_json(value)?)?;
                }
                Self::dict(dict)
            }
        })
    }
}
