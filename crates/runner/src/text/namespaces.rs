//! Namespaces, the only values of a template that change, without the ones that contain themselves.
//!
//! Values are written, compared and dropped by recursion, which has no end for those. So what is assigned to a namespace's
//! attribute is looked through before: `{% set ns.x = e %}` becomes `{% set ns.x = (e)|unshared %}`.

use minijinja::machinery::{Token, tokenize};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Error, ErrorKind, functions};
use std::cell::Cell;

/// Name of the filter [`unshared`].
pub(super) const FILTER: &str = "unshared";

/// How deep values lie within values that a namespace keeps.
const DEEPEST: usize = 1000;

/// Values within values that one rendering looks through.
const MOST: usize = 10_000_000;

thread_local! {
    static LEFT: Cell<usize> = const { Cell::new(MOST) };
}

/// A rendering begins on this thread.
pub(super) fn begin() {
    LEFT.set(MOST);
}

/// The template with every assignment to an attribute guarded; what is no valid template comes back as it is, or with other
/// faults than it had.
pub(super) fn guarded(source: &str, syntax: SyntaxConfig) -> String {
    let mut insertions: Vec<(usize, String)> = Vec::new();
    let mut tokens = tokenize(source, false, syntax).map_while(Result::ok);
    while let Some((token, _)) = tokens.next() {
        if !matches!(token, Token::BlockStart) || !matches!(tokens.next(), Some((Token::Ident("set"), _))) {
            continue;
        }
        let (mut depth, mut attribute, mut open) = (0usize, false, None);
        for (token, span) in tokens.by_ref() {
            match token {
                Token::ParenOpen => depth += 1,
                Token::ParenClose => depth = depth.saturating_sub(1),
                Token::Dot if open.is_none() => attribute = true,
                Token::Assign if depth == 0 && open.is_none() => open = Some((span.end_offset, "(")),
                // a block that is assigned, through filters
                Token::Pipe if depth == 0 && open.is_none() => open = Some((span.end_offset, "")),
                Token::BlockEnd => {
                    if let (true, Some((at, bracket))) = (attribute, open) {
                        insertions.push((at as usize, bracket.into()));
                        let close = if bracket.is_empty() { "" } else { ")" };
                        insertions.push((span.start_offset as usize, format!("{close}|{FILTER} ")));
                    }
                    break;
                }
                _ => {}
            }
        }
    }
    let mut out = String::with_capacity(source.len() + 16 * insertions.len());
    let mut from = 0;
    for (at, text) in insertions {
        out.push_str(&source[from..at]);
        out.push_str(&text);
        from = at;
    }
    out + &source[from..]
}

/// The filter: its value, if no namespace is within and it is neither too deep nor too large.
pub(super) fn unshared(value: Value) -> Result<Value, Error> {
    let refused = |why: String| Error::new(ErrorKind::InvalidOperation, format!("a namespace cannot keep {why}"));
    let namespace = functions::namespace(None)?;
    let namespace = namespace.as_object().map(|object| object.type_name());
    // what is to be looked through, and how deep it lies
    let mut rest = vec![(value.clone(), 0)];
    while let Some((value, depth)) = rest.pop() {
        let Some(object) = value.as_object() else { continue };
        if Some(object.type_name()) == namespace {
            return Err(refused("a namespace".into()));
        }
        if depth == DEEPEST {
            return Err(refused(format!("values {DEEPEST} deep within values")));
        }
        for (key, value) in object.try_iter_pairs().into_iter().flatten() {
            let left = LEFT.get().checked_sub(1).ok_or_else(|| refused("so many values".into()))?;
            LEFT.set(left);
            rest.push((key, depth + 1));
            rest.push((value, depth + 1));
        }
    }
    Ok(value)
}
