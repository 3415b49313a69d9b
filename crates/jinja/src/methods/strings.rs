//! Methods of strings.

use std::sync::Arc;

use super::case;
use super::search;
use crate::args::Args;
use crate::entities::unescape;
use crate::error::{Result, fail};
use crate::format::{Source, format_text};
use crate::iterate::Iter;
use crate::unicode;
use crate::value::{Dict, Value};
use crate::vm::Vm;

pub(super) fn call(vm: &mut Vm, text: &Arc<str>, is_markup: bool, name: &str, args: Args) -> Result<Value> {
    vm.budget.steps(text.len() / 64)?;
    let plain = |vm: &mut Vm, text: String| {
        vm.budget.charge(text.len())?;
        Ok(Value::Str(text.into()))
    };
    match name {
        "find" | "rfind" | "index" | "rindex" => return search::find(vm, text, name, args),
        "count" => return search::count(vm, text, args),
        "startswith" | "endswith" => return search::begins_or_ends(vm, text, name, args),
        "partition" | "rpartition" => return search::partition(text, name, args),
        "split" | "rsplit" => return search::split_method(vm, text, name, args),
        "splitlines" => return search::splitlines(vm, text, args),
        "strip" | "lstrip" | "rstrip" => {
            let [chars] = args.places(name, 0)?;
            return plain(vm, search::strip(text, name, chars.as_ref())?.into());
        }
        "removeprefix" | "removesuffix" => {
            let [part] = args.places(name, 1)?;
            let part = part.unwrap_or(Value::None);
            let part = &**part.text("argument")?;
            let removed = if name == "removeprefix" { text.strip_prefix(part) } else { text.strip_suffix(part) };
            return plain(vm, removed.unwrap_or(text).into());
        }
        "replace" => {
            let [old, new, count] = args.bind(name, ["", "", "count"], 2)?;
            let (old, new) = (old.unwrap_or(Value::None), new.unwrap_or(Value::None));
            let count = count.map_or(Ok(-1), |count| count.index())?;
            let new = if is_markup { vm.escape(&new)? } else { new.text("replace() argument 2")?.clone() };
            let replaced = search::replace(vm, text, old.text("replace() argument 1")?, &new, count)?;
            return Ok(Value::Str(replaced.into()));
        }
        "center" | "ljust" | "rjust" => {
            let [width, fill] = args.places(name, 1)?;
            let fill = fill.unwrap_or_else(|| Value::str(" "));
            let fill = if is_markup { Value::Str(vm.escape(&fill)?) } else { fill };
            let mut chars = fill.text("The fill character")?.chars();
            let (Some(fill), None) = (chars.next(), chars.next()) else {
                return fail!(Type, "The fill character must be exactly one character long");
            };
            return Ok(Value::Str(align(vm, text, name, width.unwrap_or(Value::None).index()?, fill)?.into()));
        }
        "zfill" => {
            let [width] = args.places(name, 1)?;
            return zfill(vm, text, width.unwrap_or(Value::None).index()?);
        }
        "expandtabs" => {
            let [size] = args.bind(name, ["tabsize"], 0)?;
            return expand_tabs(vm, text, size.map_or(Ok(8), |size| size.index())?);
        }
        "join" => {
            let [items] = args.places(name, 1)?;
            return join(vm, text, is_markup, &items.unwrap_or(Value::None));
        }
        "format" => {
            let formatted = format_text(vm, text, &Source::Arguments(args), is_markup)?;
            return Ok(Value::Str(formatted.into()));
        }
        "format_map" => {
            let [mapping] = args.places(name, 1)?;
            let mapping = Source::Mapping(mapping.unwrap_or(Value::None));
            return Ok(Value::Str(format_text(vm, text, &mapping, is_markup)?.into()));
        }
        "maketrans" => return maketrans(args),
        "translate" => {
            let [table] = args.places(name, 1)?;
            return translate(vm, text, &table.unwrap_or(Value::None));
        }
        "encode" => return encode(vm, text, args),
        "escape" => {
            let [value] = args.places(name, 1)?;
            return Ok(Value::Markup(vm.escape(&value.unwrap_or(Value::None))?));
        }
        _ => {}
    }
    args.places::<0>(name, 0)?;
    let all = |holds: fn(char) -> bool| Ok(Value::Bool(!text.is_empty() && text.chars().all(holds)));
    match name {
        "capitalize" => plain(vm, case::capitalize(text)),
        "casefold" => plain(vm, unicode::casefold(text)),
        "lower" => plain(vm, case::lower(text)),
        "swapcase" => plain(vm, case::swapcase(text)),
        "title" => plain(vm, case::title(text)),
        "upper" => plain(vm, case::upper(text)),
        "isalnum" => all(unicode::is_alphanumeric),
        "isalpha" => all(unicode::is_alpha),
        "isascii" => Ok(Value::Bool(text.is_ascii())),
        "isdecimal" => all(unicode::is_decimal),
        "isdigit" => all(unicode::is_digit),
        "isidentifier" => Ok(Value::Bool(unicode::is_identifier(text))),
        "islower" => Ok(Value::Bool(case::is_lower(text))),
        "isnumeric" => all(unicode::is_numeric),
        "isprintable" => Ok(Value::Bool(text.chars().all(unicode::is_printable))),
        "isspace" => all(unicode::is_space),
        "istitle" => Ok(Value::Bool(case::is_title(text))),
        "isupper" => Ok(Value::Bool(case::is_upper(text))),
        "striptags" => plain(vm, striptags(text)),
        "unescape" => plain(vm, unescape(text)),
        other => fail!(Attribute, "'str' object has no attribute '{other}'"),
    }
}

pub(super) fn call_bytes(vm: &mut Vm, bytes: &[u8], name: &str, args: Args) -> Result<Value> {
    vm.budget.charge_many(bytes.len(), 2)?;
    if name == "hex" {
        args.places::<0>(name, 0)?;
        return Ok(Value::str(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()));
    }
    let [encoding, errors] = args.bind(name, ["encoding", "errors"], 0)?;
    strict_utf8(encoding.as_ref(), errors.as_ref())?;
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(Value::str(text)),
        Err(error) => fail!(Value, "'utf-8' codec can't decode the byte at position {}", error.valid_up_to()),
    }
}

fn encode(vm: &mut Vm, text: &str, args: Args) -> Result<Value> {
    let [encoding, errors] = args.bind("encode", ["encoding", "errors"], 0)?;
    strict_utf8(encoding.as_ref(), errors.as_ref())?;
    vm.budget.charge(text.len())?;
    Ok(Value::Bytes(text.as_bytes().into()))
}

fn strict_utf8(encoding: Option<&Value>, errors: Option<&Value>) -> Result<()> {
    let encoding = encoding.map_or(Ok("utf-8"), |name| name.text("encoding").map(|name| &**name))?;
    let errors = errors.map_or(Ok("strict"), |name| name.text("errors").map(|name| &**name))?;
    match (encoding.to_ascii_lowercase().as_str(), errors) {
        ("utf-8" | "utf8" | "utf_8", "strict") => Ok(()),
        _ => fail!(Unsupported, "the encoding '{encoding}' with errors '{errors}'"),
    }
}

/// `center`, `ljust`, `rjust`
pub(crate) fn align(vm: &mut Vm, text: &str, name: &str, width: i128, fill: char) -> Result<String> {
    let length = text.chars().count();
    let width = usize::try_from(width.max(0)).unwrap_or(usize::MAX);
    let missing = width.saturating_sub(length);
    vm.budget.charge_many(missing, fill.len_utf8())?;
    vm.budget.charge(text.len())?;
    let left = match name {
        "ljust" => 0,
        "rjust" => missing,
        _ => missing / 2 + (missing & width & 1),
    };
    let fill = |count: usize| fill.to_string().repeat(count);
    Ok(format!("{}{text}{}", fill(left), fill(missing - left)))
}

fn zfill(vm: &mut Vm, text: &str, width: i128) -> Result<Value> {
    let signs = usize::from(text.starts_with(['+', '-']));
    let padded = align(vm, &text[signs..], "rjust", width.saturating_sub(signs as i128), '0')?;
    Ok(Value::Str(format!("{}{padded}", &text[..signs]).into()))
}

fn expand_tabs(vm: &mut Vm, text: &str, size: i128) -> Result<Value> {
    let size = usize::try_from(size.max(0)).unwrap_or(usize::MAX);
    let mut out = String::new();
    let mut column = 0;
    for char in text.chars() {
        match char {
            '\t' => {
                let spaces = if size == 0 { 0 } else { size - column % size };
                vm.budget.charge(spaces)?;
                out.push_str(&" ".repeat(spaces));
                column += spaces;
            }
            char => {
                column = if matches!(char, '\n' | '\r') { 0 } else { column + 1 };
                out.push(char);
            }
        }
    }
    vm.budget.charge(text.len())?;
    Ok(Value::Str(out.into()))
}

fn join(vm: &mut Vm, separator: &str, is_markup: bool, items: &Value) -> Result<Value> {
    let Ok(mut iter) = Iter::of(items) else { return fail!(Type, "can only join an iterable") };
    let mut out = String::new();
    let mut count = 0;
    while let Some(item) = iter.next(vm)? {
        let item = match item.as_text() {
            _ if is_markup => vm.escape(&item)?,
            Some(text) => text.clone(),
            None => {
                return fail!(Type, "sequence item {count}: expected str instance, {} found", item.type_name());
            }
        };
        let separator = if count == 0 { "" } else { separator };
        vm.budget.charge(separator.len() + item.len())?;
        out.push_str(separator);
        out.push_str(&item);
        count += 1;
    }
    Ok(Value::Str(out.into()))
}

fn code(char: char) -> Value {
    Value::Int(u32::from(char).into())
}

fn maketrans(args: Args) -> Result<Value> {
    let [from, to, gone] = args.places("maketrans", 1)?;
    let from = from.unwrap_or(Value::None);
    let mut table = Dict::default();
    let Some(to) = to else {
        let Value::Dict(dict) = &from else {
            return fail!(Type, "if you give only one argument to maketrans it must be a dict");
        };
        for (key, value) in dict.entries() {
            let key = match (key.as_str(), key.as_int()) {
                (Some(text), _) => match text.chars().next() {
                    Some(char) if text.len() == char.len_utf8() => code(char),
                    _ => return fail!(Value, "string keys in translate table must be of length 1"),
                },
                (None, Some(number)) => Value::Int(number),
                _ => return fail!(Type, "keys in translate table must be strings or integers"),
            };
            table.insert(key, value.clone())?;
        }
        return Ok(Value::dict(table));
    };
    let (from, to) = (from.text("first maketrans argument")?, to.text("argument 2")?);
    if from.chars().count() != to.chars().count() {
        return fail!(Value, "the first two maketrans arguments must have equal length");
    }
    for (from, to) in from.chars().zip(to.chars()) {
        table.insert(code(from), code(to))?;
    }
    if let Some(gone) = gone {
        for char in gone.text("argument 3")?.chars() {
            table.insert(code(char), Value::None)?;
        }
    }
    Ok(Value::dict(table))
}

fn translate(vm: &mut Vm, text: &str, table: &Value) -> Result<Value> {
    let mut out = String::new();
    for char in text.chars() {
        vm.budget.step()?;
        let start = out.len();
        let value = match table {
            Value::Dict(table) => table.get(&code(char))?.cloned(),
            table if table.as_str().is_none() && table.as_items().is_none() && !matches!(table, Value::Range(_)) => {
                table.defined()?;
                return fail!(Type, "'{}' object is not subscriptable", table.type_name());
            }
            table => Some(vm.getitem(table, &code(char))?).filter(|value| !value.is_undefined()),
        };
        match value {
            None => out.push(char),
            Some(Value::None) => {}
            Some(value) => match (value.as_str(), value.as_int()) {
                (Some(text), _) => out.push_str(text),
                (None, Some(code)) => match u32::try_from(code).ok().and_then(char::from_u32) {
                    Some(char) => out.push(char),
                    None => return fail!(Value, "character mapping must be in range(0x110000)"),
                },
                _ => return fail!(Type, "character mapping must return integer, None or str"),
            },
        }
        vm.budget.charge(out.len() - start)?;
    }
    Ok(Value::Str(out.into()))
}

/// Text without tags and comments, white space as single spaces, entities as characters.
pub(crate) fn striptags(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        let end = match rest[start..].starts_with("<!--") {
            true => rest[start + 4..].find("-->").map(|end| start + 4 + end + 3),
            false => rest[start..].find('>').map(|end| start + end + 1),
        };
        let Some(end) = end else { break };
        out.push_str(&rest[..start]);
        rest = &rest[end..];
    }
    out.push_str(rest);
    unescape(&search::split(&out, None, usize::MAX).join(" "))
}
