//! `text % values`

use super::float::{Digits, not_finite};
use super::number;
use crate::error::{Result, fail};
use crate::text::to_ascii;
use crate::value::Value;
use crate::vm::Vm;

#[derive(Default)]
struct Flags {
    left: bool,
    plus: bool,
    space: bool,
    alternate: bool,
    zero: bool,
}

/// The values to format.
struct Values<'v> {
    all: &'v Value,
    /// Number of values taken; a single value counts as a tuple of one.
    taken: usize,
}

impl Values<'_> {
    fn next(&mut self) -> Result<Value> {
        let value = match self.all {
            Value::Tuple(tuple) | Value::Group(tuple) => tuple.items.get(self.taken).cloned(),
            single if self.taken == 0 => Some(single.clone()),
            _ => None,
        };
        self.taken += 1;
        match value {
            Some(value) => Ok(value),
            None => fail!(Type, "not enough arguments for format string"),
        }
    }

    /// Whether the values support lookup by name; such values may stay unused.
    fn is_mapping(&self) -> bool {
        let is_tuple = matches!(self.all, Value::Tuple(_) | Value::Group(_));
        !is_tuple
            && matches!(
                self.all,
                Value::Dict(_) | Value::List(_) | Value::Undefined(_) | Value::Range(_) | Value::Bytes(_)
            )
    }

    fn are_left(&self) -> bool {
        match self.all {
            Value::Tuple(tuple) | Value::Group(tuple) => self.taken < tuple.items.len(),
            _ => self.taken == 0 && !self.is_mapping(),
        }
    }
}

/// Python's `%` with a string on the left; values are escaped if that string is `Markup`.
pub(crate) fn percent(vm: &mut Vm, format: &Value, values: &Value) -> Result<Value> {
    let text = format.text("format")?.clone();
    let is_markup = matches!(format, Value::Markup(_));
    let mut values = Values { all: values, taken: 0 };
    let mut out = String::new();
    let mut rest = &*text;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let start = out.len();
        rest = conversion(vm, rest, &mut values, is_markup, &mut out)?;
        vm.budget.charge(out.len() - start)?;
    }
    out.push_str(rest);
    vm.budget.charge(text.len())?;
    if values.are_left() {
        return fail!(Type, "not all arguments converted during string formatting");
    }
    let text = Value::Str(out.into());
    Ok(if is_markup { text.marked_up() } else { text })
}

/// One conversion, after its `%`; returns the rest of the format.
fn conversion<'f>(
    vm: &mut Vm,
    mut rest: &'f str,
    values: &mut Values<'_>,
    is_markup: bool,
    out: &mut String,
) -> Result<&'f str> {
    if let Some(after) = rest.strip_prefix('%') {
        out.push('%');
        return Ok(after);
    }
    let mut named = None;
    if let Some(inner) = rest.strip_prefix('(') {
        let Some(end) = closing(inner) else { return fail!(Value, "incomplete format key") };
        if !values.is_mapping() {
            return fail!(Type, "format requires a mapping");
        }
        named = Some(look_up(values.all, &inner[..end])?);
        rest = &inner[end + 1..];
    }
    let mut flags = Flags::default();
    loop {
        match rest.chars().next() {
            Some('-') => flags.left = true,
            Some('+') => flags.plus = true,
            Some(' ') => flags.space = true,
            Some('#') => flags.alternate = true,
            Some('0') => flags.zero = true,
            _ => break,
        }
        rest = &rest[1..];
    }
    let width = match rest.strip_prefix('*') {
        Some(after) => {
            rest = after;
            let width = starred(&values.next()?)?;
            flags.left |= width < 0;
            Some(width.unsigned_abs())
        }
        None => {
            let (width, after) = number(rest)?;
            rest = after;
            width
        }
    };
    let mut precision = None;
    if let Some(after) = rest.strip_prefix('.') {
        rest = after;
        precision = match rest.strip_prefix('*') {
            Some(after) => {
                rest = after;
                Some(usize::try_from(starred(&values.next()?)?).unwrap_or(0))
            }
            None => {
                let (precision, after) = number(rest)?;
                rest = after;
                Some(precision.unwrap_or(0))
            }
        };
    }
    rest = rest.strip_prefix(['h', 'l', 'L']).unwrap_or(rest);
    let Some(kind) = rest.chars().next() else { return fail!(Value, "incomplete format") };
    let after = &rest[kind.len_utf8()..];
    let value = match named {
        Some(value) => value,
        None => values.next()?,
    };
    let room = precision.unwrap_or(0).max(width.unwrap_or(0));
    vm.budget.charge(room)?;
    let (sign, digits) = converted(vm, kind, &value, precision, &flags, is_markup)?;
    pad(&sign, &digits, width.unwrap_or(0), &flags, is_number(kind), out);
    Ok(after)
}

fn is_number(kind: char) -> bool {
    "diouxXeEfFgG".contains(kind)
}

/// End of a key, which may contain nested parentheses.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 1;
    text.char_indices().find_map(|(at, char)| {
        depth += match char {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        (depth == 0).then_some(at)
    })
}

fn look_up(mapping: &Value, key: &str) -> Result<Value> {
    match mapping {
        Value::Dict(dict) => match dict.get_str(key) {
            Some(value) => Ok(value.clone()),
            None => fail!(Lookup, "'{key}'"),
        },
        other => {
            other.defined()?;
            fail!(Type, "{} indices must be integers or slices, not str", other.type_name())
        }
    }
}

fn starred(value: &Value) -> Result<isize> {
    match value.as_int().map(isize::try_from) {
        Some(Ok(number)) => Ok(number),
        Some(Err(_)) => fail!(Overflow, "Python int too large to convert to C int"),
        None => fail!(Type, "* wants int"),
    }
}

/// The sign with the prefix, and the remaining text.
fn converted(
    vm: &mut Vm,
    kind: char,
    value: &Value,
    precision: Option<usize>,
    flags: &Flags,
    is_markup: bool,
) -> Result<(String, String)> {
    match kind {
        's' | 'r' | 'a' => {
            let text = match kind {
                's' if is_markup => vm.escape(value)?.to_string(),
                's' => vm.str(value)?.to_string(),
                'r' => vm.repr(value)?,
                _ => to_ascii(&vm.repr(value)?),
            };
            let text = if is_markup && kind != 's' { vm.escape(&Value::str(text))?.to_string() } else { text };
            let cut = precision.and_then(|precision| text.char_indices().nth(precision)).map(|(at, _)| at);
            Ok((String::new(), text[..cut.unwrap_or(text.len())].into()))
        }
        'c' => Ok((String::new(), character(value)?.into())),
        'd' | 'i' | 'u' | 'o' | 'x' | 'X' => {
            let number = whole(kind, value)?;
            let magnitude = number.unsigned_abs();
            let (prefix, mut digits) = match kind {
                'o' => ("0o", format!("{magnitude:o}")),
                'x' => ("0x", format!("{magnitude:x}")),
                'X' => ("0X", format!("{magnitude:X}")),
                _ => ("", magnitude.to_string()),
            };
            let missing = precision.unwrap_or(0).saturating_sub(digits.len());
            digits.insert_str(0, &"0".repeat(missing));
            let prefix = if flags.alternate { prefix } else { "" };
            Ok((format!("{}{prefix}", sign(number < 0, flags)), digits))
        }
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
            let number = real(value)?;
            let digits = Digits {
                kind: kind.to_ascii_lowercase(),
                precision: precision.unwrap_or(6),
                alternate: flags.alternate,
                dot_zero: false,
            };
            let text = match number.is_finite() {
                true => digits.of(number.abs()),
                false => not_finite(number).trim_start_matches('-').into(),
            };
            let text = if kind.is_ascii_uppercase() { text.to_ascii_uppercase() } else { text };
            Ok((sign(number.is_sign_negative() && !number.is_nan(), flags).into(), text))
        }
        other => fail!(Value, "unsupported format character '{other}' (0x{:x})", u32::from(other)),
    }
}

fn sign(is_negative: bool, flags: &Flags) -> &'static str {
    match (is_negative, flags.plus, flags.space) {
        (true, ..) => "-",
        (false, true, _) => "+",
        (false, false, true) => " ",
        _ => "",
    }
}

fn whole(kind: char, value: &Value) -> Result<i128> {
    match value {
        Value::Float(number) if matches!(kind, 'd' | 'i' | 'u') => to_int(*number),
        other => match other.as_int() {
            Some(number) => Ok(number),
            None if matches!(kind, 'd' | 'i' | 'u') => {
                other.defined()?;
                fail!(Type, "%{kind} format: a real number is required, not {}", other.type_name())
            }
            None => fail!(Type, "%{kind} format: an integer is required, not {}", other.type_name()),
        },
    }
}

/// Python's `int(number)`.
pub(crate) fn to_int(number: f64) -> Result<i128> {
    match number {
        number if number.is_nan() => fail!(Value, "cannot convert float NaN to integer"),
        number if number.is_infinite() => fail!(Overflow, "cannot convert float infinity to integer"),
        number if number.abs() >= 1.7e38 => Err(crate::operators::too_large()),
        number => Ok(number as i128),
    }
}

fn real(value: &Value) -> Result<f64> {
    match value.as_float() {
        Some(number) => Ok(number),
        None => {
            value.defined()?;
            fail!(Type, "must be real number, not {}", value.type_name())
        }
    }
}

fn character(value: &Value) -> Result<char> {
    if let Some(text) = value.as_str() {
        let mut chars = text.chars();
        if let (Some(char), None) = (chars.next(), chars.next()) {
            return Ok(char);
        }
        return fail!(Type, "%c requires int or char");
    }
    match value.as_int() {
        Some(code) => match u32::try_from(code).ok().and_then(char::from_u32) {
            Some(char) => Ok(char),
            None => fail!(Overflow, "%c arg not in range(0x110000)"),
        },
        None => fail!(Type, "%c requires int or char"),
    }
}

fn pad(sign: &str, digits: &str, width: usize, flags: &Flags, is_number: bool, out: &mut String) {
    let missing = width.saturating_sub(sign.chars().count() + digits.chars().count());
    match (flags.left, flags.zero && is_number) {
        (true, _) => {
            out.push_str(sign);
            out.push_str(digits);
            out.push_str(&" ".repeat(missing));
        }
        (false, true) => {
            out.push_str(sign);
            out.push_str(&"0".repeat(missing));
            out.push_str(digits);
        }
        (false, false) => {
            out.push_str(&" ".repeat(missing));
            out.push_str(sign);
            out.push_str(digits);
        }
    }
}
