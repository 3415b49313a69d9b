//! Preparation of JSON schemas: limits, parts that llguidance would not enforce exactly, and its options.

use super::error::ConstraintError;
use super::grammar::GrammarKind;
use serde_json::{Map, Value, json};
use std::collections::HashSet;

/// Longest schema in bytes of compact JSON, about twice OpenAI's limit.
const MOST_BYTES: usize = 1 << 18;

/// Deepest nesting of arrays and objects: that of serde_json's parser.
const MOST_LEVELS: usize = 128;

/// Most levels of nesting in all, if every definition that is referred to had the deepest. llguidance's compiler is recursive, and
/// enters a definition where it is first referred to.
const MOST_RECURSION: usize = 1 << 13;

/// Longest `pattern` in bytes: see the limit of regular expressions. A schema may have a hundred of them.
const MOST_PATTERN: usize = 2 << 10;

/// Largest whole number that is exact in llguidance, which computes with f64.
const MOST_EXACT: u64 = 1 << 53;

/// The key of llguidance's options in a schema.
const OPTIONS: &str = "x-guidance";

/// Keywords whose numbers have to be exact.
const NUMBERS: [&str; 7] =
    ["const", "enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"];

/// The schema of any object.
pub(super) fn any_object() -> Value {
    with_options(Map::from_iter([("type".to_owned(), json!("object"))]))
}

/// A schema as llguidance gets it.
pub(super) fn prepared(schema: &Value) -> Result<Value, ConstraintError> {
    let object = match schema {
        Value::Object(object) => object,
        Value::Bool(true) => return Ok(with_options(Map::new())),
        Value::Bool(false) => {
            return Err(refused("nothing is valid by `false`", "give a schema that allows something"));
        }
        _ => return Err(refused("expected an object, found another value", "write {\"type\": …}")),
    };
    let too_large = |unit, most, found| ConstraintError::TooLarge { kind: GrammarKind::JsonSchema, unit, most, found };
    let levels = levels(schema, MOST_LEVELS);
    if levels > MOST_LEVELS {
        return Err(too_large("levels of nesting", MOST_LEVELS, levels));
    }
    let bytes = schema.to_string().len();
    if bytes > MOST_BYTES {
        return Err(too_large("bytes", MOST_BYTES, bytes));
    }
    if object.contains_key(OPTIONS) {
        return Err(refused("`x-guidance` is not supported", "leave it out"));
    }
    let mut parts = Parts::default();
    parts.check(object, true)?;
    let recursion = levels * (parts.references.len() + 1);
    if recursion > MOST_RECURSION {
        return Err(too_large("levels of nesting in all definitions", MOST_RECURSION, recursion));
    }
    if parts.longest_pattern > MOST_PATTERN {
        return Err(too_large("bytes of `pattern`", MOST_PATTERN, parts.longest_pattern));
    }
    if parts.has_inner_id && !parts.references.is_empty() {
        return Err(refused("`$id` inside a schema with `$ref` is not supported", "leave `$id` out"));
    }
    Ok(with_options(object.clone()))
}

/// Adds llguidance's options. Spaces are fixed: a model that may repeat white space sometimes does so without end. One space
/// after a comma and a colon is what `json.dumps` writes, and so what models have read most.
fn with_options(mut schema: Map<String, Value>) -> Value {
    // without \\u escapes, in which a free name could be spelled like a known one
    let escapes = "nrbtf\\\"";
    let options = json!({
        "item_separator": ", ", "key_separator": ": ", "whitespace_flexible": false, "json_allowed_escapes": escapes,
    });
    schema.insert(OPTIONS.to_owned(), options);
    Value::Object(schema)
}

fn refused(reason: impl Into<String>, hint: &'static str) -> ConstraintError {
    ConstraintError::Refused { kind: GrammarKind::JsonSchema, reason: reason.into(), hint }
}

/// Levels of nesting; those beyond `most` are not counted.
fn levels(value: &Value, most: usize) -> usize {
    let inner = |value| if most == 0 { 0 } else { levels(value, most - 1) };
    match value {
        Value::Array(items) => 1 + items.iter().map(inner).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(inner).max().unwrap_or(0),
        _ => 0,
    }
}

/// Parts of a schema, found in all of its objects: any of them may be the target of a `$ref`.
#[derive(Default)]
struct Parts<'a> {
    references: HashSet<&'a str>,
    longest_pattern: usize,
    has_inner_id: bool,
}

impl<'a> Parts<'a> {
    fn check(&mut self, object: &'a Map<String, Value>, is_root: bool) -> Result<(), ConstraintError> {
        self.references.extend(object.get("$ref").and_then(Value::as_str));
        let patterns = object.get("patternProperties").and_then(Value::as_object).into_iter().flat_map(Map::keys);
        let patterns = patterns.map(String::as_str).chain(object.get("pattern").and_then(Value::as_str));
        self.longest_pattern = patterns.map(str::len).fold(self.longest_pattern, usize::max);
        self.has_inner_id |= !is_root && object.get("$id").is_some_and(Value::is_string);
        check_min_properties(object)?;
        for (key, value) in object {
            if (key == "const" || key == "enum") && has_control_character(value) || is_control_character(key) {
                let reason = format!("`{key}` has a control character that needs a \\u escape");
                return Err(refused(reason, "leave the character out"));
            }
            if NUMBERS.contains(&key.as_str())
                && let Some(number) = inexact(value)
            {
                let reason = format!("`{key}` has {number}, and whole numbers are exact up to {MOST_EXACT} only");
                return Err(refused(reason, "give a smaller number, or a string"));
            }
            self.check_inside(value)?;
        }
        Ok(())
    }

    fn check_inside(&mut self, value: &'a Value) -> Result<(), ConstraintError> {
        match value {
            Value::Object(object) => self.check(object, false),
            Value::Array(items) => items.iter().try_for_each(|item| self.check_inside(item)),
            _ => Ok(()),
        }
    }
}

/// `minProperties` counts members, and a grammar cannot tell whether free names are distinct.
fn check_min_properties(object: &Map<String, Value>) -> Result<(), ConstraintError> {
    let Some(least) = object.get("minProperties").and_then(Value::as_u64) else { return Ok(()) };
    let required = object.get("required").and_then(Value::as_array);
    let required: HashSet<&str> = required.into_iter().flatten().filter_map(Value::as_str).collect();
    if least <= required.len() as u64 + 1 {
        return Ok(());
    }
    let reason = format!("`minProperties` {least} is more than the required members and one");
    Err(refused(reason, "name the members in `required`"))
}

/// Whether a text of a value has a control character without an escape of its own, such as `\n`.
fn has_control_character(value: &Value) -> bool {
    match value {
        Value::String(text) => is_control_character(text),
        Value::Array(items) => items.iter().any(has_control_character),
        Value::Object(members) => {
            members.iter().any(|(key, value)| is_control_character(key) || has_control_character(value))
        }
        _ => false,
    }
}

fn is_control_character(text: &str) -> bool {
    text.chars().any(|c| c.is_ascii_control() && !"\n\r\t\u{8}\u{c}".contains(c))
}

/// A whole number that f64 may not hold exactly.
fn inexact(value: &Value) -> Option<String> {
    match value {
        Value::Number(number) => {
            let whole = number.as_u64().or_else(|| number.as_i64().map(i64::unsigned_abs));
            whole.filter(|whole| *whole > MOST_EXACT).map(|_| number.to_string())
        }
        Value::Array(items) => items.iter().find_map(inexact),
        Value::Object(members) => members.values().find_map(inexact),
        _ => None,
    }
}
