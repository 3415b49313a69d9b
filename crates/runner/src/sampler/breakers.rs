//! Sequence breakers of DRY.

use crate::text::{Error, Tokenizer};
use std::collections::HashMap;

/// Longest breaker in bytes; the rest of a longer text is not used. llama.cpp's `MAX_CHAR_LEN`.
const MOST_BYTES: usize = 40;

/// Most tokens of a breaker after its first. llama.cpp's `MAX_SEQ_LEN`.
const MOST_TOKENS: usize = 20;

/// Sequence breakers of DRY as tokens: no repetition extends over them. Each is a token, and the tokens that must follow it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DryBreakers(HashMap<u32, Vec<Vec<u32>>>);

impl DryBreakers {
    /// Breakers of these texts, as in llama.cpp's `get_overlapping_token_sequences`: tokens whose text contains a breaker, and tokens
    /// whose text ends with a breaker's beginning, if the tokens of its rest follow. Texts of tokens are decoded one by one, so a
    /// breaker is not found in a token that ends within its first character. Empty texts break nothing.
    ///
    /// # Errors
    /// The tokenizer cannot decode a token or encode a text.
    pub fn new(tokenizer: &Tokenizer, texts: &[String]) -> Result<Self, Error> {
        let texts: Vec<&str> = texts.iter().map(|text| &text[..text.floor_char_boundary(MOST_BYTES)]).collect();
        let mut breakers = Self::default();
        for token in 0..u32::try_from(tokenizer.vocab_size()).unwrap_or(u32::MAX) {
            let word = tokenizer.decode(&[token], false)?;
            for text in texts.iter().filter(|text| !text.is_empty()) {
                if word.contains(*text) {
                    breakers.insert(token, Vec::new());
                    continue;
                }
                for rest in rests(&word, text) {
                    let mut tail = tokenizer.encode(rest, false)?;
                    tail.truncate(MOST_TOKENS);
                    breakers.insert(token, tail);
                }
            }
        }
        Ok(breakers)
    }

    /// Breakers of these sequences of tokens. Empty ones break nothing.
    pub fn from_tokens(sequences: impl IntoIterator<Item = Vec<u32>>) -> Self {
        let mut breakers = Self::default();
        for sequence in sequences {
            if let Some((&head, tail)) = sequence.split_first() {
                breakers.insert(head, tail.to_vec());
            }
        }
        breakers
    }

    fn insert(&mut self, head: u32, tail: Vec<u32>) {
        let tails = self.0.entry(head).or_default();
        if !tails.contains(&tail) {
            tails.push(tail);
        }
    }

    /// Whether a token alone is a breaker.
    pub(super) fn breaks(&self, token: u32) -> bool {
        self.0.get(&token).is_some_and(|tails| tails.iter().any(Vec::is_empty))
    }

    /// Number of tokens after the last breaker, all if there is none. Of the breakers that begin at one token the longest counts.
    pub(super) fn distance(&self, text: &[u32]) -> usize {
        let after = (0..text.len()).rev().find_map(|at| {
            let follows = &text[at + 1..];
            let tails = self.0.get(&text[at])?.iter().filter(|tail| follows.starts_with(tail));
            tails.map(Vec::len).max().map(|length| follows.len() - length)
        });
        after.unwrap_or(text.len())
    }
}

/// The rests of a text after its beginnings with which a word ends.
fn rests<'a>(word: &str, text: &'a str) -> impl Iterator<Item = &'a str> {
    let beginnings = text.char_indices().map(|(at, _)| text.split_at(at)).skip(1);
    beginnings.filter(|(beginning, _)| word.ends_with(beginning)).map(|(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_follow_the_end_of_a_word() {
        let of = |word, text| rests(word, text).collect::<Vec<_>>();
        assert_eq!(of("xab", "abab"), ["ab"]);
        assert_eq!(of("xaba", "abac"), ["bac", "c"]);
        assert_eq!(of("ü", "üä"), ["ä"]);
        assert_eq!(of("", "ab"), [""; 0]);
        assert_eq!(of("b", "ab"), [""; 0]);
    }
}
