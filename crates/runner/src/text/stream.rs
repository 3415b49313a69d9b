use tokenizers::{Decoder, DecoderWrapper};

use super::error::{Error, Result};
use super::tokenizer::Tokenizer;

/// Decodes ids one by one into pieces of text, which together are exactly the text of [`Tokenizer::decode`] for all ids.
///
/// A piece never holds part of a character: bytes are held back until their text is final. With byte fallback (Phi-3), that is at
/// the first token that is not a byte, because one bad byte turns the whole run into U+FFFD. With a byte-level vocabulary (Phi-2,
/// Phi-4), it is at the end of the character. The cost of an id does not depend on the ids before.
#[derive(Debug)]
pub struct TextStream {
    tokenizer: Tokenizer,
    skip_special: bool,
    state: State,
}

#[derive(Debug)]
pub(super) enum State {
    /// Every token's characters are bytes in GPT-2's table; `bytes` is the unfinished character.
    ByteLevel { bytes: Vec<u8> },
    /// Llama's chain: rewrite each token, collect `<0xNN>` runs, join, drop spaces at the start.
    ByteFallback { rewrite: Vec<DecoderWrapper>, run: Vec<u8>, strip: Option<char>, strip_left: usize },
    /// Any other decoder may depend on all tokens: they are decoded at the end.
    Whole { ids: Vec<u32> },
}

impl Tokenizer {
    /// Decodes ids one by one.
    pub fn stream(&self, skip_special: bool) -> TextStream {
        let state = State::of(self.decoder());
        TextStream { tokenizer: self.clone(), skip_special, state }
    }
}

impl TextStream {
    /// The stream of the middle of a text: a space that the decoder drops at the start of a text is kept.
    #[must_use]
    pub fn continued(mut self) -> Self {
        if let State::ByteFallback { strip_left, .. } = &mut self.state {
            *strip_left = 0;
        }
        self
    }

    /// Takes the next id and returns the text that is final now, often none.
    ///
    /// # Errors
    /// The tokenizer's decoder fails.
    pub fn push(&mut self, id: u32) -> Result<String> {
        if let State::Whole { ids } = &mut self.state {
            ids.push(id);
            return Ok(String::new());
        }
        if self.skip_special && self.tokenizer.is_special(id) {
            return Ok(String::new());
        }
        let Some(token) = self.tokenizer.id_to_token(id) else { return Ok(String::new()) };
        self.state.push(token).map_err(|reason| Error::Decode {
            file: format!("{:?}", self.tokenizer),
            count: 1,
            reason: reason.to_string(),
        })
    }

    /// Returns the text that was held back, and resets the state.
    ///
    /// # Errors
    /// The tokenizer's decoder fails.
    pub fn finish(&mut self) -> Result<String> {
        let state = std::mem::replace(&mut self.state, State::of(self.tokenizer.decoder()));
        match state {
            State::Whole { ids } => self.tokenizer.decode(&ids, self.skip_special),
            State::ByteLevel { bytes } => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            State::ByteFallback { run, strip, mut strip_left, .. } => {
                Ok(stripped(text_of_run(run), strip, &mut strip_left))
            }
        }
    }
}

impl State {
    pub(super) fn of(decoder: Option<&DecoderWrapper>) -> Self {
        let chain = match decoder {
            Some(DecoderWrapper::Sequence(sequence)) => sequence.get_decoders(),
            Some(decoder) => std::slice::from_ref(decoder),
            None => &[],
        };
        if let [DecoderWrapper::ByteLevel(_)] = chain {
            return Self::ByteLevel { bytes: Vec::new() };
        }
        let Some(at) = chain.iter().position(|step| matches!(step, DecoderWrapper::ByteFallback(_))) else {
            return Self::Whole { ids: Vec::new() };
        };
        let (rewrite, rest) = (&chain[..at], &chain[at + 1..]);
        let (strip, strip_left) = match rest {
            [] | [DecoderWrapper::Fuse(_)] => (None, 0),
            [DecoderWrapper::Fuse(_), DecoderWrapper::Strip(strip)] if strip.stop == 0 => {
                (Some(strip.content), strip.start)
            }
            _ => return Self::Whole { ids: Vec::new() },
        };
        if !rewrite.iter().all(|step| matches!(step, DecoderWrapper::Replace(_))) {
            return Self::Whole { ids: Vec::new() };
        }
        Self::ByteFallback { rewrite: rewrite.to_vec(), run: Vec::new(), strip, strip_left }
    }

    fn push(&mut self, token: String) -> tokenizers::Result<String> {
        match self {
            Self::ByteLevel { bytes } => {
                append_bytes(bytes, &token);
                Ok(take_whole_characters(bytes))
            }
            Self::ByteFallback { rewrite, run, strip, strip_left } => {
                let token = rewritten(rewrite, token)?;
                if let Some(byte) = fallback_byte(&token) {
                    run.push(byte);
                    return Ok(String::new());
                }
                let text = text_of_run(std::mem::take(run)) + &token;
                Ok(stripped(text, *strip, strip_left))
            }
            Self::Whole { .. } => Ok(String::new()),
        }
    }

    /// The bytes of one token in the middle of a text; for [`State::Whole`], those of its name.
    pub(super) fn bytes_of(&self, token: String) -> tokenizers::Result<Vec<u8>> {
        match self {
            Self::ByteLevel { .. } => {
                let mut bytes = Vec::new();
                append_bytes(&mut bytes, &token);
                Ok(bytes)
            }
            Self::ByteFallback { rewrite, .. } => {
                let token = rewritten(rewrite, token)?;
                Ok(fallback_byte(&token).map_or_else(|| token.into_bytes(), |byte| vec![byte]))
            }
            Self::Whole { .. } => Ok(token.into_bytes()),
        }
    }
}

fn rewritten(steps: &[DecoderWrapper], token: String) -> tokenizers::Result<String> {
    let mut tokens = vec![token];
    for step in steps {
        tokens = step.decode_chain(tokens)?;
    }
    Ok(tokens.concat())
}

fn fallback_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// A run that is not UTF-8 becomes one U+FFFD for every byte.
fn text_of_run(run: Vec<u8>) -> String {
    String::from_utf8(run).unwrap_or_else(|error| "\u{FFFD}".repeat(error.as_bytes().len()))
}

/// Drops up to `left` characters `strip` at the start of the whole text.
fn stripped(text: String, strip: Option<char>, left: &mut usize) -> String {
    let Some(strip) = strip else { return text };
    let mut rest = text.as_str();
    while *left > 0 && !rest.is_empty() {
        match rest.strip_prefix(strip) {
            Some(after) => (rest, *left) = (after, *left - 1),
            None => *left = 0,
        }
    }
    if rest.len() == text.len() { text } else { rest.to_owned() }
}

/// Appends the bytes of a byte-level token's characters; a token with any other character is its own text.
fn append_bytes(bytes: &mut Vec<u8>, token: &str) {
    let start = bytes.len();
    for char in token.chars() {
        match byte_of(char) {
            Some(byte) => bytes.push(byte),
            None => {
                bytes.truncate(start);
                bytes.extend_from_slice(token.as_bytes());
                return;
            }
        }
    }
}

/// The byte of a character in GPT-2's table: printable Latin-1 is unchanged, the other 68 bytes follow from U+0100 on.
fn byte_of(char: char) -> Option<u8> {
    let code = u32::from(char);
    match code {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => Some(code as u8),
        0x100..=0x120 => Some((code - 0x100) as u8),
        0x121..=0x142 => Some((code - 0x121 + 0x7F) as u8),
        0x143 => Some(0xAD),
        _ => None,
    }
}

/// Takes all but an unfinished character at the end; what is not UTF-8 becomes U+FFFD.
fn take_whole_characters(bytes: &mut Vec<u8>) -> String {
    let unfinished = bytes.utf8_chunks().last().map_or(0, |chunk| unfinished_length(chunk.invalid()));
    let rest = bytes.split_off(bytes.len() - unfinished);
    let text = String::from_utf8_lossy(bytes).into_owned();
    *bytes = rest;
    text
}

/// The length of `invalid` if more bytes can make it a character, else 0.
fn unfinished_length(invalid: &[u8]) -> usize {
    match std::str::from_utf8(invalid) {
        Err(error) if error.error_len().is_none() => invalid.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_table_is_a_bijection() {
        let mut bytes: Vec<u8> = (0..0x200).filter_map(char::from_u32).filter_map(byte_of).collect();
        assert_eq!(byte_of('Ġ'), Some(b' '));
        assert_eq!(byte_of('Ċ'), Some(b'\n'));
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
    }

    #[test]
    fn unfinished_characters_wait() {
        let mut bytes = "a🦙".as_bytes()[..3].to_vec();
        assert_eq!(take_whole_characters(&mut bytes), "a");
        assert_eq!(take_whole_characters(&mut bytes), "");
        bytes.extend(&"🦙".as_bytes()[2..]);
        assert_eq!(take_whole_characters(&mut bytes), "🦙");
        bytes.extend([0xC3, b'(']);
        assert_eq!(take_whole_characters(&mut bytes), "\u{FFFD}(");
        assert!(bytes.is_empty());
    }
}
