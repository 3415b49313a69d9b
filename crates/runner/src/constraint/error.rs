//! Errors of constraints.

use super::grammar::GrammarKind;

/// Errors of a grammar, or of an answer that has to match it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConstraintError {
    /// The grammar has a fault, or a keyword that cannot be enforced.
    #[error("{kind}: {reason}; hint: {hint}")]
    Refused {
        /// The kind of grammar.
        kind: GrammarKind,
        /// What is refused, with its name in the grammar.
        reason: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// The grammar exceeds a limit.
    #[error("{kind}: expected at most {most} {unit}, found {found}; hint: give a smaller one")]
    TooLarge {
        /// The kind of grammar.
        kind: GrammarKind,
        /// What is counted.
        unit: &'static str,
        /// The limit.
        most: usize,
        /// The count.
        found: usize,
    },
    /// The tokenizer's vocabulary cannot be used.
    #[error("a grammar cannot be applied with this tokenizer: {reason}; hint: ask without one")]
    Vocabulary {
        /// Why.
        reason: String,
    },
    /// No token ends the answer.
    #[error("a grammar needs a stop token, and there is none; hint: do not ignore the model's stop tokens")]
    NoStopToken,
    /// No token continues the answer, and the grammar does not accept its end.
    #[error("no token of the model continues the answer as the grammar demands; hint: change the grammar")]
    DeadEnd,
    /// The parser failed in the middle of an answer, most often at a limit.
    #[error("the grammar cannot be applied to this answer: {reason}; hint: simplify it")]
    Failed {
        /// The parser's reason.
        reason: String,
    },
    /// A token that the grammar does not allow here.
    #[error("the grammar does not allow token {token} here; hint: choose one of the mask")]
    NotAllowed {
        /// The token.
        token: u32,
    },
    /// Tokens cannot be taken back.
    #[error("{count} tokens cannot be taken back: {reason}; hint: start a new constraint")]
    Rollback {
        /// The number of tokens.
        count: usize,
        /// Why.
        reason: String,
    },
}

/// Longest reason in bytes: a fault in a large grammar may quote all of it.
const MOST_BYTES: usize = 400;

/// The message of an error of llguidance in one line, without its state and backtrace.
pub(super) fn reason(error: &impl std::fmt::Display) -> String {
    let text = format!("{error:#}");
    let end = ["\n<state>", "\n<non-verbose/>", "\n<backtrace>"].iter().filter_map(|mark| text.find(mark)).min();
    let lines = text[..end.unwrap_or(text.len())].lines().map(str::trim).filter(|line| !line.is_empty());
    let mut line = lines.collect::<Vec<_>>().join("; ");
    if line.len() > MOST_BYTES {
        line.truncate(line.floor_char_boundary(MOST_BYTES));
        line.push('…');
    }
    line
}
