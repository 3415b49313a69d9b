//! Texts of single tokens, for log-probabilities and `/tokenize`.

use phi3_runner::text::{TokenTable, Tokenizer};

/// Bytes of every token.
pub(crate) struct TokenTexts {
    tokenizer: Tokenizer,
    /// `None` for a decoder whose tokens have no bytes of their own.
    table: Option<TokenTable>,
}

impl TokenTexts {
    pub(crate) fn new(tokenizer: &Tokenizer) -> Self {
        Self { tokenizer: tokenizer.clone(), table: tokenizer.token_table().ok() }
    }

    /// The bytes of a token; none for an id without a token.
    pub(crate) fn bytes(&self, id: u32) -> Vec<u8> {
        match &self.table {
            Some(table) => table.bytes(id).unwrap_or_default().to_vec(),
            None => self.tokenizer.decode(&[id], false).unwrap_or_default().into_bytes(),
        }
    }

    /// The text of a token. Bytes that are not whole characters become replacement characters.
    pub(crate) fn text(&self, id: u32) -> String {
        String::from_utf8_lossy(&self.bytes(id)).into_owned()
    }

    /// The text of a token, unique for its bytes: those that are not whole characters are written as `bytes:\xe2\x80`, as in
    /// OpenAI's completions.
    pub(crate) fn unique_text(&self, id: u32) -> String {
        match String::from_utf8(self.bytes(id)) {
            Ok(text) => text,
            Err(error) => {
                let bytes = error.into_bytes();
                bytes.iter().fold(String::from("bytes:"), |text, byte| text + &format!("\\x{byte:02x}"))
            }
        }
    }
}

/// Number of characters that begin in some bytes of UTF-8.
pub(crate) fn characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0xC0 != 0x80).count()
}
