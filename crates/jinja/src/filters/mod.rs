//! Filters.

mod html;
mod json;
mod lazy;
mod numbers;
mod pretty;
mod sequences;
mod texts;
mod urlize;
mod wrap;

use crate::args::Args;
use crate::error::{Error, ErrorKind, Result};
use crate::value::Value;
use crate::vm::Vm;

/// The filters by name, in alphabetical order.
const NAMES: [&str; 54] = [
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "filesizeformat",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "pprint",
    "random",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "striptags",
    "sum",
    "title",
    "tojson",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "urlize",
    "wordcount",
    "wordwrap",
    "xmlattr",
];

pub(crate) fn is_known(name: &str) -> bool {
    NAMES.binary_search(&name).is_ok()
}

pub(crate) fn unknown(name: &str) -> Error {
    Error::new(ErrorKind::Syntax, format!("No filter named '{name}'."))
}

/// `value|name(arguments)`
pub(crate) fn apply(vm: &mut Vm, name: &str, value: Value, args: Args) -> Result<Value> {
    match name {
        "abs" => numbers::abs(&value, args),
        "attr" => sequences::attr(vm, &value, args),
        "batch" => lazy::batch(value, args),
        "capitalize" => texts::capitalize(vm, &value, args),
        "center" => texts::center(vm, &value, args),
        "count" | "length" => {
            args.places::<0>("len", 0)?;
            Ok(Value::Int(vm.len(&value)? as i128))
        }
        "d" | "default" => {
            let [default, boolean] = args.bind("do_default", ["default_value", "boolean"], 0)?;
            let boolean = boolean.map_or(Ok(false), |boolean| vm.truth(&boolean))?;
            let absent = value.is_undefined() || boolean && !vm.truth(&value)?;
            Ok(if absent { default.unwrap_or_else(|| Value::str("")) } else { value })
        }
        "dictsort" => sequences::dictsort(vm, &value, args),
        "e" | "escape" => {
            args.places::<0>("escape", 0)?;
            Ok(Value::Markup(vm.escape(&value)?))
        }
        "filesizeformat" => numbers::filesizeformat(vm, &value, args),
        "first" => {
            args.bind::<0>("do_first", [], 0)?;
            sequences::first(vm, &value)
        }
        "float" => numbers::float(vm, &value, args),
        "forceescape" => {
            args.bind::<0>("do_forceescape", [], 0)?;
            let text = Value::Str(vm.str(&value)?);
            Ok(Value::Markup(vm.escape(&text)?))
        }
        "format" => texts::format(vm, &value, args),
        "groupby" => sequences::groupby(vm, &value, args),
        "indent" => texts::indent(vm, &value, args),
        "int" => numbers::int(vm, &value, args),
        "items" => lazy::items(value, args),
        "join" => sequences::join(vm, &value, args),
        "last" => {
            args.bind::<0>("do_last", [], 0)?;
            sequences::last(vm, &value)
        }
        "list" => {
            args.bind::<0>("do_list", [], 0)?;
            Value::list(crate::iterate::Iter::of(&value)?.collect(vm)?)
        }
        "lower" => texts::changed(vm, &value, args, crate::methods::lower),
        "map" => lazy::map(value, args),
        "max" => sequences::extreme(vm, &value, args, true),
        "min" => sequences::extreme(vm, &value, args, false),
        "pprint" => {
            args.bind::<0>("do_pprint", [], 0)?;
            pretty::pprint(vm, &value)
        }
        "random" => {
            args.bind::<0>("do_random", [], 0)?;
            sequences::random(vm, &value)
        }
        "reject" => lazy::select(value, args, false, true),
        "rejectattr" => lazy::select(value, args, true, true),
        "replace" => texts::replace(vm, &value, args),
        "reverse" => {
            args.bind::<0>("do_reverse", [], 0)?;
            sequences::reverse(vm, &value)
        }
        "round" => numbers::round(vm, &value, args),
        "safe" => {
            args.bind::<0>("do_mark_safe", [], 0)?;
            Ok(Value::Markup(vm.str(&value)?))
        }
        "select" => lazy::select(value, args, false, false),
        "selectattr" => lazy::select(value, args, true, false),
        "slice" => lazy::slice(value, args),
        "sort" => sequences::sort(vm, &value, args),
        "string" => {
            args.places::<0>("soft_str", 0)?;
            vm.soft_str(&value)
        }
        "striptags" => html::striptags(vm, &value, args),
        "sum" => sequences::sum(vm, &value, args),
        "title" => texts::changed(vm, &value, args, texts::title),
        "tojson" => json::tojson(vm, &value, args),
        "trim" => texts::trim(vm, &value, args),
        "truncate" => texts::truncate(vm, value, args),
        "unique" => lazy::unique(value, args),
        "upper" => texts::changed(vm, &value, args, crate::methods::upper),
        "urlencode" => html::urlencode(vm, &value, args),
        "urlize" => urlize::urlize(vm, &value, args),
        "wordcount" => texts::wordcount(vm, &value, args),
        "wordwrap" => wrap::wordwrap(vm, &value, args),
        "xmlattr" => html::xmlattr(vm, &value, args),
        other => Err(Error::new(ErrorKind::Runtime, format!("No filter named '{other}'."))),
    }
}

/// An argument as a truth value.
fn flag(vm: &mut Vm, argument: Option<Value>) -> Result<bool> {
    argument.map_or(Ok(false), |argument| vm.truth(&argument))
}

/// An argument, unless it is absent or `None`.
fn given(argument: Option<Value>) -> Option<Value> {
    argument.filter(|argument| !matches!(argument, Value::None))
}

/// A text result, `Markup` if the value is.
fn like(value: &Value, text: impl Into<std::sync::Arc<str>>) -> Value {
    if let Value::Markup(_) = value { Value::Markup(text.into()) } else { Value::Str(text.into()) }
}
