//! The vocabulary as llguidance's trie of bytes.

use super::error::ConstraintError;
use crate::text::{TokenBytes, Tokenizer};
use llguidance::panic_utils::catch_unwind;
use llguidance::toktrie::{TokRxInfo, TokTrie, TokenId, TokenizerEnv};
use std::panic::AssertUnwindSafe;

/// Longest token of the trie in bytes; it has a limit of 1,024 for words with their mark. Longer tokens are never allowed.
const MOST_BYTES: usize = 1000;

/// Largest vocabulary of the trie, which packs an id into 24 bits.
const MOST_TOKENS: u32 = (1 << 24) - 2;

/// The tokens of a model as words of bytes.
pub(super) struct Vocabulary {
    trie: TokTrie,
    /// The tokens that begin with a space, and the tokens of the rest of their bytes, by id. Empty if the decoder keeps the first
    /// space of a text.
    spaced: Vec<(u32, Vec<u32>)>,
}

impl Vocabulary {
    pub(super) fn new(tokenizer: &Tokenizer) -> Result<Self, ConstraintError> {
        let unusable = |reason: String| ConstraintError::Vocabulary { reason };
        let table = tokenizer.token_table().map_err(|error| unusable(error.to_string()))?;
        let size = u32::try_from(table.tokens.len()).ok().filter(|size| (1..MOST_TOKENS).contains(size));
        let size = size.ok_or_else(|| unusable(format!("it has {} tokens", table.tokens.len())))?;
        let mut words: Vec<Vec<u8>> = table.tokens.into_iter().map(word).collect();
        if table.drops_first_space {
            drop_words_without_rest(&mut words);
        }
        // a word that stands for the end of the answer, for which a model may have several tokens
        words.push([&[TokTrie::SPECIAL_TOKEN_MARKER], b"<end of the answer>".as_slice()].concat());
        let build = || {
            let trie = TokTrie::from(&TokRxInfo::new(size + 1, size), &words);
            let spaced = match table.drops_first_space {
                true => spaced(&trie, &words),
                false => Vec::new(),
            };
            Ok(Self { trie, spaced })
        };
        catch_unwind(AssertUnwindSafe(build)).map_err(|error| unusable(super::error::reason(&error)))
    }

    /// The number of tokens, which is also the id of the end of the answer.
    pub(super) fn size(&self) -> u32 {
        self.trie.eos_token()
    }

    /// The bytes of a token; a special token has the byte 0xFF before its name.
    pub(super) fn word(&self, token: u32) -> &[u8] {
        self.trie.token(token)
    }

    pub(super) fn spaced(&self) -> &[(u32, Vec<u32>)] {
        &self.spaced
    }

    /// The tokens of the bytes after the space of a token that begins with one, if the decoder drops that space.
    pub(super) fn after_space(&self, token: u32) -> Option<&[u32]> {
        let at = self.spaced.binary_search_by_key(&token, |(id, _)| *id).ok()?;
        Some(&self.spaced[at].1)
    }
}

/// The word of a token; an empty one is never allowed.
fn word(token: TokenBytes) -> Vec<u8> {
    let word = match token {
        TokenBytes::Text(bytes) if !bytes.contains(&TokTrie::SPECIAL_TOKEN_MARKER) => bytes,
        TokenBytes::Special(name) => [&[TokTrie::SPECIAL_TOKEN_MARKER], name.as_bytes()].concat(),
        TokenBytes::Text(_) | TokenBytes::Gap => Vec::new(),
    };
    if word.len() <= MOST_BYTES { word } else { Vec::new() }
}

/// Drops the words that begin with a space if the rest has a byte that no token has alone: the rest may have no tokens.
fn drop_words_without_rest(words: &mut [Vec<u8>]) {
    let mut has = [false; 256];
    words.iter().filter(|word| word.len() == 1).for_each(|word| has[usize::from(word[0])] = true);
    for word in words {
        if word.first() == Some(&b' ') && word.iter().any(|&byte| !has[usize::from(byte)]) {
            word.clear();
        }
    }
}

fn spaced(trie: &TokTrie, words: &[Vec<u8>]) -> Vec<(u32, Vec<u32>)> {
    let spaced = (0..).zip(words).filter_map(|(id, word)| Some((id, word.strip_prefix(b" ")?)));
    spaced.map(|(id, rest)| (id, trie.greedy_tokenize(rest))).collect()
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        self.trie.greedy_tokenize(bytes)
    }

    /// The tokens of a text depend on the text before, so forced text is left to the model token by token.
    fn tokenize_is_canonical(&self) -> bool {
        false
    }
}
