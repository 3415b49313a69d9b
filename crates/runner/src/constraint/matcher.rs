//! The state of a grammar in an answer.

use super::error::{ConstraintError, reason};
use super::vocabulary::Vocabulary;
use llguidance::toktrie::SimpleVob;
use llguidance::{Matcher, TokenParser};
use std::fmt;
use std::sync::Arc;

/// A grammar, and the answer so far. After an error other than [`ConstraintError::NotAllowed`] it cannot be used further.
pub struct Constraint {
    vocabulary: Arc<Vocabulary>,
    matcher: Matcher,
    /// Tokens that end the answer.
    stop_tokens: Vec<u32>,
    /// Number of tokens so far.
    tokens: usize,
    /// Place of the first token with text, and the number of tokens that the parser got for it.
    first_text: Option<(usize, usize)>,
    /// Whether the last token is a stop token.
    ended: bool,
}

impl Constraint {
    pub(super) fn new(vocabulary: Arc<Vocabulary>, parser: TokenParser, stop_tokens: &[u32]) -> Self {
        let matcher = Matcher::new(Ok(parser));
        let stop_tokens = stop_tokens.to_vec();
        Self { vocabulary, matcher, stop_tokens, tokens: 0, first_text: None, ended: false }
    }

    /// Writes the mask of the tokens that can follow: token t is bit t % 32 of word t / 32. There are as many words as the
    /// vocabulary needs, more for a stop token beyond it. Stop tokens are in the mask if the answer can end here, and only then.
    ///
    /// # Errors
    /// [`ConstraintError::DeadEnd`] if no token can follow, [`ConstraintError::Failed`] if the parser exceeds a limit.
    pub fn mask(&mut self, out: &mut Vec<u32>) -> Result<(), ConstraintError> {
        let end = self.vocabulary.size();
        out.clear();
        let mut accepts = self.ended;
        if !self.ended {
            let allowed = self.matcher.compute_mask_or_eos().map_err(|error| failed(&error))?;
            out.extend_from_slice(&allowed.as_slice()[..end.div_ceil(32) as usize]);
            set(out, end, false);
            if self.first_text.is_none() {
                self.mask_of_first_text(&allowed, out)?;
            }
            accepts = allowed.is_allowed(end);
        }
        out.resize(end.div_ceil(32) as usize, 0);
        for &token in &self.stop_tokens {
            set(out, token, accepts);
        }
        match out.iter().all(|word| *word == 0) {
            true => Err(ConstraintError::DeadEnd),
            false => Ok(()),
        }
    }

    /// Changes the mask of tokens that begin with a space, if the decoder drops that space: the grammar applies to what is left.
    fn mask_of_first_text(&mut self, allowed: &SimpleVob, out: &mut [u32]) -> Result<(), ConstraintError> {
        let has_text = has_text(&self.vocabulary, allowed);
        for (token, rest) in self.vocabulary.spaced() {
            let fits = match rest[..] {
                // nothing is left: the text is still empty
                [] => has_text,
                [one] => allowed.is_allowed(one),
                [first, ..] => allowed.is_allowed(first) && fits(&mut self.matcher, rest)?,
            };
            let (word, bit) = (*token as usize / 32, 1 << (token % 32));
            if fits { out[word] |= bit } else { out[word] &= !bit }
        }
        Ok(())
    }

    /// Takes the token that was chosen.
    ///
    /// # Errors
    /// [`ConstraintError::NotAllowed`] if it is not in the mask; nothing has changed then.
    pub fn advance(&mut self, token: u32) -> Result<(), ConstraintError> {
        let refused = ConstraintError::NotAllowed { token };
        if self.stop_tokens.contains(&token) {
            if !self.is_accepting()? {
                return Err(refused);
            }
            self.ended = true;
        } else if self.ended || token >= self.vocabulary.size() || self.matcher.is_stopped() {
            return Err(self.matcher.get_error().map_or(refused, |error| failed(&error)));
        } else {
            self.advance_text(token)?;
        }
        self.tokens += 1;
        Ok(())
    }

    fn advance_text(&mut self, token: u32) -> Result<(), ConstraintError> {
        let vocabulary = self.vocabulary.clone();
        let after_space = match self.first_text {
            None => vocabulary.after_space(token),
            Some(_) => None,
        };
        let tokens = after_space.unwrap_or(std::slice::from_ref(&token));
        let fits = match tokens {
            [] => has_text(&vocabulary, &self.matcher.compute_mask_or_eos().map_err(|error| failed(&error))?),
            tokens => fits(&mut self.matcher, tokens)?,
        };
        if !fits {
            return Err(ConstraintError::NotAllowed { token });
        }
        self.matcher.consume_tokens(tokens).map_err(|error| failed(&error))?;
        if self.first_text.is_none() && !vocabulary.word(token).starts_with(&[0xFF]) {
            self.first_text = Some((self.tokens, tokens.len()));
        }
        Ok(())
    }

    /// Whether the answer is a complete match of the grammar. It may be possible to continue.
    ///
    /// # Errors
    /// [`ConstraintError::Failed`] if the parser has failed before.
    pub fn is_accepting(&mut self) -> Result<bool, ConstraintError> {
        self.matcher.is_accepting().map_err(|error| failed(&error))
    }

    /// Whether the answer is complete: nothing but a stop token can follow.
    pub fn is_complete(&self) -> bool {
        self.ended || (self.matcher.is_stopped() && !self.matcher.is_error())
    }

    /// Takes the last `count` tokens back.
    ///
    /// # Errors
    /// There are fewer tokens, or the grammar has rules of Lark with `stop` or `max_tokens`.
    pub fn rollback(&mut self, count: usize) -> Result<(), ConstraintError> {
        let fail = |reason: String| ConstraintError::Rollback { count, reason };
        let left = self.tokens.checked_sub(count).ok_or_else(|| fail(format!("there are {}", self.tokens)))?;
        let mut parsed = count - usize::from(self.ended && count > 0);
        if let Some((_, tokens)) = self.first_text.filter(|(at, _)| *at >= left) {
            parsed = parsed - 1 + tokens;
        }
        self.matcher.rollback(parsed).map_err(|error| fail(reason(&error)))?;
        self.first_text = self.first_text.filter(|(at, _)| *at < left);
        self.ended &= count == 0;
        self.tokens = left;
        Ok(())
    }
}

impl fmt::Debug for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Constraint");
        shown.field("tokens", &self.tokens).field("is_complete", &self.is_complete()).finish_non_exhaustive()
    }
}

/// Whether the grammar allows these tokens here, one after the other.
fn fits(matcher: &mut Matcher, tokens: &[u32]) -> Result<bool, ConstraintError> {
    Ok(matcher.validate_tokens(tokens).map_err(|error| failed(&error))? == tokens.len())
}

/// Whether a mask has a token with text.
fn has_text(vocabulary: &Vocabulary, mask: &SimpleVob) -> bool {
    mask.iter().any(|token| token < vocabulary.size() && !vocabulary.word(token).starts_with(&[0xFF]))
}

fn failed(error: &impl fmt::Display) -> ConstraintError {
    match reason(error) {
        // llguidance's name of a mask without tokens
        reason if reason == "NoExtensionBias" => ConstraintError::DeadEnd,
        reason => ConstraintError::Failed { reason },
    }
}

/// Sets or clears the bit of a token; a mask without the token has it clear.
fn set(mask: &mut Vec<u32>, token: u32, on: bool) {
    let (word, bit) = (token as usize / 32, 1 << (token % 32));
    if on && word >= mask.len() {
        mask.resize(word + 1, 0);
    }
    if let Some(word) = mask.get_mut(word) {
        if on { *word |= bit } else { *word &= !bit }
    }
}
