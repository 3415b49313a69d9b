//! Description of the paths, in OpenAPI 3.1.

use serde_json::Value;

/// The document, without its version.
const DOCUMENT: &str = include_str!("openapi.json");

/// The document.
pub(crate) fn document() -> Value {
    let mut document: Value = serde_json::from_str(DOCUMENT).unwrap_or_default();
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    document
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::Fields;
    use crate::protocol::{chat, completion};
    use std::collections::BTreeSet;

    /// The document names the fields that are read, and no others.
    #[test]
    fn requests_are_described() {
        let mut chat = Fields::parse(br#"{"messages": [{"role": "user", "content": "hi"}]}"#).unwrap();
        chat::Request::read(&mut chat, 8).unwrap();
        let mut completion = Fields::parse(br#"{"prompt": "hi", "max_tokens": 1}"#).unwrap();
        completion::Request::read(&mut completion, 8).unwrap();
        for (name, fields) in [("ChatRequest", chat), ("CompletionRequest", completion)] {
            let document = document();
            let described = document["components"]["schemas"][name]["properties"].as_object().unwrap();
            let described: BTreeSet<String> = described.keys().cloned().collect();
            assert_eq!(described, fields.known, "{name}");
        }
        assert_eq!(document()["info"]["version"], env!("CARGO_PKG_VERSION"));
    }
}
