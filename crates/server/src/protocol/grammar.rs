//! What an answer has to match: `response_format` of OpenAI, `structured_outputs` of vLLM.

use crate::body::{Fields, found};
use crate::error::{ApiError, ApiResult};
use phi3_runner::Grammar;
use serde_json::{Map, Value};

/// The grammar of a request.
pub(crate) fn read(fields: &mut Fields) -> ApiResult<Option<Grammar>> {
    let format = response_format(fields)?;
    let structured = structured_outputs(fields)?;
    if format.is_some() && structured.is_some() {
        let message = "response_format demands a form already; hint: give one of both";
        return Err(ApiError::invalid(message).param("structured_outputs").code("invalid_value"));
    }
    Ok(format.or(structured))
}

fn response_format(fields: &mut Fields) -> ApiResult<Option<Grammar>> {
    const NAME: &str = "response_format";
    let Some(mut format) = fields.optional::<Map<String, Value>>(NAME, "an object with `type`")? else {
        return Ok(None);
    };
    let kind = format.get("type").cloned().unwrap_or_default();
    match kind.as_str() {
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some(Grammar::JsonObject)),
        Some("json_schema") => {
            let expected = "an object with `schema`";
            match format.remove("json_schema") {
                Some(Value::Object(mut inner)) => match inner.remove("schema") {
                    // OpenAI's schema is optional, and then any JSON object will do
                    None | Some(Value::Null) => Ok(Some(Grammar::JsonObject)),
                    Some(schema) => Ok(Some(Grammar::JsonSchema(schema))),
                },
                other => {
                    let found = other.as_ref().map_or("none".into(), found);
                    Err(ApiError::field("response_format.json_schema", expected, found))
                }
            }
        }
        _ => Err(ApiError::field("response_format.type", "text, json_object or json_schema", found(&kind))),
    }
}

fn structured_outputs(fields: &mut Fields) -> ApiResult<Option<Grammar>> {
    const NAME: &str = "structured_outputs";
    const EXPECTED: &str = "an object with one of json, json_object, regex, grammar and choice";
    let Some(mut object) = fields.optional::<Map<String, Value>>(NAME, EXPECTED)? else { return Ok(None) };
    object.retain(|_, value| !value.is_null() && *value != Value::Bool(false));
    let mut entries = object.into_iter();
    let (Some((name, value)), None) = (entries.next(), entries.next()) else {
        return Err(ApiError::field(NAME, EXPECTED, "none or several"));
    };
    let fault = |expected: &str, value: &Value| Err(ApiError::field(&format!("{NAME}.{name}"), expected, found(value)));
    match (name.as_str(), value) {
        ("json", Value::String(text)) => match serde_json::from_str(&text) {
            Ok(schema) => Ok(Some(Grammar::JsonSchema(schema))),
            Err(_) => fault("a JSON schema", &Value::String(text)),
        },
        ("json", schema) => Ok(Some(Grammar::JsonSchema(schema))),
        ("json_object", Value::Bool(true)) => Ok(Some(Grammar::JsonObject)),
        ("regex", Value::String(regex)) => Ok(Some(Grammar::Regex(regex))),
        ("grammar", Value::String(grammar)) => Ok(Some(Grammar::Lark(grammar))),
        ("choice", Value::Array(choices)) => choice(&choices),
        ("json_object" | "regex" | "grammar" | "choice", value) => fault("a value of its kind", &value),
        _ => Err(ApiError::field(NAME, EXPECTED, format_args!("{name:?}"))),
    }
}

/// A grammar of literal texts.
fn choice(choices: &[Value]) -> ApiResult<Option<Grammar>> {
    let texts: Option<Vec<&str>> = choices.iter().map(Value::as_str).collect();
    match texts.filter(|texts| !texts.is_empty() && texts.iter().all(|text| !text.is_empty())) {
        Some(texts) => Ok(Some(Grammar::Regex(texts.iter().map(|text| escape(text)).collect::<Vec<_>>().join("|")))),
        None => {
            Err(ApiError::field("structured_outputs.choice", "an array of strings that are not empty", "another value"))
        }
    }
}

/// A text as a regular expression that matches it alone.
fn escape(text: &str) -> String {
    let special = |c: char| "\\.+*?()|[]{}^$#&-~/".contains(c);
    text.chars().fold(String::new(), |all, c| {
        if special(c) { all + "\\" + c.encode_utf8(&mut [0; 4]) } else { all + c.encode_utf8(&mut [0; 4]) }
    })
}
