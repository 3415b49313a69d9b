use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One message of a conversation, as the chat template sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, or what else the template knows.
    pub role: String,
    /// What is said: text, or a list of parts for templates that take one.
    #[serde(default)]
    pub content: Value,
    /// Every other field (`tools`, `tool_calls`, `name` ...), handed to the template as it is.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Message {
    /// A message of text.
    pub fn new(role: impl Into<String>, text: impl Into<String>) -> Self {
        Self { role: role.into(), content: Value::String(text.into()), other: Map::new() }
    }

    /// What the model is told to be.
    pub fn system(text: impl Into<String>) -> Self {
        Self::new("system", text)
    }

    /// What the user says.
    pub fn user(text: impl Into<String>) -> Self {
        Self::new("user", text)
    }

    /// What the model said.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self::new("assistant", text)
    }

    /// The content, if it is text.
    pub fn text(&self) -> Option<&str> {
        self.content.as_str()
    }
}
