//! JSON schemas.

use super::*;
use serde_json::{Value, json};

fn schema(value: &Value) -> Grammar {
    Grammar::JsonSchema(value.clone())
}

#[test]
fn values_of_schemas_are_accepted_in_their_spacing() {
    let person = schema(&json!({
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}, "tags": {"type": "array", "items": {"enum": ["a", "b"]}}},
        "required": ["name", "age"],
        "additionalProperties": false,
    }));
    for text in [
        r#"{"name": "Ann", "age": 7}"#,
        r#"{"name": "\n", "age": 0, "tags": []}"#,
        r#"{"name": "", "age": 10, "tags": ["a", "b"]}"#,
    ] {
        assert!(matches(&person, text), "{text}");
    }
    for text in [
        r#"{"name":"Ann","age":7}"#,
        r#"{ "name": "Ann", "age": 7}"#,
        r#"{"age": 7, "name": "Ann"}"#,
        r#"{"name": "Ann"}"#,
        r#"{"name": "Ann", "age": -1}"#,
        r#"{"name": "Ann", "age": 7, "x": 1}"#,
        r#"{"name": "Ann", "age": 7, "tags": ["c"]}"#,
        r#"{"name": "Ann", "age": 7} "#,
    ] {
        assert!(!matches(&person, text), "{text}");
    }
    assert!(matches(&Grammar::JsonObject, r#"{"a": [1, {"b": null}]}"#) && !matches(&Grammar::JsonObject, "[1]"));
    assert!(matches(&schema(&json!(true)), "[1, 2]"));
    let list = schema(
        &json!({"$ref": "#/$defs/list", "$defs": {"list": {"anyOf": [{"type": "null"}, {"type": "array", "items": {"$ref": "#/$defs/list"}}]}}}),
    );
    assert!(matches(&list, "[null, [[], null]]") && !matches(&list, "[1]"));
}

/// A free name must not be a known one in other letters.
#[test]
fn names_have_one_spelling() {
    let grammar = schema(
        &json!({"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": {"type": "string"}}),
    );
    assert!(matches(&grammar, r#"{"a": 1, "b": "x"}"#));
    assert!(!matches(&grammar, r#"{"a": "x"}"#));
    assert!(!matches(&grammar, r#"{"\u0061": "x"}"#));
    assert!(matches(&schema(&json!({"const": "\t\n\r\u{8}\u{c}\"\\/é"})), r#""\t\n\r\b\f\"\\/é""#));
}

#[test]
fn refusals_name_the_keyword() {
    let wide = json!({"type": "object", "properties": (0..20_000).map(|i| (format!("p{i}"), json!({"type": "string"}))).collect::<serde_json::Map<_, _>>()});
    let deep = (0..200).fold(json!({"type": "null"}), |inner, _| json!({"type": "array", "items": inner}));
    for (value, word) in [
        (json!({"type": "array", "uniqueItems": true}), "uniqueItems"),
        (json!({"type": "string", "format": "nonsense"}), "nonsense"),
        (json!({"not": {"type": "string"}}), "not"),
        (json!({"if": {"type": "string"}, "then": {"minLength": 1}}), "if"),
        (json!({"type": "array", "contains": {"type": "null"}}), "contains"),
        (json!({"type": "object", "propertyNames": {"pattern": "^a"}}), "propertyNames"),
        (json!({"type": "object", "minProperties": 2}), "minProperties"),
        (json!({"oneOf": [{"minimum": 1}, {"minimum": 2}]}), "oneOf"),
        (json!({"const": 9_007_199_254_740_993u64}), "const"),
        (json!({"type": "integer", "minimum": -9_007_199_254_740_993i64}), "minimum"),
        (json!({"$ref": "#/$defs/missing"}), "missing"),
        (json!({"$ref": "https://example.com/schema"}), "example.com"),
        (json!({"properties": {"x": {"$id": "https://example.com/x", "$ref": "#/y"}}}), "$id"),
        (json!({"type": "strnig"}), "strnig"),
        (json!({"type": "string", "pattern": "(a"}), "pattern"),
        (json!({"type": "string", "pattern": "a(?=b)"}), "look"),
        (json!({"type": "string", "minLength": 3, "maxLength": 2}), "minLength"),
        (json!({"type": "integer", "minimum": 3, "maximum": 2}), "minimum"),
        (json!({"x-guidance": {"lenient": true}, "not": {}}), "x-guidance"),
        (json!(false), "false"),
        (json!([1]), "object"),
        (wide, "bytes"),
        (json!({"type": "string", "pattern": "a".repeat(3000)}), "pattern"),
        (json!({"$ref": "#"}), "no text"),
        (json!({"const": "\u{1}"}), "const"),
        (json!({"properties": {"a\u{7f}": {}}}), "control"),
        (deep, "levels"),
    ] {
        let error = FACTORY.compile(&schema(&value)).unwrap_err().to_string();
        assert!(error.contains(word) && error.contains("hint") && !error.contains('\n'), "{value}: {error}");
    }
}

/// Long chains of definitions need much stack.
#[test]
fn long_chains_are_refused_or_compiled() {
    for (count, fits) in [(900, true), (1500, false)] {
        let next = |i: usize| json!({"allOf": [{"items": {"$ref": format!("#/$defs/d{}", i + 1)}}]});
        let last = (format!("d{count}"), json!({"type": "null"}));
        let names: serde_json::Map<_, _> = (0..count).map(|i| (format!("d{i}"), next(i))).chain([last]).collect();
        let value = json!({"$ref": "#/$defs/d0", "$defs": names});
        match FACTORY.compile(&schema(&value)) {
            Ok(_) => assert!(fits),
            Err(ConstraintError::TooLarge { .. }) => assert!(!fits),
            Err(error) => panic!("{error}"),
        }
    }
    let deep = (0..60).fold(json!({"type": "null"}), |inner, _| json!({"properties": {"x": inner}}));
    FACTORY.compile(&schema(&deep)).unwrap();
}

#[cfg(feature = "schemars")]
#[test]
fn types_have_grammars() {
    let grammar = Grammar::of::<Vec<(u8, Option<String>)>>();
    assert!(matches(&grammar, r#"[[1, "a"], [255, null]]"#));
    assert!(!matches(&grammar, r#"[[256, "a"]]"#) && !matches(&grammar, r#"[[1]]"#));
}
