//! Floats as text.

/// Number of decimals after which a double has only zeros.
const MOST_DIGITS: usize = 1100;

/// Python's `repr`: the shortest text that parses as the same number.
pub(crate) fn float_repr(number: f64) -> String {
    if !number.is_finite() {
        return not_finite(number).into();
    }
    let exponent = exponent_of(&format!("{number:e}"));
    if (-4..16).contains(&exponent) {
        let text = number.to_string();
        return if text.contains('.') { text } else { text + ".0" };
    }
    python_exponent(&format!("{number:e}"))
}

pub(super) fn not_finite(number: f64) -> &'static str {
    match (number.is_nan(), number > 0.0) {
        (true, _) => "nan",
        (false, true) => "inf",
        (false, false) => "-inf",
    }
}

fn exponent_of(text: &str) -> i32 {
    text.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0)
}

/// `1e5` as `1e+05`
fn python_exponent(text: &str) -> String {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{mantissa}e{sign}{digits:0>2}")
}

/// Format of the digits of a finite number that is not negative.
pub(super) struct Digits {
    /// `e`, `f` or `g`
    pub(super) kind: char,
    pub(super) precision: usize,
    /// A decimal point even without decimals, and with `g` trailing zeros.
    pub(super) alternate: bool,
    /// `.0` after digits without a decimal point, as in `repr`.
    pub(super) dot_zero: bool,
}

impl Digits {
    pub(super) fn of(&self, number: f64) -> String {
        let mut text = match self.kind {
            'f' => fixed(number, self.precision),
            'e' => scientific(number, self.precision),
            _ => self.general(number),
        };
        if self.alternate && !text.contains('.') {
            let at = text.find('e').unwrap_or(text.len());
            text.insert(at, '.');
        }
        text
    }

    fn general(&self, number: f64) -> String {
        let precision = self.precision.max(1);
        let rounded = scientific(number, precision - 1);
        let exponent = exponent_of(&rounded);
        let limit = i32::try_from(precision).unwrap_or(i32::MAX) - i32::from(self.dot_zero);
        if exponent < -4 || exponent >= limit {
            let (mantissa, exponent) = rounded.split_once('e').unwrap_or((&rounded, "+00"));
            return format!("{}e{exponent}", self.trimmed(mantissa));
        }
        let digits = usize::try_from(i32::try_from(precision).unwrap_or(i32::MAX) - 1 - exponent).unwrap_or(0);
        let text = fixed(number, digits);
        let trimmed = self.trimmed(&text);
        if self.dot_zero && !trimmed.contains('.') { format!("{trimmed}.0") } else { trimmed.into() }
    }

    fn trimmed<'t>(&self, text: &'t str) -> &'t str {
        match text.contains('.') && !self.alternate {
            true => text.trim_end_matches('0').trim_end_matches('.'),
            false => text,
        }
    }
}

fn fixed(number: f64, precision: usize) -> String {
    let known = precision.min(MOST_DIGITS);
    format!("{number:.known$}") + &"0".repeat(precision - known)
}

fn scientific(number: f64, precision: usize) -> String {
    let known = precision.min(MOST_DIGITS);
    let text = python_exponent(&format!("{number:.known$e}"));
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "+00"));
    format!("{mantissa}{}e{exponent}", "0".repeat(precision - known))
}

/// Python's `round(number, digits)`: to the nearest decimal, ties to an even digit.
pub(crate) fn round_half_even(number: f64, digits: i128) -> f64 {
    if !number.is_finite() || digits > 323 {
        return number;
    }
    if digits >= 0 {
        return fixed(number, digits as usize).parse().unwrap_or(number);
    }
    if digits < -308 {
        return 0f64.copysign(number);
    }
    // as CPython: the quotient is rounded, ties to even, and scaled back
    let scale = 10f64.powi(-digits as i32);
    let quotient = number / scale;
    let mut rounded = quotient.round();
    if (quotient - rounded).abs() == 0.5 {
        rounded = 2.0 * (quotient / 2.0).round();
    }
    rounded * scale
}
