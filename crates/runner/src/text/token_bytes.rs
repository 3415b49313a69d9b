//! Bytes of single tokens.

use super::error::{Error, Result};
use super::stream::State;
use super::tokenizer::Tokenizer;

/// A token in the middle of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenBytes {
    /// Bytes of text, not always whole characters.
    Text(Vec<u8>),
    /// An added token, by its name. Added tokens of white space, which Phi-2 has, are text.
    Special(String),
    /// No token: the id is a gap in the vocabulary.
    Gap,
}

/// The bytes of every token.
#[derive(Clone, Debug)]
pub struct TokenTable {
    /// The tokens, by id.
    pub tokens: Vec<TokenBytes>,
    /// Whether the decoder drops one space at the start of a text, as that of Phi-3 does.
    pub drops_first_space: bool,
}

impl TokenTable {
    /// Bytes of a token, or of the name of a special one; `None` for an id without a token.
    pub fn bytes(&self, id: u32) -> Option<&[u8]> {
        match self.tokens.get(id as usize)? {
            TokenBytes::Text(bytes) => Some(bytes),
            TokenBytes::Special(name) => Some(name.as_bytes()),
            TokenBytes::Gap => None,
        }
    }
}

impl Tokenizer {
    /// The bytes that every token adds to the middle of a text: those of [`TextStream`](super::TextStream).
    ///
    /// # Errors
    /// The bytes of a token depend on other tokens: the decoder is neither byte-level nor Llama's.
    pub fn token_table(&self) -> Result<TokenTable> {
        let state = State::of(self.decoder());
        let fail = |reason: String| Error::Decode { file: self.file().to_owned(), count: 1, reason };
        let drops_first_space = match &state {
            State::ByteLevel { .. } => false,
            State::ByteFallback { strip_left: 0, .. } => false,
            State::ByteFallback { strip: Some(' '), strip_left: 1, .. } => true,
            _ => return Err(fail("the bytes of a single token are not known with this decoder".into())),
        };
        let tokens = (0..self.id_limit()).map(|id| {
            let Some(token) = self.id_to_token(id) else { return Ok(TokenBytes::Gap) };
            if self.is_special(id) || (self.is_added(id) && !token.trim().is_empty()) {
                return Ok(TokenBytes::Special(token));
            }
            state.bytes_of(token).map(TokenBytes::Text).map_err(|error| fail(error.to_string()))
        });
        Ok(TokenTable { tokens: tokens.collect::<Result<_>>()?, drops_first_space })
    }
}
