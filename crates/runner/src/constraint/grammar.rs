//! Kinds of grammars.

use serde_json::Value;
use std::fmt;

/// What an answer has to match, from its first to its last character.
#[derive(Clone, Debug, PartialEq)]
pub enum Grammar {
    /// JSON text that is valid by a schema, in draft 2020-12 or the draft that `$schema` names. Members come in the order of
    /// `properties`. Spaces are those of Python's `json.dumps`: one after a comma and one after a colon.
    JsonSchema(Value),
    /// Any JSON object.
    JsonObject,
    /// A regular expression in Rust's syntax, without look-around. It matches the whole answer, with or without `^` and `$`.
    Regex(String),
    /// A context-free grammar in llguidance's variant of Lark's syntax. Special tokens are written by name, `<|end|>`, or by id,
    /// `<[32007]>`.
    Lark(String),
}

/// The kind of a [`Grammar`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrammarKind {
    /// A JSON schema.
    JsonSchema,
    /// A regular expression.
    Regex,
    /// A context-free grammar.
    Lark,
}

impl Grammar {
    /// The kind. [`Grammar::JsonObject`] is a JSON schema.
    pub fn kind(&self) -> GrammarKind {
        match self {
            Self::JsonSchema(_) | Self::JsonObject => GrammarKind::JsonSchema,
            Self::Regex(_) => GrammarKind::Regex,
            Self::Lark(_) => GrammarKind::Lark,
        }
    }

    /// The grammar of the JSON text of a Rust type.
    #[cfg(feature = "schemars")]
    pub fn of<T: schemars::JsonSchema>() -> Self {
        Self::JsonSchema(schemars::SchemaGenerator::default().into_root_schema_for::<T>().to_value())
    }
}

impl fmt::Display for GrammarKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::JsonSchema => "JSON schema",
            Self::Regex => "regular expression",
            Self::Lark => "Lark grammar",
        })
    }
}
