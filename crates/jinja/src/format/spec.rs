//! Python's format specifications: `format(value, "…")`.

use super::float::{Digits, float_repr, not_finite};
use super::number;
use crate::error::{Result, fail};
use crate::value::Value;
use crate::vm::Vm;

#[derive(Default)]
struct Spec {
    fill: Option<char>,
    align: Option<char>,
    sign: Option<char>,
    no_negative_zero: bool,
    alternate: bool,
    zero: bool,
    width: usize,
    grouping: Option<char>,
    precision: Option<usize>,
    kind: Option<char>,
}

impl Spec {
    fn parse(text: &str) -> Result<Self> {
        let mut spec = Self::default();
        let mut rest = text;
        let take = |rest: &mut &str, accept: &[char]| {
            let found = rest.chars().next().filter(|char| accept.contains(char));
            *rest = &rest[found.map_or(0, char::len_utf8)..];
            found
        };
        let mut chars = text.chars();
        if let (Some(fill), Some(align @ ('<' | '>' | '=' | '^'))) = (chars.next(), chars.next()) {
            (spec.fill, spec.align) = (Some(fill), Some(align));
            rest = chars.as_str();
        } else {
            spec.align = take(&mut rest, &['<', '>', '=', '^']);
        }
        spec.sign = take(&mut rest, &['+', '-', ' ']);
        spec.no_negative_zero = take(&mut rest, &['z']).is_some();
        spec.alternate = take(&mut rest, &['#']).is_some();
        if spec.fill.is_none() && rest.starts_with('0') {
            spec.zero = true;
            rest = &rest[1..];
        }
        let (width, after) = number(rest)?;
        (spec.width, rest) = (width.unwrap_or(0), after);
        spec.grouping = take(&mut rest, &[',', '_']);
        if spec.grouping.is_some() && take(&mut rest, &[',', '_']).is_some() {
            return fail!(Value, "Cannot specify both ',' and '_'.");
        }
        if let Some(after) = rest.strip_prefix('.') {
            let (precision, after) = number(after)?;
            if precision.is_none() {
                return fail!(Value, "Format specifier missing precision");
            }
            (spec.precision, rest) = (precision, after);
        }
        let mut chars = rest.chars();
        spec.kind = chars.next();
        match chars.next() {
            None => Ok(spec),
            Some(_) => fail!(Value, "Invalid format specifier"),
        }
    }

    /// Sign, prefix and digits, padded to the width.
    fn pad(&self, vm: &mut Vm, sign: &str, digits: &str, default: char) -> Result<String> {
        vm.budget.charge(self.width)?;
        let align = self.align.unwrap_or(if self.zero && default == '>' { '=' } else { default });
        let fill = self.fill.unwrap_or(if self.zero { '0' } else { ' ' });
        let missing = self.width.saturating_sub(sign.chars().count() + digits.chars().count());
        let fill = |count: usize| fill.to_string().repeat(count);
        Ok(match align {
            '<' => format!("{sign}{digits}{}", fill(missing)),
            '=' => format!("{sign}{}{digits}", fill(missing)),
            '^' => format!("{}{sign}{digits}{}", fill(missing / 2), fill(missing - missing / 2)),
            _ => format!("{}{sign}{digits}", fill(missing)),
        })
    }

    fn sign(&self, is_negative: bool) -> &'static str {
        match (is_negative, self.sign) {
            (true, _) => "-",
            (false, Some('+')) => "+",
            (false, Some(' ')) => " ",
            _ => "",
        }
    }

    /// Digits with separators, also between padding zeros.
    fn grouped(&self, vm: &mut Vm, digits: &str, every: usize, sign_width: usize) -> Result<String> {
        let Some(separator) = self.grouping else { return Ok(digits.into()) };
        let whole = digits.bytes().take_while(u8::is_ascii_alphanumeric).count();
        let whole = digits[..whole].find(['e', 'E']).filter(|_| every == 3).unwrap_or(whole);
        let (whole, rest) = digits.split_at(whole);
        let mut wanted = whole.len();
        let fills = self.align.unwrap_or('=') == '=' && (self.zero || self.fill == Some('0'));
        if fills && (self.zero || self.align == Some('=')) {
            vm.budget.charge(self.width)?;
            let room = self.width.saturating_sub(sign_width + rest.chars().count());
            while wanted + (wanted - 1) / every < room {
                wanted += 1;
            }
        }
        let padded = format!("{}{whole}", "0".repeat(wanted - whole.len()));
        let mut out = String::new();
        for (at, digit) in padded.chars().enumerate() {
            if at > 0 && (padded.len() - at) % every == 0 {
                out.push(separator);
            }
            out.push(digit);
        }
        Ok(out + rest)
    }
}

/// Python's `format(value, spec)`.
pub(super) fn format_value(vm: &mut Vm, value: &Value, spec: &str) -> Result<String> {
    if spec.is_empty() {
        return Ok(vm.str(value)?.to_string());
    }
    match value {
        Value::Str(text) | Value::Markup(text) => of_text(vm, text, &Spec::parse(spec)?),
        Value::Bool(_) | Value::Int(_) => of_int(vm, value.as_int().unwrap_or(0), &Spec::parse(spec)?),
        Value::Float(number) => of_float(vm, *number, &Spec::parse(spec)?),
        other => fail!(Type, "unsupported format string passed to {}.__format__", other.type_name()),
    }
}

fn unknown(kind: char, of: &str) -> Result<String> {
    fail!(Value, "Unknown format code '{kind}' for object of type '{of}'")
}

fn of_text(vm: &mut Vm, text: &str, spec: &Spec) -> Result<String> {
    match spec.kind {
        None | Some('s') => {}
        Some(kind) => return unknown(kind, "str"),
    }
    if spec.sign.is_some() || spec.no_negative_zero {
        return fail!(Value, "Sign not allowed in string format specifier");
    }
    if spec.alternate {
        return fail!(Value, "Alternate form (#) not allowed in string format specifier");
    }
    if spec.align == Some('=') {
        return fail!(Value, "'=' alignment not allowed in string format specifier");
    }
    if let Some(grouping) = spec.grouping {
        return fail!(Value, "Cannot specify '{grouping}' with 's'.");
    }
    let cut = spec.precision.and_then(|precision| text.char_indices().nth(precision)).map(|(at, _)| at);
    vm.budget.charge(text.len())?;
    spec.pad(vm, "", &text[..cut.unwrap_or(text.len())], '<')
}

fn of_int(vm: &mut Vm, number: i128, spec: &Spec) -> Result<String> {
    let magnitude = number.unsigned_abs();
    let (prefix, digits, every) = match spec.kind {
        None | Some('d' | 'n') => ("", magnitude.to_string(), 3),
        Some('b') => ("0b", format!("{magnitude:b}"), 4),
        Some('o') => ("0o", format!("{magnitude:o}"), 4),
        Some('x') => ("0x", format!("{magnitude:x}"), 4),
        Some('X') => ("0X", format!("{magnitude:X}"), 4),
        Some('c') => return of_code(vm, number, spec),
        Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%') => return of_float(vm, number as f64, spec),
        Some(kind) => return unknown(kind, "int"),
    };
    if spec.precision.is_some() {
        return fail!(Value, "Precision not allowed in integer format specifier");
    }
    if spec.no_negative_zero {
        return fail!(
            Value,
            "Negative zero coercion (z) not allowed in format specifier with integer presentation type"
        );
    }
    match (spec.grouping, spec.kind) {
        (Some(','), Some(kind @ ('b' | 'o' | 'x' | 'X' | 'n'))) | (Some('_'), Some(kind @ 'n')) => {
            return fail!(Value, "Cannot specify '{}' with '{kind}'.", spec.grouping.unwrap_or(','));
        }
        _ => {}
    }
    let sign = format!("{}{}", spec.sign(number < 0), if spec.alternate { prefix } else { "" });
    let digits = spec.grouped(vm, &digits, every, sign.len())?;
    spec.pad(vm, &sign, &digits, '>')
}

fn of_code(vm: &mut Vm, number: i128, spec: &Spec) -> Result<String> {
    if spec.sign.is_some() {
        return fail!(Value, "Sign not allowed with integer format specifier 'c'");
    }
    if spec.alternate {
        return fail!(Value, "Alternate form (#) not allowed with integer format specifier 'c'");
    }
    if spec.precision.is_some() || spec.grouping.is_some() {
        return fail!(Value, "Cannot specify precision or grouping with 'c'.");
    }
    match u32::try_from(number).ok().and_then(char::from_u32) {
        Some(char) => spec.pad(vm, "", char.encode_utf8(&mut [0; 4]), '>'),
        None => fail!(Overflow, "%c arg not in range(0x110000)"),
    }
}

fn of_float(vm: &mut Vm, number: f64, spec: &Spec) -> Result<String> {
    vm.budget.charge(spec.precision.unwrap_or(0))?;
    let percent = spec.kind == Some('%');
    let number = if percent { number * 100.0 } else { number };
    let digits = |kind, precision, dot_zero| Digits { kind, precision, alternate: spec.alternate, dot_zero };
    let magnitude = number.abs();
    let text = match (spec.kind, spec.precision) {
        (None | Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | 'n' | '%'), _) if !number.is_finite() => {
            not_finite(magnitude).into()
        }
        (None, None) => float_repr(magnitude),
        (None, Some(precision)) => digits('g', precision, true).of(magnitude),
        (Some(kind @ ('e' | 'E' | 'f' | 'F' | 'g' | 'G' | 'n' | '%')), precision) => {
            let kind = match kind.to_ascii_lowercase() {
                'n' => 'g',
                '%' => 'f',
                kind => kind,
            };
            digits(kind, precision.unwrap_or(6), false).of(magnitude)
        }
        (Some(kind), _) => return unknown(kind, "float"),
    };
    if let (Some(grouping), Some('n')) = (spec.grouping, spec.kind) {
        return fail!(Value, "Cannot specify '{grouping}' with 'n'.");
    }
    let mut text = if matches!(spec.kind, Some('E' | 'F' | 'G')) { text.to_ascii_uppercase() } else { text };
    text.push_str(if percent { "%" } else { "" });
    let is_zero = text.bytes().all(|byte| !(b'1'..=b'9').contains(&byte)) && number.is_finite();
    let is_negative = number.is_sign_negative() && !number.is_nan() && !(spec.no_negative_zero && is_zero);
    let sign = spec.sign(is_negative);
    let text = if number.is_finite() { spec.grouped(vm, &text, 3, sign.len())? } else { text };
    spec.pad(vm, sign, &text, '>')
}
