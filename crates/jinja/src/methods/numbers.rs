//! Methods of numbers.

use crate::args::Args;
use crate::error::{Result, fail};
use crate::operators::too_large;
use crate::value::Value;

pub(super) fn call_int(number: i128, name: &str, args: Args) -> Result<Value> {
    if matches!(name, "from_bytes" | "to_bytes") {
        return fail!(Unsupported, "the method '{name}' of whole numbers");
    }
    args.places::<0>(name, 0)?;
    match name {
        "as_integer_ratio" => Value::tuple(vec![Value::Int(number), Value::Int(1)]),
        "bit_count" => Ok(Value::Int(number.unsigned_abs().count_ones().into())),
        "bit_length" => Ok(Value::Int((128 - number.unsigned_abs().leading_zeros()).into())),
        "is_integer" => Ok(Value::Bool(true)),
        _ => Ok(Value::Int(number)),
    }
}

pub(super) fn call_float(number: f64, name: &str, args: Args) -> Result<Value> {
    if name == "fromhex" {
        return fail!(Unsupported, "the method 'fromhex' of floats");
    }
    args.places::<0>(name, 0)?;
    match name {
        "as_integer_ratio" => ratio(number),
        "hex" => Ok(Value::str(hex(number))),
        "is_integer" => Ok(Value::Bool(number.is_finite() && number.fract() == 0.0)),
        _ => Ok(Value::Float(number)),
    }
}

/// 53-bit mantissa and binary exponent.
fn parts(number: f64) -> (u64, i32) {
    let bits = number.to_bits();
    let (exponent, fraction) = ((bits >> 52 & 0x7FF) as i32, bits & ((1 << 52) - 1));
    if exponent == 0 { (fraction, -1074) } else { (fraction | 1 << 52, exponent - 1075) }
}

fn ratio(number: f64) -> Result<Value> {
    if number.is_nan() {
        return fail!(Value, "cannot convert NaN to integer ratio");
    }
    if number.is_infinite() {
        return fail!(Overflow, "cannot convert Infinity to integer ratio");
    }
    let (mantissa, exponent) = parts(number);
    let shift = (mantissa.trailing_zeros().min(63) as i32).min((-exponent).max(0));
    let (mantissa, exponent) = (i128::from(mantissa >> shift), exponent + shift);
    let power = |exponent: i32| 1i128.checked_shl(exponent.unsigned_abs()).filter(|power| *power > 0);
    let (above, below) = match (mantissa, exponent) {
        (0, _) => (Some(0), Some(1)),
        (_, 0..) => (power(exponent).and_then(|power| mantissa.checked_mul(power)), Some(1)),
        _ => (Some(mantissa), power(exponent)),
    };
    let above = above.ok_or_else(too_large)?;
    let below = below.ok_or_else(too_large)?;
    Value::tuple(vec![Value::Int(if number < 0.0 { -above } else { above }), Value::Int(below)])
}

fn hex(number: f64) -> String {
    if !number.is_finite() {
        return crate::format::float_repr(number);
    }
    let sign = if number.is_sign_negative() { "-" } else { "" };
    let (mantissa, exponent) = parts(number);
    let (whole, fraction) = (mantissa >> 52, mantissa & ((1 << 52) - 1));
    match mantissa {
        0 => format!("{sign}0x0.0p+0"),
        _ => format!("{sign}0x{whole}.{fraction:013x}p{:+}", exponent + 52),
    }
}
