//! Messages of a chat, with pictures.

use crate::body::found;
use crate::error::{ApiError, ApiResult};
use crate::state::Loaded;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_PAD_INDIFFERENT as BASE64;
use phi3_runner::text::Message;
use phi3_runner::{Image, image_tags};
use serde_json::{Map, Value};

/// Most pictures of a request.
const MOST_IMAGES: usize = 64;

/// A chat as the engine takes it.
pub(crate) struct Chat {
    pub(crate) messages: Vec<Message>,
    pub(crate) images: Vec<Image>,
}

impl Chat {
    /// Reads messages. Pictures become tags in their text, which the model's tokenizer knows.
    pub(crate) fn read(messages: Vec<Value>, loaded: &Loaded) -> ApiResult<Self> {
        if messages.is_empty() {
            return Err(ApiError::field("messages", "at least one message", "none"));
        }
        let mut chat = Self { messages: Vec::new(), images: Vec::new() };
        for (number, message) in messages.into_iter().enumerate() {
            let name = format!("messages[{number}]");
            let Value::Object(fields) = message else {
                return Err(ApiError::field(&name, "an object with role and content", found(&message)));
            };
            let message = chat.message(&name, fields, loaded)?;
            chat.messages.push(message);
        }
        Ok(chat)
    }

    fn message(&mut self, name: &str, mut fields: Map<String, Value>, loaded: &Loaded) -> ApiResult<Message> {
        match fields.get("role") {
            // OpenAI's newer name for instructions
            Some(Value::String(role)) if role == "developer" => {
                fields.insert("role".into(), "system".into());
            }
            Some(Value::String(_)) => {}
            other => {
                let found = other.map_or("none".into(), found);
                return Err(ApiError::field(&format!("{name}.role"), "system, user or assistant", found));
            }
        }
        let content = format!("{name}.content");
        let text = match fields.remove("content") {
            Some(Value::Array(parts)) => Some(self.parts(&content, parts, loaded)?),
            Some(Value::String(text)) => Some(text),
            None | Some(Value::Null) if fields.get("role") == Some(&"assistant".into()) => None,
            other => {
                let found = other.as_ref().map_or("none".into(), found);
                return Err(ApiError::field(&content, "a string or an array of parts", found));
            }
        };
        if let Some(text) = text {
            fields.insert("content".into(), text.into());
        }
        let message = serde_json::from_value(Value::Object(fields));
        message.map_err(|error| ApiError::field(name, "a message", error))
    }

    /// The text of parts. Texts are separated by a line break, as a tag of a picture ends with one.
    fn parts(&mut self, name: &str, parts: Vec<Value>, loaded: &Loaded) -> ApiResult<String> {
        let mut all = String::new();
        let mut after_text = false;
        for (number, part) in parts.iter().enumerate() {
            let name = format!("{name}[{number}]");
            let kind = part.get("type").and_then(Value::as_str).unwrap_or_default();
            let text = |field: &str| {
                let value = part.get(field);
                let text = value.and_then(Value::as_str);
                text.ok_or_else(|| {
                    ApiError::field(&format!("{name}.{field}"), "a string", value.map_or("none".into(), found))
                })
            };
            match kind {
                "text" | "input_text" | "output_text" | "refusal" => {
                    if after_text {
                        all.push('\n');
                    }
                    all.push_str(text(if kind == "refusal" { "refusal" } else { "text" })?);
                    after_text = true;
                }
                "image_url" | "input_image" => {
                    let url = part.get("image_url");
                    let url = url.and_then(|url| url.get("url").unwrap_or(url).as_str());
                    let url =
                        url.ok_or_else(|| ApiError::field(&format!("{name}.image_url"), "an object with url", "none"))?;
                    let tag = loaded.engine.image_reader()?.tag();
                    self.picture(&name, url, loaded)?;
                    if after_text {
                        all.push('\n');
                    }
                    all.push_str(&image_tags(tag, self.images.len(), self.images.len()));
                    after_text = false;
                }
                _ => {
                    let found = part.get("type").map_or("none".into(), found);
                    return Err(ApiError::field(&format!("{name}.type"), "text or image_url", found));
                }
            }
        }
        Ok(all)
    }

    fn picture(&mut self, name: &str, url: &str, loaded: &Loaded) -> ApiResult<()> {
        if self.images.len() == MOST_IMAGES {
            return Err(ApiError::field(name, format_args!("at most {MOST_IMAGES} pictures"), "more"));
        }
        let invalid = |error: ApiError| error.param(name).code("invalid_image");
        let bytes = data_url(url).map_err(|reason| {
            let url: String = url.chars().take(32).collect();
            invalid(ApiError::field(name, "a picture as data:image/…;base64,…", format_args!("{url:?}: {reason}")))
        })?;
        let reader = loaded.engine.image_reader()?;
        let picture = phi3_image::decode(&bytes, reader.orientation);
        let picture = picture.map_err(|error| invalid(ApiError::invalid(format!("{name}: {error}"))))?;
        let image = reader.prepare(name, &picture).map_err(|error| invalid(error.into()))?;
        self.images.push(image);
        Ok(())
    }
}

/// The bytes of a data URL (RFC 2397).
fn data_url(url: &str) -> Result<Vec<u8>, String> {
    let is_data = url.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"));
    if !is_data {
        return Err("pictures are not fetched from other places".into());
    }
    let (head, data) = url[5..].split_once(',').ok_or("it has no comma")?;
    let data: Vec<u8> = percent_encoding::percent_decode_str(data).collect();
    if !head.trim_end().to_ascii_lowercase().ends_with(";base64") {
        return Ok(data);
    }
    let data: Vec<u8> = data.into_iter().filter(|byte| !byte.is_ascii_whitespace()).collect();
    BASE64.decode(data).map_err(|error| format!("not base64: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_urls() {
        for url in ["data:image/png;base64,aGk=", "data:image/png;base64,aGk", "DATA:;BASE64,aG%6B%3d", "data:,hi"] {
            assert_eq!(data_url(url).unwrap(), b"hi", "{url}");
        }
        for url in ["https://example.org/cat.png", "data:image/png;base64", "data:;base64,a$", "", "däta:,"] {
            assert!(data_url(url).is_err(), "{url}");
        }
    }
}
