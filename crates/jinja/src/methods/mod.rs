//! Methods of values.

mod case;
mod containers;
mod numbers;
mod search;
mod strings;

use crate::args::Args;
use crate::error::{Result, fail};
use crate::objects::{Function, Object};
use crate::value::{Part, Value};
use crate::vm::Vm;

pub(crate) use case::{capitalize, is_lower, is_upper, lower, upper};
pub(crate) use search::{replace, split, split_lines, strip};
pub(crate) use strings::{align, striptags};

const STRING: [&str; 47] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "encode",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "maketrans",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "translate",
    "upper",
    "zfill",
];
const MARKUP: [&str; 3] = ["escape", "striptags", "unescape"];
const BYTES: [&str; 2] = ["decode", "hex"];
const LIST: [&str; 11] =
    ["append", "clear", "copy", "count", "extend", "index", "insert", "pop", "remove", "reverse", "sort"];
const TUPLE: [&str; 2] = ["count", "index"];
const DICT: [&str; 11] =
    ["clear", "copy", "fromkeys", "get", "items", "keys", "pop", "popitem", "setdefault", "update", "values"];
const VIEW: [&str; 1] = ["isdisjoint"];
const INT: [&str; 7] =
    ["as_integer_ratio", "bit_count", "bit_length", "conjugate", "from_bytes", "is_integer", "to_bytes"];
const FLOAT: [&str; 5] = ["as_integer_ratio", "conjugate", "fromhex", "hex", "is_integer"];

/// The methods of a value's type.
fn names(value: &Value) -> [&'static [&'static str]; 2] {
    match value {
        Value::Str(_) => [&STRING, &[]],
        Value::Markup(_) => [&STRING, &MARKUP],
        Value::Bytes(_) => [&BYTES, &[]],
        Value::List(_) => [&LIST, &[]],
        Value::Tuple(_) | Value::Group(_) | Value::Range(_) => [&TUPLE, &[]],
        Value::Dict(_) => [&DICT, &[]],
        Value::View(_, Part::Keys | Part::Items) => [&VIEW, &[]],
        Value::Bool(_) | Value::Int(_) => [&INT, &[]],
        Value::Float(_) => [&FLOAT, &[]],
        Value::Object(Object::Loop(_)) => [&["changed", "cycle"], &[]],
        Value::Object(Object::Cycler(_)) => [&["next", "reset"], &[]],
        Value::Object(Object::Function(Function::Dict)) => [&["fromkeys"], &[]],
        _ => [&[], &[]],
    }
}

/// The method with this name, if the value has it.
pub(crate) fn named(value: &Value, name: &str) -> Option<&'static str> {
    names(value).into_iter().flatten().copied().find(|method| *method == name)
}

/// Whether the method would change its list or dictionary, which the sandbox forbids.
pub(crate) fn changes(value: &Value, name: &str) -> bool {
    match value {
        Value::List(_) => !matches!(name, "copy" | "count" | "index"),
        Value::Dict(_) => matches!(name, "clear" | "pop" | "popitem" | "setdefault" | "update"),
        _ => false,
    }
}

pub(crate) fn call(vm: &mut Vm, receiver: &Value, name: &'static str, args: Args) -> Result<Value> {
    match receiver {
        Value::Str(text) => strings::call(vm, text, false, name, args),
        Value::Markup(text) => {
            let result = strings::call(vm, text, true, name, args)?;
            if MARKUP.contains(&name) { Ok(result) } else { marked_up(result) }
        }
        Value::Bytes(bytes) => strings::call_bytes(vm, bytes, name, args),
        Value::Bool(_) | Value::Int(_) => numbers::call_int(receiver.as_int().unwrap_or(0), name, args),
        Value::Float(number) => numbers::call_float(*number, name, args),
        Value::List(_) | Value::Tuple(_) | Value::Group(_) | Value::Range(_) => {
            containers::call_sequence(vm, receiver, name, args)
        }
        Value::Dict(dict) => containers::call_dict(vm, dict, name, args),
        Value::View(..) => containers::is_disjoint(vm, receiver, args),
        Value::Object(Object::Function(Function::Dict)) => containers::from_keys(vm, args),
        Value::Object(Object::Cycler(it)) => {
            args.places::<0>(name, 0)?;
            if name == "reset" {
                it.position.set(0);
                return Ok(Value::None);
            }
            let current = it.current();
            it.position.set((it.position.get() + 1) % it.items.len());
            Ok(current)
        }
        Value::Object(Object::Loop(it)) if name == "cycle" => {
            if !args.keywords.is_empty() {
                return fail!(Type, "cycle() takes no keyword arguments");
            }
            if args.positional.is_empty() {
                return fail!(Type, "no items for cycling given");
            }
            let at = it.state.borrow().index.saturating_sub(1) % args.positional.len();
            Ok(args.positional[at].clone())
        }
        Value::Object(Object::Loop(it)) => {
            if !args.keywords.is_empty() {
                return fail!(Type, "changed() takes no keyword arguments");
            }
            let value = Value::tuple(args.positional)?;
            let last = it.state.borrow().changed.clone();
            if let Some(last) = &last
                && vm.eq(last, &value)?
            {
                return Ok(Value::Bool(false));
            }
            vm.keep_loop(it)?;
            it.state.borrow_mut().changed = Some(value);
            Ok(Value::Bool(true))
        }
        other => fail!(Attribute, "'{}' object has no attribute '{name}'", other.type_name()),
    }
}

/// Marks the result of a `Markup` method as HTML, also the items of lists and tuples.
fn marked_up(value: Value) -> Result<Value> {
    let all = |items: &[Value]| items.iter().cloned().map(Value::marked_up).collect();
    match value {
        Value::List(items) => Value::list(all(&items.items)),
        Value::Tuple(items) => Value::tuple(all(&items.items)),
        other => Ok(other.marked_up()),
    }
}
