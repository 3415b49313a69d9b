//! Structured output: a grammar that an answer has to match, as a mask of tokens for every step.
//!
//! The parser is llguidance's. A grammar is either enforced entirely or refused with the reason.

mod compile;
mod error;
mod factory;
mod grammar;
mod matcher;
mod schema;
mod vocabulary;

pub use error::ConstraintError;
pub use factory::ConstraintFactory;
pub use grammar::{Grammar, GrammarKind};
pub use matcher::Constraint;
