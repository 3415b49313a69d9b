//! Operators.

use crate::ast::Binary;
use crate::error::{Error, ErrorKind, Result, fail};
use crate::format;
use crate::value::{ITEM, Value};
use crate::vm::Vm;

pub(crate) fn negate(value: &Value) -> Result<Value> {
    match value {
        Value::Float(number) => Ok(Value::Float(-number)),
        _ => match value.as_int() {
            Some(number) => number.checked_neg().map(Value::Int).ok_or_else(too_large),
            None => bad_operand("-", value),
        },
    }
}

pub(crate) fn plus(value: &Value) -> Result<Value> {
    match value {
        Value::Float(number) => Ok(Value::Float(*number)),
        _ => value.as_int().map_or_else(|| bad_operand("+", value), |number| Ok(Value::Int(number))),
    }
}

fn bad_operand(operator: &str, value: &Value) -> Result<Value> {
    value.defined()?;
    fail!(Type, "bad operand type for unary {operator}: '{}'", value.type_name())
}

pub(crate) fn binary(vm: &mut Vm, operator: Binary, left: &Value, right: &Value) -> Result<Value> {
    if let (Binary::Mod, Some(_)) = (operator, left.as_str()) {
        return format::percent(vm, left, right);
    }
    left.defined()?;
    right.defined()?;
    if let (Some(a), Some(b)) = (left.as_int(), right.as_int()) {
        return of_ints(operator, a, b);
    }
    if let (Some(a), Some(b)) = (left.as_float(), right.as_float()) {
        return of_floats(operator, a, b);
    }
    match (operator, left, right) {
        (Binary::Add, Value::Str(_) | Value::Markup(_), Value::Str(_) | Value::Markup(_)) => add_text(vm, left, right),
        (Binary::Add, Value::Str(_), _) => {
            fail!(Type, "can only concatenate str (not \"{}\") to str", right.type_name())
        }
        (Binary::Add, Value::Bytes(a), Value::Bytes(b)) => {
            vm.budget.charge(a.len() + b.len())?;
            Ok(Value::Bytes([&**a, &**b].concat().into()))
        }
        (Binary::Add, Value::List(a), Value::List(b)) => {
            vm.budget.charge_many(a.items.len() + b.items.len(), ITEM)?;
            Value::list([&*a.items, &*b.items].concat())
        }
        (Binary::Add, Value::Tuple(a) | Value::Group(a), Value::Tuple(b) | Value::Group(b)) => {
            vm.budget.charge_many(a.items.len() + b.items.len(), ITEM)?;
            Value::tuple([&*a.items, &*b.items].concat())
        }
        (Binary::Mul, _, _) => match (left.as_int(), right.as_int()) {
            (_, Some(count)) if is_repeatable(left) => repeat(vm, left, count),
            (Some(count), _) if is_repeatable(right) => repeat(vm, right, count),
            _ => unsupported(operator, left, right),
        },
        _ => unsupported(operator, left, right),
    }
}

fn unsupported(operator: Binary, left: &Value, right: &Value) -> Result<Value> {
    let symbol = operator.symbol();
    fail!(Type, "unsupported operand type(s) for {symbol}: '{}' and '{}'", left.type_name(), right.type_name())
}

fn add_text(vm: &mut Vm, left: &Value, right: &Value) -> Result<Value> {
    let is_markup = matches!(left, Value::Markup(_)) || matches!(right, Value::Markup(_));
    let (a, b) = if is_markup { (vm.escape(left)?, vm.escape(right)?) } else { (vm.str(left)?, vm.str(right)?) };
    vm.budget.charge(a.len() + b.len())?;
    let text = Value::Str([&*a, &*b].concat().into());
    Ok(if is_markup { text.marked_up() } else { text })
}

fn is_repeatable(value: &Value) -> bool {
    value.as_str().is_some() || value.as_items().is_some() || matches!(value, Value::Bytes(_))
}

fn repeat(vm: &mut Vm, value: &Value, count: i128) -> Result<Value> {
    let count = usize::try_from(count.max(0)).unwrap_or(usize::MAX);
    if let Some(text) = value.as_str() {
        vm.budget.charge_many(count, text.len())?;
        let repeated = if text.is_empty() { Value::str("") } else { Value::str(text.repeat(count)) };
        return Ok(if let Value::Markup(_) = value { repeated.marked_up() } else { repeated });
    }
    if let Value::Bytes(bytes) = value {
        vm.budget.charge_many(count, bytes.len())?;
        return Ok(Value::Bytes(if bytes.is_empty() { bytes.clone() } else { bytes.repeat(count).into() }));
    }
    let items = value.as_items().unwrap_or_default();
    vm.budget.charge_many(count, ITEM.saturating_mul(items.len()))?;
    let mut repeated = Vec::new();
    if !items.is_empty() {
        repeated.reserve(items.len() * count);
        (0..count).for_each(|_| repeated.extend_from_slice(items));
    }
    if let Value::List(_) = value { Value::list(repeated) } else { Value::tuple(repeated) }
}

pub(crate) fn too_large() -> Error {
    Error::new(ErrorKind::Unsupported, "a whole number does not fit 128 bits")
}

fn by_zero(what: &str) -> Error {
    Error::new(ErrorKind::Division, format!("{what} by zero"))
}

fn of_ints(operator: Binary, a: i128, b: i128) -> Result<Value> {
    let whole = |number: Option<i128>| number.map(Value::Int).ok_or_else(too_large);
    match operator {
        Binary::Add => whole(a.checked_add(b)),
        Binary::Sub => whole(a.checked_sub(b)),
        Binary::Mul => whole(a.checked_mul(b)),
        Binary::Div if b == 0 => Err(by_zero("division")),
        Binary::Div => Ok(Value::Float(a as f64 / b as f64)),
        Binary::FloorDiv | Binary::Mod if b == 0 => Err(by_zero("integer division or modulo")),
        Binary::FloorDiv => whole(floor_div(a, b)),
        Binary::Mod => whole(Some(floor_mod(a, b))),
        Binary::Pow if b < 0 => of_floats(operator, a as f64, b as f64),
        Binary::Pow => match (a, u32::try_from(b)) {
            (0 | 1, _) => Ok(Value::Int(if b == 0 { 1 } else { a })),
            (-1, _) => Ok(Value::Int(if b % 2 == 0 { 1 } else { -1 })),
            (_, Ok(b)) => whole(a.checked_pow(b)),
            _ => Err(too_large()),
        },
    }
}

pub(crate) fn floor_div(a: i128, b: i128) -> Option<i128> {
    let quotient = a.checked_div(b)?;
    Some(if a % b != 0 && (a < 0) != (b < 0) { quotient - 1 } else { quotient })
}

/// Python's `%` of integers: the remainder has the divisor's sign.
pub(crate) fn floor_mod(a: i128, b: i128) -> i128 {
    let rest = a.wrapping_rem(b);
    if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }
}

fn of_floats(operator: Binary, a: f64, b: f64) -> Result<Value> {
    Ok(Value::Float(match operator {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div if b == 0.0 => return Err(by_zero("float division")),
        Binary::Div => a / b,
        Binary::FloorDiv if b == 0.0 => return Err(by_zero("float floor division")),
        Binary::Mod if b == 0.0 => return Err(by_zero("float modulo")),
        Binary::FloorDiv => float_divmod(a, b).0,
        Binary::Mod => float_divmod(a, b).1,
        Binary::Pow => return power(a, b),
    }))
}

/// CPython's `divmod` of floats: the quotient is an integer, the remainder has the divisor's sign.
fn float_divmod(a: f64, b: f64) -> (f64, f64) {
    let mut rest = a % b;
    let mut quotient = (a - rest) / b;
    if rest != 0.0 {
        if (b < 0.0) != (rest < 0.0) {
            rest += b;
            quotient -= 1.0;
        }
    } else {
        rest = 0f64.copysign(b);
    }
    let floor = if quotient == 0.0 {
        0f64.copysign(a / b)
    } else {
        let floor = quotient.floor();
        if quotient - floor > 0.5 { floor + 1.0 } else { floor }
    };
    (floor, rest)
}

fn power(a: f64, b: f64) -> Result<Value> {
    if a == 0.0 && b < 0.0 {
        return fail!(Division, "0.0 cannot be raised to a negative power");
    }
    if a < 0.0 && a.is_finite() && b.is_finite() && b.fract() != 0.0 {
        return fail!(Unsupported, "a power that is a complex number");
    }
    let result = a.powf(b);
    if result.is_infinite() && a.is_finite() && b.is_finite() {
        return fail!(Overflow, "(34, 'Numerical result out of range')");
    }
    Ok(Value::Float(result))
}
