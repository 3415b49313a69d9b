//! Upper, lower and title case.

use crate::unicode;

/// The characters with their lower case, which depends on the neighbours for a final sigma.
fn lowered(text: &str) -> Vec<(char, String)> {
    let lower = text.to_lowercase();
    let mut rest = &*lower;
    let pieces = text.chars().map(|char| {
        let length = char.to_lowercase().map(char::len_utf8).sum();
        let (piece, after) = rest.split_at(length);
        rest = after;
        (char, piece.to_owned())
    });
    pieces.collect()
}

pub(crate) fn lower(text: &str) -> String {
    text.to_lowercase()
}

pub(crate) fn upper(text: &str) -> String {
    text.to_uppercase()
}

pub(crate) fn capitalize(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (i, (char, lower)) in lowered(text).into_iter().enumerate() {
        if i == 0 { unicode::title(char, &mut out) } else { out.push_str(&lower) }
    }
    out
}

pub(super) fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_word = false;
    for (char, lower) in lowered(text) {
        if in_word {
            out.push_str(&lower)
        } else {
            unicode::title(char, &mut out)
        }
        in_word = unicode::is_cased(char);
    }
    out
}

pub(super) fn swapcase(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (char, lower) in lowered(text) {
        match char {
            char if char.is_uppercase() => out.push_str(&lower),
            char if char.is_lowercase() => out.extend(char.to_uppercase()),
            char => out.push(char),
        }
    }
    out
}

pub(crate) fn is_lower(text: &str) -> bool {
    let mut cased = text.chars().filter(|char| unicode::is_cased(*char)).peekable();
    cased.peek().is_some() && cased.all(char::is_lowercase)
}

pub(crate) fn is_upper(text: &str) -> bool {
    let mut cased = text.chars().filter(|char| unicode::is_cased(*char)).peekable();
    cased.peek().is_some() && cased.all(char::is_uppercase)
}

pub(super) fn is_title(text: &str) -> bool {
    let (mut in_word, mut any) = (false, false);
    for char in text.chars() {
        let is_start = char.is_uppercase() || unicode::is_title(char);
        if is_start && in_word || char.is_lowercase() && !in_word {
            return false;
        }
        in_word = is_start || char.is_lowercase();
        any |= in_word;
    }
    any
}
