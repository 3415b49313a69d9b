//! HTML's character references.

use std::collections::HashMap;
use std::sync::LazyLock;

/// One entry per line: `name text`. Names that are valid without the semicolon have a second entry without it.
const TABLE: &str = include_str!("entities.txt");

/// Length of the longest name in bytes.
const LONGEST: usize = 33;

static NAMES: LazyLock<HashMap<&str, &str>> = LazyLock::new(|| {
    let names = TABLE.lines().filter_map(|line| line.split_once(' '));
    names.chain([("NewLine;", "\n"), ("Tab;", "\t")]).collect()
});

/// Windows-1252 characters of the codes 0x80 to 0x9F.
const WINDOWS: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8D}', 'Ž', '\u{8F}', '\u{90}', '‘', '’',
    '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9D}', 'ž', 'Ÿ',
];

/// Python's `html.unescape`.
pub(crate) fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let (character, length) = reference(rest);
        out.push_str(&character);
        rest = &rest[length..];
    }
    out + rest
}

/// The text of a reference, and its length in bytes; `rest` starts after the `&`.
fn reference(rest: &str) -> (String, usize) {
    if let Some(number) = rest.strip_prefix('#') {
        let (radix, digits) = match number.strip_prefix(['x', 'X']) {
            Some(digits) => (16, digits),
            None => (10, number),
        };
        let length = digits.bytes().take_while(|byte| char::from(*byte).is_digit(radix)).count();
        if length > 0 {
            let semicolon = usize::from(digits[length..].starts_with(';'));
            let code = u32::from_str_radix(&digits[..length], radix).unwrap_or(u32::MAX);
            return (of_code(code), rest.len() - digits.len() + length + semicolon);
        }
        return ("&".into(), 0);
    }
    let end =
        rest.char_indices().position(|(_, char)| matches!(char, '\t' | '\n' | '\x0C' | ' ' | '<' | '&' | '#' | ';'));
    let count = end.unwrap_or(usize::MAX).min(32);
    let length = rest.char_indices().nth(count).map_or(rest.len(), |(at, _)| at);
    let length = length + usize::from(rest[length..].starts_with(';') && length > 0);
    let name = &rest[..length];
    if let Some(text) = NAMES.get(name) {
        return ((*text).into(), length);
    }
    let shorter = (2..length.min(LONGEST)).rev().filter(|length| name.is_char_boundary(*length));
    let known = shorter.filter_map(|length| Some((length, *NAMES.get(&name[..length])?))).next();
    known.map_or(("&".into(), 0), |(length, text)| (text.into(), length))
}

fn of_code(code: u32) -> String {
    match code {
        0 => "\u{FFFD}".into(),
        0x0D => "\r".into(),
        0x80..=0x9F => WINDOWS[code as usize - 0x80].into(),
        0x01..=0x08 | 0x0B | 0x0E..=0x1F | 0x7F | 0xFDD0..=0xFDEF => String::new(),
        code if code & 0xFFFE == 0xFFFE && code <= 0x10_FFFF => String::new(),
        code => char::from_u32(code).unwrap_or('\u{FFFD}').into(),
    }
}
