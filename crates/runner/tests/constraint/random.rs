//! Random schemas: each is refused by name, or all answers are valid.

use super::*;
use serde_json::{Map, Value, json};

fn object(members: impl IntoIterator<Item = (&'static str, Value)>) -> Map<String, Value> {
    members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// A random schema of at most `depth` levels.
fn schema(random: &mut Random, depth: usize) -> Value {
    let kinds = if depth == 0 { 7 } else { 14 };
    let mut made = match random.below(kinds) {
        0 => object([("type", random.of(&[json!("null"), json!("boolean"), json!(["integer", "null"])]).clone())]),
        1 => number(random, "integer"),
        2 => number(random, "number"),
        3 | 4 => string(random),
        5 => object([("enum", json!([1, "a b", null, [true, {"x": "\u{e9}\n"}], 2.5]))]),
        6 => object([("const", random.of(&[json!("\"q\""), json!(-7), json!({"k": [1]}), json!(false)]).clone())]),
        7 | 8 => array(random, depth),
        9 | 10 => members(random, depth),
        11 => {
            let word = *random.of(&["anyOf", "anyOf", "oneOf"]);
            object([(word, json!((0..1 + random.below(3)).map(|_| schema(random, depth - 1)).collect::<Vec<_>>()))])
        }
        12 => object([("allOf", json!([schema(random, depth - 1), schema(random, depth - 1)]))]),
        _ => object([("$ref", json!(random.of(&["#/$defs/tree", "#/$defs/word", "#"])))]),
    };
    if random.chance(4) {
        let refused = [
            ("uniqueItems", json!(true)),
            ("not", json!({"type": "string"})),
            ("contains", json!({"type": "null"})),
            ("propertyNames", json!({"maxLength": 2})),
            ("dependentRequired", json!({"a": ["b"]})),
            ("unevaluatedProperties", json!(false)),
        ];
        let (key, value) = random.of(&refused);
        made.insert((*key).to_owned(), value.clone());
    }
    Value::Object(made)
}

fn number(random: &mut Random, kind: &str) -> Map<String, Value> {
    let mut made = object([("type", json!(kind))]);
    for word in ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"] {
        if random.chance(25) {
            let value = random.below(200) as i64 - 100;
            made.insert(word.into(), if kind == "number" { json!(value as f64 / 4.0) } else { json!(value) });
        }
    }
    if random.chance(10) {
        // the validator computes with f64
        made.insert("minimum".into(), json!(-500));
        made.insert("maximum".into(), json!(500));
        made.insert("multipleOf".into(), json!(random.of(&[2, 3, 10])));
    }
    made
}

fn string(random: &mut Random) -> Map<String, Value> {
    let mut made = object([("type", json!("string"))]);
    if random.chance(30) {
        made.insert("minLength".into(), json!(random.below(5)));
    }
    if random.chance(30) {
        made.insert("maxLength".into(), json!(random.below(9)));
    }
    if random.chance(20) {
        made.insert("pattern".into(), json!(random.of(&["^[a-z]+$", "\\d{2}", "^a.*b$", "é|\"", "^\\w{1,4}$"])));
    }
    if random.chance(15) {
        made.insert("format".into(), json!(random.of(&["ipv4", "uuid", "phone"])));
    }
    made
}

fn array(random: &mut Random, depth: usize) -> Map<String, Value> {
    let mut made = object([("type", json!("array"))]);
    if random.chance(70) {
        made.insert("items".into(), schema(random, depth - 1));
    }
    if random.chance(30) {
        made.insert("prefixItems".into(), json!([schema(random, depth - 1), schema(random, depth - 1)]));
    }
    if random.chance(30) {
        made.insert("minItems".into(), json!(random.below(3)));
    }
    if random.chance(50) {
        made.insert("maxItems".into(), json!(1 + random.below(4)));
    }
    made
}

fn members(random: &mut Random, depth: usize) -> Map<String, Value> {
    let mut made = object([("type", json!("object"))]);
    let names = ["a", "b c", "\"", "ü"];
    let mut properties = Map::new();
    for name in names {
        if random.chance(50) {
            properties.insert(name.into(), schema(random, depth - 1));
        }
    }
    let required: Vec<&str> = names.into_iter().filter(|_| random.chance(30)).collect();
    made.insert("properties".into(), Value::Object(properties));
    made.insert("required".into(), json!(required));
    match random.below(4) {
        0 => {}
        1 => drop(made.insert("additionalProperties".into(), schema(random, depth - 1))),
        _ => drop(made.insert("additionalProperties".into(), json!(false))),
    }
    if random.chance(15) {
        made.insert("patternProperties".into(), json!({"^x": schema(random, depth - 1)}));
    }
    if random.chance(10) {
        made.insert("minProperties".into(), json!(random.below(4)));
    }
    if random.chance(10) {
        made.insert("maxProperties".into(), json!(random.below(4)));
    }
    made
}

/// Every keyword and every string of a schema.
fn words(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => members.iter().for_each(|(key, value)| {
            found.push(key.clone());
            words(value, found);
        }),
        Value::Array(items) => items.iter().for_each(|item| words(item, found)),
        Value::String(text) => found.push(text.clone()),
        _ => {}
    }
}

#[test]
fn random_schemas_are_enforced_or_refused() {
    let mut random = Random(2026);
    let (mut refused, mut complete, mut cut) = (0, 0, 0);
    for _ in 0..200 {
        let mut value = schema(&mut random, 3);
        value["$defs"] = json!({
            "tree": {"type": "object", "properties": {"left": {"$ref": "#/$defs/tree"}, "n": {"type": "integer"}}, "required": ["n"], "additionalProperties": false},
            "word": {"type": "string", "pattern": "^[a-z]{1,8}$"},
        });
        let validator = jsonschema::options().should_validate_formats(true).build(&value).unwrap();
        let mut constraint = match FACTORY.compile(&Grammar::JsonSchema(value.clone())) {
            Ok(constraint) => constraint,
            Err(error) => {
                let (mut known, error) = (Vec::new(), error.to_string());
                words(&value, &mut known);
                known.push("no text matches".into());
                assert!(known.iter().any(|word| error.contains(word.as_str())), "{value}: {error}");
                assert!(!error.contains("panic"), "{value}: {error}");
                refused += 1;
                continue;
            }
        };
        for _ in 0..4 {
            let (text, ended) = match answer(&mut constraint, &mut random, 60) {
                Ok(found) => found,
                Err(error) => panic!("{value}: {error}"),
            };
            // JSON has no limit of numbers, serde_json has
            let found = match serde_json::from_str::<Value>(&text) {
                Err(error) if error.to_string().contains("out of range") => None,
                found => ended.then(|| found.unwrap_or_else(|error| panic!("{value}: {text}: {error}"))),
            };
            match found {
                Some(found) => {
                    assert!(validator.is_valid(&found), "{value}: {text}");
                    complete += 1;
                }
                None => cut += 1,
            }
            constraint = FACTORY.compile(&Grammar::JsonSchema(value.clone())).unwrap();
        }
    }
    println!("{refused} schemas refused, {complete} answers complete, {cut} cut");
    assert!(refused < 100 && complete > 4 * cut, "{refused} {complete} {cut}");
}
