use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// A message of a conversation, as the input of a chat template: fields in order, always with `role`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Message(Map<String, Value>);

impl Message {
    /// A message with text as its content.
    pub fn new(role: impl Into<String>, text: impl Into<String>) -> Self {
        let fields = [("role", role.into()), ("content", text.into())];
        Self(fields.into_iter().map(|(name, text)| (name.to_owned(), Value::String(text))).collect())
    }

    /// A message of the role `system`: instructions for the model.
    pub fn system(text: impl Into<String>) -> Self {
        Self::new("system", text)
    }

    /// A message of the role `user`.
    pub fn user(text: impl Into<String>) -> Self {
        Self::new("user", text)
    }

    /// A message of the role `assistant`: an answer of the model.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self::new("assistant", text)
    }

    /// The message with one more field (`tools`, `tool_calls`, `name` …), or another value of one that it has.
    pub fn with(mut self, field: impl Into<String>, value: impl Into<Value>) -> Self {
        self.0.insert(field.into(), value.into());
        self
    }

    /// The role: `system`, `user`, `assistant`, or another one that the template supports.
    pub fn role(&self) -> &str {
        self.0.get("role").and_then(Value::as_str).unwrap_or_default()
    }

    /// The content, if it is text.
    pub fn text(&self) -> Option<&str> {
        self.get("content")?.as_str()
    }

    /// A field.
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.0.get(field)
    }

    /// The fields for a template, as transformers passes them: without null fields, and with the assistant's reasoning as
    /// `thinking` and as `reasoning_content`.
    pub(super) fn for_template(&self) -> Value {
        let mut fields: Map<String, Value> = self
            .0
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let thoughts = ["reasoning_content", "thinking", "reasoning"];
        if let Some(thought) = thoughts.into_iter().find_map(|name| fields.get(name).cloned()) {
            if !fields.contains_key("thinking") {
                fields.shift_insert(0, "thinking".into(), thought.clone());
            }
            fields.insert("reasoning_content".into(), thought);
        }
        Value::Object(fields)
    }
}

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Map::deserialize(deserializer)?;
        match fields.get("role") {
            Some(Value::String(_)) => Ok(Self(fields)),
            Some(_) => Err(D::Error::custom("the field `role` is not a string")),
            None => Err(D::Error::missing_field("role")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_keep_their_order() {
        let text = r#"{"content":null,"name":"x","role":"tool","tool_calls":[]}"#;
        let message: Message = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&message).unwrap(), text);
        assert_eq!(message.for_template().to_string(), r#"{"name":"x","role":"tool","tool_calls":[]}"#);
        assert_eq!((message.role(), message.text()), ("tool", None));
        assert!(serde_json::from_str::<Message>(r#"{"content": "x"}"#).unwrap_err().to_string().contains("role"));
        assert!(serde_json::from_str::<Message>(r#"{"role": 3}"#).unwrap_err().to_string().contains("role"));
    }

    #[test]
    fn thoughts_have_all_their_names() {
        let message = Message::assistant("a").with("reasoning", "t");
        let wanted =
            json!({"thinking": "t", "role": "assistant", "content": "a", "reasoning": "t", "reasoning_content": "t"});
        assert_eq!(message.for_template().to_string(), wanted.to_string());
        let both = Message::assistant("a").with("thinking", "t").with("reasoning_content", "r");
        assert_eq!(both.for_template()["thinking"], "t");
        assert_eq!(both.for_template()["reasoning_content"], "r");
    }
}
