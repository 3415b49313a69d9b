//! Python's formats of numbers and texts: `repr`, `%` and `str.format`.

mod float;
mod percent;
mod spec;
mod template;

pub(crate) use float::{float_repr, round_half_even};
pub(crate) use percent::{percent, to_int};
pub(crate) use template::{Source, format_text};

use crate::error::{Result, fail};

/// Exclusive limit of widths and precisions in format strings.
const MOST: usize = 1 << 31;

/// Parses a width or a precision; also returns the rest of the text.
fn number(text: &str) -> Result<(Option<usize>, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 {
        return Ok((None, text));
    }
    match text[..digits].parse::<usize>() {
        Ok(number) if number < MOST => Ok((Some(number), &text[digits..])),
        _ => fail!(Value, "Too many decimal digits in format string"),
    }
}
