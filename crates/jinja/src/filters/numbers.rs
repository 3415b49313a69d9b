//! Filters of numbers.

use super::flag;
use crate::args::Args;
use crate::ast::Binary;
use crate::error::{ErrorKind, Result, fail};
use crate::format::round_half_even;
use crate::operators::{binary, floor_mod, too_large};
use crate::unicode;
use crate::value::Value;
use crate::vm::Vm;

pub(super) fn abs(value: &Value, args: Args) -> Result<Value> {
    args.places::<0>("abs", 0)?;
    match value {
        Value::Float(number) => Ok(Value::Float(number.abs())),
        other => match other.as_int() {
            Some(number) => number.checked_abs().map(Value::Int).ok_or_else(too_large),
            None => fail!(Type, "bad operand type for abs(): '{}'", other.type_name()),
        },
    }
}

/// Errors that the conversions replace by their default.
fn is_caught(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Type | ErrorKind::Value)
}

pub(super) fn int(vm: &mut Vm, value: &Value, args: Args) -> Result<Value> {
    let [default, base] = args.bind("do_int", ["default", "base"], 0)?;
    let first = match (value.as_str(), &base) {
        (Some(text), None) => parse_int(text, 10),
        (Some(text), Some(base)) => base.index().and_then(|base| parse_int(text, base)),
        (None, _) => to_int(value),
    };
    match first {
        Ok(number) => return Ok(Value::Int(number)),
        Err(error) if !is_caught(error.kind()) => return Err(error),
        Err(_) => {}
    }
    vm.budget.step()?;
    match to_float(value).and_then(|number| to_int(&Value::Float(number))) {
        Ok(number) => Ok(Value::Int(number)),
        Err(error) if is_caught(error.kind()) || error.kind() == ErrorKind::Overflow => {
            Ok(default.unwrap_or(Value::Int(0)))
        }
        Err(error) => Err(error),
    }
}

pub(super) fn float(vm: &mut Vm, value: &Value, args: Args) -> Result<Value> {
    let [default] = args.bind("do_float", ["default"], 0)?;
    vm.budget.step()?;
    match to_float(value) {
        Ok(number) => Ok(Value::Float(number)),
        Err(error) if is_caught(error.kind()) => Ok(default.unwrap_or(Value::Float(0.0))),
        Err(error) => Err(error),
    }
}

/// Python's `int(value)` for values other than strings.
fn to_int(value: &Value) -> Result<i128> {
    match value {
        Value::Float(number) => crate::format::to_int(*number),
        other => match other.as_int() {
            Some(number) => Ok(number),
            None => {
                other.defined()?;
                fail!(Type, "int() argument must be a string or a real number, not '{}'", other.type_name())
            }
        },
    }
}

/// Python's `float(value)`.
fn to_float(value: &Value) -> Result<f64> {
    if let Some(number) = value.as_float() {
        return Ok(number);
    }
    value.defined()?;
    match value.as_str() {
        Some(text) => match parse_float(text) {
            Some(number) => Ok(number),
            None => fail!(Value, "could not convert string to float: '{text}'"),
        },
        None => fail!(Type, "float() argument must be a string or a real number, not '{}'", value.type_name()),
    }
}

/// ASCII digits, without single underscores between them.
fn plain_digits(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.trim_matches(unicode::is_space).chars().peekable();
    let mut previous = ' ';
    while let Some(char) = chars.next() {
        let next = chars.peek().copied().unwrap_or(' ');
        match char {
            '_' if previous.is_alphanumeric() && next.is_alphanumeric() => {}
            '_' => return None,
            char => {
                out.push(unicode::decimal_value(char).and_then(|digit| char::from_digit(digit, 10)).unwrap_or(char))
            }
        }
        previous = char;
    }
    Some(out)
}

fn parse_float(text: &str) -> Option<f64> {
    let plain = plain_digits(text)?;
    let unsigned = plain.strip_prefix(['+', '-']).unwrap_or(&plain);
    let is_word = ["inf", "infinity", "nan"].iter().any(|word| unsigned.eq_ignore_ascii_case(word));
    let is_number = unsigned.starts_with(|char: char| char.is_ascii_digit() || char == '.');
    if is_word || is_number { plain.parse().ok() } else { None }
}

/// Python's `int(text, base)`.
fn parse_int(text: &str, base: i128) -> Result<i128> {
    let malformed = || fail!(Value, "invalid literal for int() with base {base}: '{text}'");
    if base != 0 && !(2..=36).contains(&base) {
        return fail!(Value, "int() base must be >= 2 and <= 36, or 0");
    }
    let trimmed = text.trim_matches(unicode::is_space);
    let (negative, unsigned) = match trimmed.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, trimmed.strip_prefix('+').unwrap_or(trimmed)),
    };
    let lower = unsigned.to_ascii_lowercase();
    let prefix = [("0b", 2), ("0o", 8), ("0x", 16)].into_iter().find(|(prefix, _)| lower.starts_with(prefix));
    let (radix, digits) = match prefix {
        Some((_, radix)) if base == 0 || base == radix => {
            (radix, unsigned[2..].strip_prefix('_').unwrap_or(&unsigned[2..]))
        }
        _ if base == 0 => (10, unsigned),
        _ => (base, unsigned),
    };
    let Some(plain) = plain_digits(digits).filter(|plain| plain.len() == plain.trim().len() && !plain.is_empty())
    else {
        return malformed();
    };
    if digits.starts_with(unicode::is_space) {
        return malformed();
    }
    let leading_zero =
        base == 0 && prefix.is_none() && plain.starts_with('0') && plain.bytes().any(|byte| byte != b'0');
    if leading_zero || !plain.chars().all(|char| char.is_digit(radix as u32)) {
        return malformed();
    }
    let significant = plain.trim_start_matches('0');
    let signed = if negative { format!("-{significant}") } else { significant.to_owned() };
    if significant.is_empty() {
        return Ok(0);
    }
    i128::from_str_radix(&signed, radix as u32).map_err(|_| too_large())
}

pub(super) fn round(vm: &mut Vm, value: &Value, args: Args) -> Result<Value> {
    let [precision, method] = args.bind("do_round", ["precision", "method"], 0)?;
    let precision = precision.unwrap_or(Value::Int(0));
    let method = method.unwrap_or_else(|| Value::str("common"));
    let up = match method.as_str() {
        Some("common") => return round_common(value, &precision),
        Some("ceil") => true,
        Some("floor") => false,
        _ => return fail!(Runtime, "method must be common, ceil or floor"),
    };
    let scale = binary(vm, Binary::Pow, &Value::Int(10), &precision)?;
    let scaled = binary(vm, Binary::Mul, value, &scale)?;
    let whole = match scaled {
        Value::Float(number) => Value::Int(crate::format::to_int(if up { number.ceil() } else { number.floor() })?),
        other => match other.as_int() {
            Some(number) => Value::Int(number),
            None => return fail!(Type, "must be real number, not {}", other.type_name()),
        },
    };
    binary(vm, Binary::Div, &whole, &scale)
}

/// Python's `round(value, precision)`.
fn round_common(value: &Value, precision: &Value) -> Result<Value> {
    let digits = match precision {
        Value::None => None,
        precision => Some(precision.index()?),
    };
    match (value, value.as_int()) {
        (Value::Float(number), _) => match digits {
            Some(digits) => Ok(Value::Float(round_half_even(*number, digits))),
            None => crate::format::to_int(round_half_even(*number, 0)).map(Value::Int),
        },
        (_, Some(number)) => Ok(Value::Int(match digits {
            None | Some(0..) => number,
            Some(digits) => round_int(number, digits.unsigned_abs())?,
        })),
        (other, None) => fail!(Type, "type {} doesn't define __round__ method", other.type_name()),
    }
}

/// Rounds to a multiple of `10^digits`, ties to even.
fn round_int(number: i128, digits: u128) -> Result<i128> {
    let Some(scale) = u32::try_from(digits).ok().and_then(|digits| 10i128.checked_pow(digits)) else { return Ok(0) };
    let rest = floor_mod(number, scale);
    let below = number - rest;
    let up = match (rest * 2).cmp(&scale) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Equal => floor_mod(below / scale, 2) != 0,
        std::cmp::Ordering::Greater => true,
    };
    if up { below.checked_add(scale).ok_or_else(too_large) } else { Ok(below) }
}

pub(super) fn filesizeformat(vm: &mut Vm, value: &Value, args: Args) -> Result<Value> {
    let [binary] = args.bind("do_filesizeformat", ["binary"], 0)?;
    let is_binary = flag(vm, binary)?;
    let bytes = to_float(value)?;
    let (base, middle) = if is_binary { (1024f64, "i") } else { (1000f64, "") };
    if bytes == 1.0 {
        return Ok(Value::str("1 Byte"));
    }
    if bytes < base {
        return Ok(Value::str(format!("{} Bytes", crate::format::to_int(bytes)?)));
    }
    let prefixes = ["k", "M", "G", "T", "P", "E", "Z", "Y"];
    let mut unit = base;
    let mut prefix = "k";
    for next in prefixes {
        prefix = next;
        unit *= base;
        if bytes < unit {
            break;
        }
    }
    let prefix = if is_binary && prefix == "k" { "K" } else { prefix };
    let shown = base * bytes / unit;
    let shown = if shown.is_finite() { format!("{shown:.1}") } else { crate::format::float_repr(shown) };
    Ok(Value::str(format!("{shown} {prefix}{middle}B")))
}
