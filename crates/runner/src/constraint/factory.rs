//! Constraints of one vocabulary.

use super::compile::{self, LIMITS};
use super::error::{ConstraintError, reason};
use super::grammar::Grammar;
use super::matcher::Constraint;
use super::vocabulary::Vocabulary;
use crate::text::Tokenizer;
use llguidance::ParserFactory;
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{InferenceCapabilities, TokEnv};
use std::fmt;
use std::sync::Arc;

/// Makes the constraints of a model. Building one takes about as long as reading the tokenizer, and is done once.
pub struct ConstraintFactory {
    vocabulary: Arc<Vocabulary>,
    parsers: ParserFactory,
    stop_tokens: Vec<u32>,
}

impl ConstraintFactory {
    /// The constraints of a tokenizer's vocabulary. `stop_tokens` are those that end an answer.
    ///
    /// # Errors
    /// The bytes of single tokens are not known, or the vocabulary is too large.
    pub fn new(tokenizer: &Tokenizer, stop_tokens: &[u32]) -> Result<Self, ConstraintError> {
        let vocabulary = Arc::new(Vocabulary::new(tokenizer)?);
        let tokens: TokEnv = vocabulary.clone();
        let capabilities = InferenceCapabilities::default();
        let mut parsers = ParserFactory::new(&tokens, capabilities, &SlicedBiasComputer::json_slices())
            .map_err(|error| ConstraintError::Vocabulary { reason: reason(&error) })?;
        parsers.quiet();
        *parsers.limits_mut() = LIMITS;
        Ok(Self { vocabulary, parsers, stop_tokens: stop_tokens.to_vec() })
    }

    /// Compiles a grammar.
    ///
    /// # Errors
    /// [`ConstraintError::Refused`] for a grammar that has a fault or cannot be enforced, [`ConstraintError::TooLarge`], and
    /// [`ConstraintError::NoStopToken`].
    pub fn compile(&self, grammar: &Grammar) -> Result<Constraint, ConstraintError> {
        self.compile_with(grammar, &self.stop_tokens)
    }

    /// Compiles a grammar for an answer with other stop tokens.
    ///
    /// # Errors
    /// As those of [`compile`](Self::compile).
    pub fn compile_with(&self, grammar: &Grammar, stop_tokens: &[u32]) -> Result<Constraint, ConstraintError> {
        if stop_tokens.is_empty() {
            return Err(ConstraintError::NoStopToken);
        }
        let parser = compile::parser(&self.parsers, grammar)?;
        let mut constraint = Constraint::new(self.vocabulary.clone(), parser, stop_tokens);
        // the parser keeps this mask for the first token
        match constraint.mask(&mut Vec::new()) {
            Ok(()) => Ok(constraint),
            Err(ConstraintError::DeadEnd) => Err(compile::no_match(grammar.kind())),
            Err(error) => Err(error),
        }
    }

    /// The number of tokens that a mask covers.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.size() as usize
    }

    /// The bytes of a token in the middle of a text. A special token has the byte 0xFF before its name; a token that is never
    /// allowed has none.
    pub fn token_bytes(&self, token: u32) -> &[u8] {
        self.vocabulary.word(token)
    }
}

impl fmt::Debug for ConstraintFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("ConstraintFactory");
        shown.field("vocab_size", &self.vocab_size()).field("stop_tokens", &self.stop_tokens).finish()
    }
}
