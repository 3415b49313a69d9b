use std::collections::HashSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::DecoderWrapper;

use super::error::{Error, Result};
use super::stream::TextStream;

const HINT: &str = "take the file from the checkpoint again";

/// A `tokenizer.json`. Clones share it.
#[derive(Clone)]
pub struct Tokenizer(Arc<Inner>);

struct Inner {
    file: String,
    tokenizer: tokenizers::Tokenizer,
    special: HashSet<u32>,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// The file cannot be read or is no usable tokenizer.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|source| Error::Read { path: path.into(), source })?;
        Self::from_bytes(path.display().to_string(), &bytes)
    }

    /// Reads the bytes of a `tokenizer.json`; `name` stands for it in errors.
    ///
    /// # Errors
    /// The bytes are no usable tokenizer.
    pub fn from_bytes(name: impl Into<String>, bytes: &[u8]) -> Result<Self> {
        let file = name.into();
        let malformed = |reason: String| Error::Malformed { file: file.clone(), reason, hint: HINT };
        let outline: Outline = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
        outline.check_growth(&file)?;
        outline.check_special_tokens_of_template(&file)?;
        let mut tokenizer = guarded(|| tokenizers::Tokenizer::from_bytes(bytes)).map_err(malformed)?;
        // A prompt must neither be cut nor filled up, whatever the tokenizer was trained with.
        tokenizer.with_padding(None);
        guarded(|| tokenizer.with_truncation(None).map(|_| ())).map_err(malformed)?;
        outline.check_added_tokens(&file, &tokenizer)?;
        let special = outline.added_tokens.iter().filter(|token| token.special).map(|token| token.id).collect();
        let tokenizer = Self(Arc::new(Inner { file, tokenizer, special }));
        tokenizer.probe()?;
        Ok(tokenizer)
    }

    /// The token ids of a text; with `add_special`, with those that the tokenizer puts around it (such as `<s>`).
    ///
    /// # Errors
    /// The text has a character that the vocabulary cannot express.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let inner = &*self.0;
        guarded(|| inner.tokenizer.encode_fast(text, add_special))
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(|reason| Error::Encode { file: inner.file.clone(), bytes: text.len(), reason })
    }

    /// The text of token ids; with `skip_special`, without the special tokens. Ids that the vocabulary does not have (a
    /// checkpoint has more rows than tokens) have no text.
    ///
    /// # Errors
    /// The tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        let inner = &*self.0;
        guarded(|| inner.tokenizer.decode(ids, skip_special)).map_err(|reason| Error::Decode {
            file: inner.file.clone(),
            count: ids.len(),
            reason,
        })
    }

    /// Decodes ids one by one.
    pub fn stream(&self, skip_special: bool) -> TextStream {
        TextStream::new(self.clone(), skip_special)
    }

    /// Whether the id is a special token, one that `decode` can skip.
    pub fn is_special(&self, id: u32) -> bool {
        self.0.special.contains(&id)
    }

    /// The number of tokens, added ones included. A checkpoint may have more rows than that.
    pub fn vocab_size(&self) -> usize {
        self.0.tokenizer.get_vocab_size(true)
    }

    /// The id of a token, written as in the vocabulary: `<|end|>`, `▁Hello`.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.0.tokenizer.token_to_id(token)
    }

    /// The token of an id, written as in the vocabulary.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.0.tokenizer.id_to_token(id)
    }

    pub(super) fn decoder(&self) -> Option<&DecoderWrapper> {
        self.0.tokenizer.get_decoder()
    }

    /// Finds faults that show only in use.
    fn probe(&self) -> Result<()> {
        let ids = match self.encode("Hello, world", true) {
            Ok(ids) => ids,
            Err(Error::Encode { file, reason, .. }) => return Err(Error::Malformed { file, reason, hint: HINT }),
            Err(error) => return Err(error),
        };
        self.decode(&ids, false).map(|_| ())
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer").field("file", &self.0.file).field("vocab_size", &self.vocab_size()).finish()
    }
}

/// The parts of the file whose consistency the tokenizers library takes for granted.
#[derive(Deserialize)]
struct Outline {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    decoder: Value,
}

/// How many times longer a text may become by each part of the file, by its steps together; published ones stay below 100.
const MOST_GROWTH: usize = 4096;

/// How many times longer a step and those within make a text, at most or about.
fn growth(step: &Value) -> usize {
    match step {
        Value::Array(steps) => steps.iter().map(growth).fold(1, usize::saturating_mul),
        Value::Object(fields) => {
            let content = fields.get("content").and_then(Value::as_str).map_or(0, str::len);
            let own = match (fields.get("pattern"), fields.get("type").and_then(Value::as_str)) {
                // a replacement, in older files without its type
                (Some(pattern), _) => match pattern["String"].as_str() {
                    Some(pattern) if !pattern.is_empty() => content.div_ceil(pattern.len()).max(1),
                    // stands between any two characters
                    _ => content.saturating_add(1),
                },
                (None, Some("ByteLevel")) => 2,
                // the longest that a character becomes in Unicode's compatibility forms
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
struct AddedToken {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
}

impl Outline {
    /// Steps that each make a text longer would fill the memory.
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

    fn check_added_tokens(&self, file: &str, tokenizer: &tokenizers::Tokenizer) -> Result<()> {
        for (i, token) in self.added_tokens.iter().enumerate() {
            let id = tokenizer.token_to_id(&token.content);
            if id != Some(token.id) {
                return Err(Error::Field {
                    file: file.into(),
                    field: format!("added_tokens[{i}].id"),
                    expected: match id {
                        Some(id) => format!("{id} for {:?}", token.content),
                        None => format!("an id that {:?} can have", token.content),
                    },
                    found: token.id.to_string(),
                    hint: "the ids of added tokens follow the vocabulary without gaps",
                });
            }
        }
        Ok(())
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

/// Runs the tokenizers library on data that it may not have checked: its panics become errors.
fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> std::result::Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the tokenizers library gave up on it".into()),
    }
}
