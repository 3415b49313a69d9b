//! Bodies of requests: JSON objects within limits, read field by field.

use crate::error::{ApiError, ApiResult, Kind};
use crate::state::App;
use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The fields of a request's JSON object that were not read yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields {
    values: Map<String, Value>,
    /// Names that were asked for.
    #[cfg(test)]
    pub(crate) known: std::collections::BTreeSet<String>,
}

impl Fields {
    fn of(values: Map<String, Value>) -> Self {
        Self {
            values,
            #[cfg(test)]
            known: Default::default(),
        }
    }

    /// The fields of a JSON text.
    pub(crate) fn parse(bytes: &[u8]) -> ApiResult<Self> {
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(values)) => Ok(Self::of(values)),
            Ok(other) => Err(ApiError::invalid(format!("body: expected a JSON object, found {}", found(&other)))),
            Err(error) => Err(ApiError::invalid(format!("body: expected a JSON object, found a fault: {error}"))),
        }
        .map_err(|error| error.code("invalid_json"))
    }

    /// Whether a field is there, not null, and was not read.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.values.get(name).is_some_and(|value| !value.is_null())
    }

    /// A field; `None` if it is absent or null.
    pub(crate) fn value(&mut self, name: &str) -> Option<Value> {
        #[cfg(test)]
        self.known.insert(name.to_owned());
        self.values.remove(name).filter(|value| !value.is_null())
    }

    /// A field of a type; `None` if it is absent or null.
    pub(crate) fn optional<T: DeserializeOwned>(&mut self, name: &str, expected: &str) -> ApiResult<Option<T>> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let what = found(&value);
        serde_json::from_value(value).map(Some).map_err(|_| ApiError::field(name, expected, what))
    }

    /// A field of a type that has to be there.
    pub(crate) fn required<T: DeserializeOwned>(&mut self, name: &str, expected: &str) -> ApiResult<T> {
        let value = self.optional(name, expected)?;
        value.ok_or_else(|| ApiError::field(name, expected, "none").code("missing_required_parameter"))
    }

    /// A number.
    pub(crate) fn number(&mut self, name: &str) -> ApiResult<Option<f32>> {
        Ok(self.optional::<f64>(name, "a number")?.map(|number| number as f32))
    }

    /// A whole number of a range. JSON has one kind of numbers, so `16.0` is a whole one.
    pub(crate) fn integer(&mut self, name: &str, least: i64, most: i64) -> ApiResult<Option<i64>> {
        let Some(value) = self.value(name) else { return Ok(None) };
        match whole(&value).filter(|integer| (least..=most).contains(integer)) {
            Some(integer) => Ok(Some(integer)),
            None if most == i64::MAX => {
                Err(ApiError::field(name, format_args!("a whole number of at least {least}"), found(&value)))
            }
            None => Err(ApiError::field(name, format_args!("a whole number from {least} to {most}"), found(&value))),
        }
    }

    /// A number of things, such as tokens; -1 is no limit.
    pub(crate) fn limit(&mut self, name: &str) -> ApiResult<Option<usize>> {
        Ok(self.integer(name, -1, i64::MAX)?.and_then(|number| usize::try_from(number).ok()))
    }

    pub(crate) fn flag(&mut self, name: &str) -> ApiResult<Option<bool>> {
        self.optional(name, "true or false")
    }

    pub(crate) fn text(&mut self, name: &str) -> ApiResult<Option<String>> {
        self.optional(name, "a string")
    }

    /// Names of fields that are left over and not null.
    pub(crate) fn unread(&self) -> impl Iterator<Item = &str> {
        self.values.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| name.as_str())
    }
}

/// A whole number, however it is written.
fn whole(value: &Value) -> Option<i64> {
    let whole = |number: f64| (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64);
    value.as_i64().or_else(|| value.as_f64().and_then(whole))
}

/// Token ids; `None` if one of the values is none.
pub(crate) fn token_ids(values: &[Value]) -> Option<Vec<u32>> {
    values.iter().map(|value| whole(value).and_then(|id| u32::try_from(id).ok())).collect()
}

/// A value in a message: short ones as they are, others by their kind.
pub(crate) fn found(value: &Value) -> String {
    const LONGEST: usize = 40;
    let text = value.to_string();
    match value {
        _ if text.len() <= LONGEST => text,
        Value::String(_) => "a long string".into(),
        Value::Array(_) => "an array".into(),
        Value::Object(_) => "an object".into(),
        _ => "a long number".into(),
    }
}

impl FromRequest<App> for Fields {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> ApiResult<Self> {
        check_type(request.headers())?;
        let options = app.options();
        let body = read(request.into_body(), options.max_body);
        match tokio::time::timeout(options.body_time, body).await {
            Ok(bytes) => Self::parse(&bytes?),
            Err(_) => {
                let message = format!("body: expected all of it within {:?}", options.body_time);
                Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, Kind::Timeout, message))
            }
        }
    }
}

/// Checks that the body is JSON by its type, as pages of other sites cannot send that without asking.
fn check_type(headers: &HeaderMap) -> ApiResult<()> {
    let value = headers.get(header::CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let media = value.as_deref().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if media == "application/json" || (media.starts_with("application/") && media.ends_with("+json")) {
        return Ok(());
    }
    let found = value.unwrap_or_else(|| "none".into());
    let message = format!("content-type: expected application/json, found {found}; hint: add that header");
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Kind::InvalidRequest, message).code("content_type"))
}

async fn read(body: Body, most: usize) -> ApiResult<Vec<u8>> {
    let collected = Limited::new(body, most).collect().await;
    match collected {
        Ok(body) => Ok(body.to_bytes().into()),
        Err(error) if error.is::<LengthLimitError>() => {
            let message = format!("body: expected at most {most} bytes, found more");
            let error = ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, Kind::InvalidRequest, message);
            Err(error.code("request_too_large"))
        }
        Err(error) => Err(ApiError::invalid(format!("body: it ended early: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Fields {
        Fields::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn fields_of_every_kind() {
        let mut read = fields(r#"{"n": 2.0, "t": 1e-1, "s": null, "x": {"y": 1}, "m": -1, "f": true}"#);
        assert_eq!(read.integer("n", 1, 8).unwrap(), Some(2));
        assert_eq!(read.number("t").unwrap(), Some(0.1));
        assert_eq!((read.text("s").unwrap(), read.flag("f").unwrap()), (None, Some(true)));
        assert_eq!(read.limit("m").unwrap(), None);
        assert_eq!(read.unread().collect::<Vec<_>>(), ["x"]);
    }

    #[test]
    fn faults_name_their_field() {
        let faults = [
            fields(r#"{"n": 0}"#).integer("n", 1, 8).unwrap_err(),
            fields(r#"{"n": 1.5}"#).integer("n", 1, 8).unwrap_err(),
            fields(r#"{"n": 1e300}"#).limit("n").unwrap_err(),
            fields(r#"{"n": "1"}"#).number("n").unwrap_err(),
            fields(r#"{"n": 1}"#).text("n").unwrap_err(),
            fields(r#"{}"#).required::<String>("n", "a string").unwrap_err(),
        ];
        for fault in faults {
            assert_eq!((fault.param.as_deref(), fault.status), (Some("n"), StatusCode::BAD_REQUEST), "{fault:?}");
            assert!(fault.message.starts_with("n: expected"), "{fault:?}");
        }
        for text in ["", "[]", "3", "{\"a\": }", "\u{feff}{}"] {
            assert_eq!(Fields::parse(text.as_bytes()).unwrap_err().code, Some("invalid_json"), "{text}");
        }
    }
}
