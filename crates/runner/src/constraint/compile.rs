//! Compilation of a grammar by llguidance, within limits.

use super::error::{ConstraintError, reason};
use super::grammar::{Grammar, GrammarKind};
use super::schema;
use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::{ParserFactory, TokenParser};

/// Limits of llguidance. A grammar comes from a request, and must not cost a server more than it is worth.
pub(super) const LIMITS: ParserLimits = ParserLimits {
    // the default: grammars that need more are ambiguous
    max_items_in_row: 2_000,
    // about 20 ms; the largest published schemas (FHIR) take half
    initial_lexer_fuel: 1_000_000,
    // about 15 ms a mask
    step_lexer_fuel: 200_000,
    // about 3 ms a mask
    step_max_items: 50_000,
    // 1 to 2 kB each: 100 MB, where the default is 500
    max_lexer_states: 50_000,
    // the size of FHIR's schema
    max_grammar_size: 200_000,
    precompute_large_lexemes: true,
    // errors without the grammar
    verbose_errors: false,
};

/// Longest regular expression in bytes: a chain of optional parts takes time in the square of its length, 0.1 s at the limit.
const MOST_REGEX: usize = 8 << 10;

/// Longest Lark grammar in bytes, which may define such a chain. That of Python has 10,000.
const MOST_LARK: usize = 16 << 10;

/// Stack of the compilation. Measured without optimization: at most 16 kB for a level of a schema's recursion, 8 kB for a rule of
/// Lark that refers to the next.
#[cfg(not(target_family = "wasm"))]
const STACK_BYTES: usize = 128 << 20;

/// The parser of a grammar at its start.
pub(super) fn parser(parsers: &ParserFactory, grammar: &Grammar) -> Result<TokenParser, ConstraintError> {
    let kind = grammar.kind();
    let top = match grammar {
        Grammar::JsonSchema(schema) => TopLevelGrammar::from_json_schema(schema::prepared(schema)?),
        Grammar::JsonObject => TopLevelGrammar::from_json_schema(schema::any_object()),
        Grammar::Regex(text) => {
            check_length(kind, text, MOST_REGEX)?;
            TopLevelGrammar::from_regex(text)
        }
        Grammar::Lark(text) => {
            check_length(kind, text, MOST_LARK)?;
            if has_temperature(text) {
                let reason = "`temperature` of a rule cannot be applied".into();
                return Err(ConstraintError::Refused { kind, reason, hint: "set the temperature of the answer" });
            }
            TopLevelGrammar::from_lark(text.clone())
        }
    };
    let refused = |reason: String| {
        let reason = match (kind, reason.starts_with("regex parse error")) {
            (GrammarKind::JsonSchema, true) => format!("`pattern` or `patternProperties`: {reason}"),
            _ => reason,
        };
        ConstraintError::Refused { kind, hint: hint(kind, &reason), reason }
    };
    let mut parser = on_large_stack(|| parsers.create_parser(top).map_err(|error| reason(&error)))
        .map_err(|error| refused(error.to_string()))?
        .map_err(refused)?;
    // a warning is about a rule that would not be enforced
    if let Some(warning) = parser.grammar_warnings().first() {
        return Err(refused(warning.clone()));
    }
    Ok(parser)
}

fn check_length(kind: GrammarKind, text: &str, most: usize) -> Result<(), ConstraintError> {
    match text.len() > most {
        true => Err(ConstraintError::TooLarge { kind, unit: "bytes", most, found: text.len() }),
        false => Ok(()),
    }
}

/// Whether a rule has the attribute `temperature`, which llguidance leaves to the sampler: `rule[temperature=0.5]`.
fn has_temperature(text: &str) -> bool {
    text.match_indices("temperature").any(|(at, name)| {
        let is_attribute = text[..at].trim_end().ends_with(['[', ',']);
        is_attribute && text[at + name.len()..].trim_start().starts_with('=')
    })
}

/// The refusal of a grammar that no text matches.
pub(super) fn no_match(kind: GrammarKind) -> ConstraintError {
    let reason = "no text matches it".into();
    ConstraintError::Refused {
        kind,
        reason,
        hint: "look for a rule that needs itself, or rules that exclude each other",
    }
}

fn hint(kind: GrammarKind, reason: &str) -> &'static str {
    match kind {
        GrammarKind::JsonSchema if reason.contains("oneOf") => {
            "write anyOf, or give the alternatives a required property with different constants"
        }
        GrammarKind::JsonSchema => "leave that part out, or write it with other keywords",
        GrammarKind::Regex if reason.contains("look") => "leave out \\b, and ^ and $ within the pattern",
        GrammarKind::Regex => "the syntax is that of Rust's crate regex, without look-around and back-references",
        GrammarKind::Lark => "the syntax is llguidance's: docs/syntax.md in its repository",
    }
}

/// Runs recursive work, where a thread can have a stack of its own.
#[cfg(not(target_family = "wasm"))]
fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> std::io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work)?;
        thread.join().map_err(|_| std::io::Error::other("the compilation failed without a reason"))
    })
}

#[cfg(target_family = "wasm")]
fn on_large_stack<T>(work: impl FnOnce() -> T) -> std::io::Result<T> {
    Ok(work())
}
