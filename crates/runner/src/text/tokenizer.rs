use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tokenizers::DecoderWrapper;

use super::added;
use super::companions::Companions;
use super::error::{Error, Result};
use super::guarded::guarded;
use super::outline::{HINT, Outline};

/// A tokenizer, from a `tokenizer.json`, a folder or a GGUF file. Clones share its data.
#[derive(Clone)]
pub struct Tokenizer(Arc<Inner>);

struct Inner {
    file: String,
    tokenizer: tokenizers::Tokenizer,
    special: HashSet<u32>,
    notes: Vec<String>,
    chat_begins_with: Option<u32>,
}

impl Tokenizer {
    /// Reads a `tokenizer.json` without the files beside it.
    ///
    /// # Errors
    /// The file cannot be read or is not a usable tokenizer.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|source| Error::Read { path: path.into(), source })?;
        Self::from_bytes(path.display().to_string(), &bytes)
    }

    /// Reads the bytes of a `tokenizer.json`; `name` is its name in errors.
    ///
    /// # Errors
    /// The bytes are not a usable tokenizer.
    pub fn from_bytes(name: impl Into<String>, bytes: &[u8]) -> Result<Self> {
        Self::with_companions(name.into(), bytes, Companions::default())
    }

    /// A `tokenizer.json` with the additions of the files beside it.
    pub(super) fn with_companions(file: String, bytes: &[u8], companions: Companions) -> Result<Self> {
        let bytes = phi3_model::json_text(Path::new(&file), bytes)?;
        let outline = Outline::parse(&file, &bytes)?;
        let chat_begins_with = companions.chat_begins_with;
        let added = added::open(&file, &bytes, &outline, companions)?;
        let mut tokenizer = added.tokenizer;
        // Prompts are neither truncated nor padded, whatever the file's settings.
        tokenizer.with_padding(None);
        let uncut = guarded(|| tokenizer.with_truncation(None).map(|_| ()));
        uncut.map_err(|reason| Error::Malformed { file: file.clone(), reason, hint: HINT })?;
        let (special, notes) = (added.special, added.notes);
        let tokenizer = Self(Arc::new(Inner { file, tokenizer, special, notes, chat_begins_with }));
        tokenizer.probe()?;
        Ok(tokenizer)
    }

    /// The token ids of a text; with `add_special`, with those that the tokenizer adds around it (such as `<s>`).
    ///
    /// # Errors
    /// The text has a character that the vocabulary cannot express.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let inner = &*self.0;
        guarded(|| inner.tokenizer.encode_fast(text, add_special))
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(|reason| Error::Encode { file: inner.file.clone(), bytes: text.len(), reason })
    }

    /// The token ids of a rendered chat. No special tokens are added, as the template prints them. The exception is a GGUF file
    /// with `tokenizer.ggml.add_bos_token`: the token that begins a text is added if the template does not print it.
    ///
    /// # Errors
    /// The text has a character that the vocabulary cannot express.
    pub fn encode_chat(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = self.encode(text, false)?;
        if let Some(first) = self.0.chat_begins_with
            && ids.first() != Some(&first)
        {
            ids.insert(0, first);
        }
        Ok(ids)
    }

    /// The text of token ids; with `skip_special`, without the special tokens. Ids outside the vocabulary have no text: a
    /// checkpoint may have more rows than tokens.
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

    /// Notes about values in the tokenizer's files that are ignored or replaced: one sentence each.
    pub fn notes(&self) -> &[String] {
        &self.0.notes
    }

    /// Whether the id is a special token, one that `decode` can skip.
    pub fn is_special(&self, id: u32) -> bool {
        self.0.special.contains(&id)
    }

    /// The number of tokens, added ones included. A checkpoint may have more rows than that.
    pub fn vocab_size(&self) -> usize {
        self.0.tokenizer.get_vocab_size(true)
    }

    /// The largest id, plus 1: more than [`vocab_size`](Self::vocab_size) if ids have gaps.
    pub fn id_limit(&self) -> u32 {
        let ids = self.0.tokenizer.get_vocab(true).into_values();
        ids.max().map_or(0, |id| id.saturating_add(1))
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

    /// The file, for messages.
    pub(super) fn file(&self) -> &str {
        &self.0.file
    }

    /// Whether the id is an added token, special or not.
    pub(super) fn is_added(&self, id: u32) -> bool {
        self.0.tokenizer.get_added_vocabulary().get_added_tokens_decoder().contains_key(&id)
    }

    /// The added tokens, in the order of their ids.
    pub(super) fn added_tokens(&self) -> Vec<String> {
        let tokens = self.0.tokenizer.get_added_vocabulary().get_added_tokens_decoder();
        let mut tokens: Vec<(u32, String)> = tokens.iter().map(|(id, token)| (*id, token.content.clone())).collect();
        tokens.sort_unstable();
        tokens.into_iter().map(|(_, token)| token).collect()
    }

    /// The tokenizer as a `tokenizer.json`.
    pub(super) fn to_json(&self) -> Result<Value> {
        let malformed =
            |e: serde_json::Error| Error::Malformed { file: self.0.file.clone(), reason: e.to_string(), hint: HINT };
        serde_json::to_value(&self.0.tokenizer).map_err(malformed)
    }

    /// Encodes and decodes a short text, to find faults that show only in use.
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
