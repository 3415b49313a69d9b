//! Values as text: `str`, `repr` and escaping.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::error::Result;
use crate::format::float_repr;
use crate::unicode;
use crate::value::{Part, Value};
use crate::vm::Vm;

impl Vm {
    /// Python's `str(value)`.
    pub(crate) fn str(&mut self, value: &Value) -> Result<Arc<str>> {
        match value {
            Value::Undefined(_) => Ok("".into()),
            Value::Str(text) | Value::Markup(text) => Ok(text.clone()),
            other => Ok(self.repr(other)?.into()),
        }
    }

    /// `str(value)`, except that `Markup` stays `Markup`.
    pub(crate) fn soft_str(&mut self, value: &Value) -> Result<Value> {
        match value {
            Value::Str(_) | Value::Markup(_) => Ok(value.clone()),
            other => Ok(Value::Str(self.str(other)?)),
        }
    }

    /// Python's `repr(value)`.
    pub(crate) fn repr(&mut self, value: &Value) -> Result<String> {
        let mut out = String::new();
        self.write_repr(value, &mut out)?;
        Ok(out)
    }

    fn write_repr(&mut self, value: &Value, out: &mut String) -> Result<()> {
        let start = out.len();
        self.budget.step()?;
        match value {
            Value::Undefined(_) => out.push_str("Undefined"),
            Value::None => out.push_str("None"),
            Value::Bool(flag) => out.push_str(if *flag { "True" } else { "False" }),
            Value::Int(number) => out.push_str(&number.to_string()),
            Value::Float(number) => out.push_str(&float_repr(*number)),
            Value::Str(text) => quote(text, out),
            Value::Markup(text) => {
                out.push_str("Markup(");
                quote(text, out);
                out.push(')');
            }
            Value::Bytes(bytes) => quote_bytes(bytes, out),
            Value::List(list) => self.write_items("[", &list.items, "]", out)?,
            Value::Tuple(tuple) | Value::Group(tuple) => {
                let close = if tuple.items.len() == 1 { ",)" } else { ")" };
                self.write_items("(", &tuple.items, close, out)?;
            }
            Value::Dict(dict) => {
                out.push('{');
                for (i, (key, value)) in dict.entries().iter().enumerate() {
                    out.push_str(if i == 0 { "" } else { ", " });
                    self.write_repr(key, out)?;
                    out.push_str(": ");
                    self.write_repr(value, out)?;
                }
                out.push('}');
            }
            Value::View(dict, part) => {
                let entries = dict.entries().iter();
                let items: Vec<Value> = match part {
                    Part::Keys => entries.map(|(key, _)| key.clone()).collect(),
                    Part::Values => entries.map(|(_, value)| value.clone()).collect(),
                    Part::Items => entries
                        .map(|(key, value)| Value::tuple(vec![key.clone(), value.clone()]))
                        .collect::<Result<_>>()?,
                };
                self.write_items(&format!("{}([", value.type_name()), &items, "])", out)?;
            }
            Value::Range(range) => {
                let _ = match range.step {
                    1 => write!(out, "range({}, {})", range.start, range.stop),
                    step => write!(out, "range({}, {}, {step})", range.start, range.stop),
                };
            }
            Value::Iterator(lazy) => out.push_str(&lazy.repr()),
            Value::Object(object) => {
                self.budget.enter()?;
                out.push_str(&object.repr(self)?);
                self.budget.leave();
            }
        }
        // nested values were charged separately as well, which bounds depth times length
        self.budget.charge(out.len() - start)
    }

    fn write_items(&mut self, open: &str, items: &[Value], close: &str, out: &mut String) -> Result<()> {
        out.push_str(open);
        for (i, item) in items.iter().enumerate() {
            out.push_str(if i == 0 { "" } else { ", " });
            self.write_repr(item, out)?;
        }
        out.push_str(close);
        Ok(())
    }

    /// The text, escaped for HTML unless it is `Markup`.
    pub(crate) fn escape(&mut self, value: &Value) -> Result<Arc<str>> {
        if let Value::Markup(text) = value {
            return Ok(text.clone());
        }
        let text = self.str(value)?;
        if !text.contains(['&', '<', '>', '\'', '"']) {
            return Ok(text);
        }
        self.budget.charge(text.len())?;
        let mut out = String::with_capacity(text.len() + 16);
        for char in text.chars() {
            match char {
                '&' => out.push_str("&amp;"),
                '<' => out.push_str("&lt;"),
                '>' => out.push_str("&gt;"),
                '\'' => out.push_str("&#39;"),
                '"' => out.push_str("&#34;"),
                other => out.push(other),
            }
        }
        self.budget.charge(out.len() - text.len())?;
        Ok(out.into())
    }
}

/// Python's `repr` of a string.
fn quote(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for char in text.chars() {
        match char {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            char if char == quote => out.extend(['\\', char]),
            char if unicode::is_printable(char) => out.push(char),
            char => push_escape(char, out),
        }
    }
    out.push(quote);
}

pub(crate) fn push_escape(char: char, out: &mut String) {
    let _ = match u32::from(char) {
        code @ 0..=0xFF => write!(out, "\\x{code:02x}"),
        code @ 0x100..=0xFFFF => write!(out, "\\u{code:04x}"),
        code => write!(out, "\\U{code:08x}"),
    };
}

/// Python's `ascii(value)`, from its `repr`.
pub(crate) fn to_ascii(repr: &str) -> String {
    let mut out = String::with_capacity(repr.len());
    for char in repr.chars() {
        if char.is_ascii() { out.push(char) } else { push_escape(char, &mut out) }
    }
    out
}

fn quote_bytes(bytes: &[u8], out: &mut String) {
    let quote = if bytes.contains(&b'\'') && !bytes.contains(&b'"') { b'"' } else { b'\'' };
    out.push('b');
    out.push(quote.into());
    for &byte in bytes {
        match byte {
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            byte if byte == quote => out.extend(['\\', byte.into()]),
            0x20..=0x7E => out.push(byte.into()),
            byte => {
                let _ = write!(out, "\\x{byte:02x}");
            }
        }
    }
    out.push(quote.into());
}
