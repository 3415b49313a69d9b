//! Character properties of Python's strings.

use std::sync::OnceLock;

use regex_syntax::hir::{Class, HirKind};

/// Python's `str.isspace` for a character; the separators U+001C to U+001F are white space there.
pub(crate) fn is_space(char: char) -> bool {
    char.is_whitespace() || ('\x1C'..='\x1F').contains(&char)
}

/// Line breaks of `str.splitlines`.
pub(crate) fn is_line_break(char: char) -> bool {
    matches!(char, '\n'..='\r' | '\x1C'..='\x1E' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// A set of characters, given as a character class of a regular expression.
struct Set {
    class: &'static str,
    ranges: OnceLock<Vec<(char, char)>>,
}

impl Set {
    const fn new(class: &'static str) -> Self {
        Self { class, ranges: OnceLock::new() }
    }

    fn has(&self, char: char) -> bool {
        let ranges = self.ranges.get_or_init(|| match regex_syntax::parse(self.class).map(|hir| hir.into_kind()) {
            Ok(HirKind::Class(Class::Unicode(class))) => {
                class.ranges().iter().map(|range| (range.start(), range.end())).collect()
            }
            _ => Vec::new(),
        });
        let at = ranges.partition_point(|&(_, end)| end < char);
        ranges.get(at).is_some_and(|&(start, _)| start <= char)
    }
}

static LETTERS: Set = Set::new(r"\p{L}");
static DECIMALS: Set = Set::new(r"\p{Nd}");
static NUMBERS: Set = Set::new(r"\p{N}");
static MARKS: Set = Set::new(r"[\p{M}\u00B7\u0387]");
static TITLES: Set = Set::new(r"\p{Lt}");
static HIDDEN: Set = Set::new(r"[\p{C}\p{Z}--\x20]");
static IDENTIFIER_START: Set = Set::new(r"[\p{XID_Start}_]");
static IDENTIFIER_REST: Set = Set::new(r"\p{XID_Continue}");

/// Digits that are not decimal, such as superscripts and circled digits.
static DIGITS: Set = Set::new(concat!(
    r"[\u00B2\u00B3\u00B9\u1369-\u1371\u19DA\u2070\u2074-\u2079\u2080-\u2089\u2460-\u2468\u2474-\u247C\u2488-\u2490",
    r"\u24EA\u24F5-\u24FD\u24FF\u2776-\u277E\u2780-\u2788\u278A-\u2792\U00010A40-\U00010A43\U00010E60-\U00010E68",
    r"\U00011052-\U0001105A\U0001F100-\U0001F10A]"
));

/// Ideographs with a numeric value.
const IDEOGRAPHS: &str = concat!(
    "㐅㒃㠪㭍一七万三九二五亖亿什仟仨伍佰億兆兩八六十千卄卅卌叁参參叄四壱壹幺廾廿弌弍弎弐拾捌柒漆玖百肆萬",
    "貮貳贰阡陆陌陸零參拾兩零六陸什𠀁𠁤𠃢𠄡𠤪𠦃𠦌𠦜𠫪𠫽𠬙𢎐𢦘𣬛𦉭廾",
);

pub(crate) fn is_alpha(char: char) -> bool {
    if char.is_ascii() { char.is_ascii_alphabetic() } else { LETTERS.has(char) }
}

pub(crate) fn is_decimal(char: char) -> bool {
    if char.is_ascii() { char.is_ascii_digit() } else { DECIMALS.has(char) }
}

pub(crate) fn is_digit(char: char) -> bool {
    is_decimal(char) || DIGITS.has(char)
}

pub(crate) fn is_numeric(char: char) -> bool {
    if char.is_ascii() { char.is_ascii_digit() } else { NUMBERS.has(char) || IDEOGRAPHS.contains(char) }
}

/// With the underscore, these are also the word characters (`\w`) of Python's regular expressions.
pub(crate) fn is_alphanumeric(char: char) -> bool {
    is_alpha(char) || is_numeric(char)
}

/// Characters that jinja2's lexer accepts in a name, after the first.
pub(crate) fn is_word_part(char: char) -> bool {
    is_alphanumeric(char) || !char.is_ascii() && MARKS.has(char)
}

pub(crate) fn is_printable(char: char) -> bool {
    if char.is_ascii() { !char.is_ascii_control() } else { !HIDDEN.has(char) }
}

pub(crate) fn is_identifier(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|char| IDENTIFIER_START.has(char)) && chars.all(|char| IDENTIFIER_REST.has(char))
}

pub(crate) fn is_title(char: char) -> bool {
    TITLES.has(char)
}

pub(crate) fn is_cased(char: char) -> bool {
    char.is_lowercase() || char.is_uppercase() || is_title(char)
}

/// Value of a decimal digit of any script. The ten digits of a script are consecutive, starting with zero.
pub(crate) fn decimal_value(char: char) -> Option<u32> {
    if char.is_ascii() || !is_decimal(char) {
        return char.to_digit(10);
    }
    let code = u32::from(char);
    let before = (1..code).take_while(|back| char::from_u32(code - back).is_some_and(is_decimal)).count();
    Some((before % 10) as u32)
}

/// Unicode title case of a character.
pub(crate) fn title(char: char, out: &mut String) {
    let code = u32::from(char);
    let single = match code {
        0x1C4..=0x1C6 => 0x1C5,
        0x1C7..=0x1C9 => 0x1C8,
        0x1CA..=0x1CC => 0x1CB,
        0x1F1..=0x1F3 => 0x1F2,
        0x10D0..=0x10FA | 0x10FD..=0x10FF | 0x1FBC | 0x1FCC | 0x1FFC => code,
        0x1F80..=0x1FAF => code | 8,
        0x1FB3 | 0x1FC3 | 0x1FF3 => code + 9,
        _ => 0,
    };
    if single != 0 {
        out.extend(char::from_u32(single));
        return;
    }
    let mut upper = char.to_uppercase();
    // upper case is an apostrophe and an N; both are kept
    if char == 'ŉ' {
        return out.extend(upper);
    }
    out.extend(upper.next());
    let is_greek = (0x1F00..0x2000).contains(&code);
    for rest in upper {
        match rest {
            'Ι' if is_greek => out.push('\u{345}'),
            rest => out.extend(rest.to_lowercase()),
        }
    }
}

/// Unicode's full case folding.
pub(crate) fn casefold(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        let code = u32::from(char);
        match code {
            0x131 | 0x13A0..=0x13F5 => out.push(char),
            0x13F8..=0x13FD => out.extend(char::from_u32(code - 8)),
            0xAB70..=0xABBF => out.extend(char::from_u32(code - 0xAB70 + 0x13A0)),
            _ => {
                let lower = char.to_lowercase();
                out.extend(lower.flat_map(|c| c.to_uppercase().collect::<Vec<_>>()).flat_map(|c| c.to_lowercase()));
            }
        }
    }
    out
}
