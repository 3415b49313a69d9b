//! Tests, the right operands of `is`.

use crate::args::Args;
use crate::ast::{Binary, Compare};
use crate::error::{Error, ErrorKind, Result};
use crate::filters;
use crate::iterate::Iter;
use crate::methods;
use crate::objects::Object;
use crate::operators::binary;
use crate::value::{Key, Value};
use crate::vm::Vm;

/// The tests by name, in alphabetical order.
const NAMES: [&str; 39] = [
    "!=",
    "<",
    "<=",
    "==",
    ">",
    ">=",
    "boolean",
    "callable",
    "defined",
    "divisibleby",
    "eq",
    "equalto",
    "escaped",
    "even",
    "false",
    "filter",
    "float",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "integer",
    "iterable",
    "le",
    "lessthan",
    "lower",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "sameas",
    "sequence",
    "string",
    "test",
    "true",
    "undefined",
    "upper",
];

pub(crate) fn is_known(name: &str) -> bool {
    NAMES.binary_search(&name).is_ok()
}

pub(crate) fn unknown(name: &str) -> Error {
    Error::new(ErrorKind::Syntax, format!("No test named '{name}'."))
}

/// `value is name(arguments)`
pub(crate) fn apply(vm: &mut Vm, name: &str, value: Value, args: Args) -> Result<bool> {
    let comparison = match name {
        "==" | "eq" | "equalto" => Some(Compare::Eq),
        "!=" | "ne" => Some(Compare::Ne),
        ">" | "gt" | "greaterthan" => Some(Compare::Gt),
        ">=" | "ge" => Some(Compare::Ge),
        "<" | "lt" | "lessthan" => Some(Compare::Lt),
        "<=" | "le" => Some(Compare::Le),
        _ => None,
    };
    if let Some(comparison) = comparison {
        let [other] = args.places(name, 1)?;
        return vm.compare(comparison, &value, &other.unwrap_or(Value::None));
    }
    match name {
        "divisibleby" => {
            let [number] = args.bind(name, ["num"], 1)?;
            return is_remainder(vm, &value, &number.unwrap_or(Value::None), 0);
        }
        "in" => {
            let [container] = args.bind(name, ["seq"], 1)?;
            return vm.contains(&container.unwrap_or(Value::None), &value);
        }
        "sameas" => {
            let [other] = args.bind(name, ["other"], 1)?;
            return Ok(value.is(&other.unwrap_or(Value::None)));
        }
        _ => {}
    }
    args.bind::<0>(name, [], 0)?;
    Ok(match name {
        "boolean" => matches!(value, Value::Bool(_)),
        "callable" => is_callable(&value),
        "defined" => !value.is_undefined(),
        "escaped" => matches!(value, Value::Markup(_)),
        "even" => is_remainder(vm, &value, &Value::Int(2), 0)?,
        "false" => matches!(value, Value::Bool(false)),
        "filter" => is_key(&value)?.is_some_and(filters::is_known),
        "float" => matches!(value, Value::Float(_)),
        "integer" => matches!(value, Value::Int(_)),
        "iterable" => Iter::of(&value).is_ok(),
        "lower" => methods::is_lower(&vm.str(&value)?),
        "mapping" => matches!(value, Value::Dict(_)),
        "none" => matches!(value, Value::None),
        "number" => value.as_float().is_some(),
        "odd" => is_remainder(vm, &value, &Value::Int(2), 1)?,
        "sequence" => {
            value.as_str().is_some()
                || value.as_items().is_some()
                || matches!(value, Value::Undefined(_) | Value::Dict(_) | Value::Range(_) | Value::Bytes(_))
        }
        "string" => value.as_str().is_some(),
        "test" => is_key(&value)?.is_some_and(is_known),
        "true" => matches!(value, Value::Bool(true)),
        "undefined" => value.is_undefined(),
        "upper" => methods::is_upper(&vm.str(&value)?),
        other => return Err(Error::new(ErrorKind::Runtime, format!("No test named '{other}'."))),
    })
}

/// The text of a value, if it is a string; an error for an unhashable value.
fn is_key(value: &Value) -> Result<Option<&str>> {
    Key::of(value).map(|_| value.as_str())
}

fn is_remainder(vm: &mut Vm, value: &Value, divisor: &Value, wanted: i128) -> Result<bool> {
    let rest = binary(vm, Binary::Mod, value, divisor)?;
    vm.eq(&rest, &Value::Int(wanted))
}

fn is_callable(value: &Value) -> bool {
    match value {
        Value::Undefined(_) => true,
        Value::Object(object) => !matches!(object, Object::Namespace(_) | Object::Cycler(_) | Object::Itself),
        _ => false,
    }
}
