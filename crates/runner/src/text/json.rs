use std::io;

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{Formatter, PrettyFormatter};

/// Python's `json.dumps(value, ensure_ascii=False, indent=indent)`, as the `tojson` of chat templates is defined.
pub(super) fn dumps(value: &Value, indent: Option<usize>) -> serde_json::Result<String> {
    let mut out = Vec::new();
    match indent {
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, OneLine))?,
        Some(width) => {
            let indent = " ".repeat(width.min(16));
            let formatter = PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter))?;
        }
    }
    String::from_utf8(out).map_err(serde::ser::Error::custom)
}

/// Sorts the keys of all objects, as `sort_keys=True` does.
pub(super) fn sort_keys(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(sort_keys),
        Value::Object(map) => {
            map.sort_keys();
            map.values_mut().for_each(sort_keys);
        }
        _ => {}
    }
}

/// What an error says was found where something else was expected.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// `", "` and `": "`, Python's separators.
struct OneLine;

impl Formatter for OneLine {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dumps_as_python_does() {
        let mut value = serde_json::json!({"b": [1, 2.5, null, true], "a": {"<ü>": "\n\""}, "c": {}});
        assert_eq!(dumps(&value, None).unwrap(), r#"{"b": [1, 2.5, null, true], "a": {"<ü>": "\n\""}, "c": {}}"#);
        sort_keys(&mut value);
        assert_eq!(
            dumps(&value, Some(1)).unwrap(),
            "{\n \"a\": {\n  \"<ü>\": \"\\n\\\"\"\n },\n \"b\": [\n  1,\n  2.5,\n  null,\n  true\n ],\n \"c\": {}\n}"
        );
    }
}
