//! Checks of a `tokenizer.json` for properties that the tokenizers library does not check.

use serde::Deserialize;
use serde_json::Value;

use super::error::{Error, Result};

pub(super) const HINT: &str = "take the file from the checkpoint again";

/// The parts of the file whose consistency the tokenizers library does not check.
#[derive(Deserialize)]
pub(super) struct Outline {
    #[serde(default)]
    pub(super) added_tokens: Vec<AddedToken>,
    #[serde(default)]
    pub(super) post_processor: Value,
    #[serde(default)]
    pub(super) normalizer: Value,
    #[serde(default)]
    pub(super) pre_tokenizer: Value,
    #[serde(default)]
    decoder: Value,
}

/// Largest growth factor of a text's length by all steps of one part of the file; published files stay below 100.
const MOST_GROWTH: usize = 4096;

/// Growth factor of a text's length by a step and its nested steps, at most or approximately.
fn growth(step: &Value) -> usize {
    match step {
        Value::Array(steps) => steps.iter().map(growth).fold(1, usize::saturating_mul),
        Value::Object(fields) => {
            let content = fields.get("content").and_then(Value::as_str).map_or(0, str::len);
            let own = match (fields.get("pattern"), fields.get("type").and_then(Value::as_str)) {
                // a replacement, in older files without its type
                (Some(pattern), _) => match pattern["String"].as_str() {
                    Some(pattern) if !pattern.is_empty() => content.div_ceil(pattern.len()).max(1),
                    // inserted between any two characters
                    _ => content.saturating_add(1),
                },
                (None, Some("ByteLevel")) => 2,
                // the longest expansion of a character in Unicode's compatibility forms
                (None, Some("NFKC" | "NFKD" | "Precompiled")) => 18,
                _ => 1,
            };
            let steps = ["normalizers", "pretokenizers", "decoders"].iter().filter_map(|field| fields.get(*field));
            steps.map(growth).fold(own, usize::saturating_mul)
        }
        _ => 1,
    }
}

#[derive(Deserialize)]
pub(super) struct AddedToken {
    pub(super) id: u32,
    pub(super) content: String,
}

impl Outline {
    /// Reads and checks the bytes of a `tokenizer.json`; `file` is its name in errors.
    pub(super) fn parse(file: &str, bytes: &[u8]) -> Result<Self> {
        let malformed =
            |error: serde_json::Error| Error::Malformed { file: file.into(), reason: error.to_string(), hint: HINT };
        let outline: Self = serde_json::from_slice(bytes).map_err(malformed)?;
        outline.check_growth(file)?;
        outline.check_special_tokens_of_template(file)?;
        Ok(outline)
    }

    /// Checks the growth by each part. Many steps that each make a text longer would exhaust the memory.
    fn check_growth(&self, file: &str) -> Result<()> {
        let parts =
            [("normalizer", &self.normalizer), ("pre_tokenizer", &self.pre_tokenizer), ("decoder", &self.decoder)];
        match parts.into_iter().map(|(field, part)| (field, growth(part))).find(|(_, growth)| *growth > MOST_GROWTH) {
            None => Ok(()),
            Some((field, growth)) => Err(Error::Field {
                file: file.into(),
                field: field.into(),
                expected: format!("steps that make a text at most {MOST_GROWTH} times longer"),
                found: format!("a growth of {growth}"),
                hint: HINT,
            }),
        }
    }

    fn check_special_tokens_of_template(&self, file: &str) -> Result<()> {
        let processors = match self.post_processor["processors"].as_array() {
            Some(list) => list.iter().collect(),
            None => vec![&self.post_processor],
        };
        for processor in processors {
            let known = processor["special_tokens"].as_object();
            for piece in ["single", "pair"].iter().flat_map(|part| processor[part].as_array()).flatten() {
                let Some(id) = piece["SpecialToken"]["id"].as_str() else { continue };
                if !known.is_some_and(|known| known.contains_key(id)) {
                    return Err(Error::Field {
                        file: file.into(),
                        field: "post_processor.special_tokens".into(),
                        expected: format!("a table with {id:?}, which the template puts into every text"),
                        found: "none".into(),
                        hint: HINT,
                    });
                }
            }
        }
        Ok(())
    }
}
