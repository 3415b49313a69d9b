//! Templates compared with the output of Python's jinja2.

use std::path::{Path, PathBuf};

use phi3_jinja::{Error, Template};
use serde_json::Value;

fn clock(format: &str) -> String {
    format!("now({format})")
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/jinja/vectors.json")
}

fn render(template: &str, variables: &[(&str, &Value)]) -> Result<String, Error> {
    Template::new(template)?.render(variables, clock)
}

/// Removes the addresses that Python prints, which vary.
fn without_addresses(text: &str) -> String {
    let mut parts = text.split(" at 0x");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out += " at ";
        out += part.trim_start_matches(|char: char| char.is_ascii_hexdigit());
    }
    out
}

#[test]
fn all_vectors() {
    let file: Value = serde_json::from_slice(&std::fs::read(data()).unwrap()).unwrap();
    let vectors = file["vectors"].as_array().unwrap();
    assert!(vectors.len() > 400, "{}", vectors.len());
    let mut wrong = Vec::new();
    for vector in vectors {
        let own = vector["variables"].as_object();
        let given = file["variables"].as_object().unwrap().iter();
        let given = given.filter(|(name, _)| !own.is_some_and(|own| own.contains_key(*name)));
        let variables: Vec<(&str, &Value)> =
            given.chain(own.into_iter().flatten()).map(|(name, value)| (name.as_str(), value)).collect();
        let template = vector["template"].as_str().unwrap();
        let rendered = render(template, &variables);
        let right = match (&rendered, vector["text"].as_str()) {
            (Ok(text), Some(wanted)) => without_addresses(text) == without_addresses(wanted),
            (Err(error), None) => vector["error"] == format!("{:?}", error.kind()),
            _ => false,
        };
        if !right {
            wrong.push(format!(
                "{template}\n  wanted {:?} {:?}\n  found  {rendered:?}",
                vector["text"], vector["error"]
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), vectors.len(), wrong.join("\n"));
}
