//! Filters for HTML and URLs.

use super::flag;
use crate::args::Args;
use crate::error::{Result, fail};
use crate::iterate::Iter;
use crate::methods;
use crate::value::Value;
use crate::vm::Vm;

pub(super) fn striptags(vm: &mut Vm, value: &Value, args: Args) -> Result<Value> {
    args.bind::<0>("do_striptags", [], 0)?;
    let text = vm.str(value)?;
    vm.budget.charge_many(text.len(), 2)?;
    Ok(Value::str(methods::striptags(&text)))
}

pub(super) fn xmlattr(vm: &mut Vm, value: &Value, args: Args) -> Result<Value> {
    let [autospace] = args.bind("do_xmlattr", ["autospace"], 0)?;
    let autospace = autospace.map_or(Ok(true), |autospace| vm.truth(&autospace))?;
    value.defined()?;
    let Value::Dict(dict) = value else {
        return fail!(Attribute, "'{}' object has no attribute 'items'", value.type_name());
    };
    let mut items = Vec::new();
    for (key, value) in dict.entries() {
        if matches!(value, Value::None | Value::Undefined(_)) {
            continue;
        }
        let name = key.text("attribute name")?;
        if name.contains([' ', '\t', '\n', '\r', '\x0B', '\x0C', '/', '>', '=']) {
            return fail!(Value, "Invalid character in attribute name: '{name}'");
        }
        let item = format!("{}=\"{}\"", vm.escape(key)?, vm.escape(value)?);
        vm.budget.charge(item.len())?;
        items.push(item);
    }
    let text = items.join(" ");
    let text = if autospace && !text.is_empty() { format!(" {text}") } else { text };
    vm.budget.charge(text.len())?;
    Ok(if vm.autoescape { Value::Markup(text.into()) } else { Value::Str(text.into()) })
}

pub(super) fn urlencode(vm: &mut Vm, value: &Value, args: Args) -> Result<Value> {
    args.bind::<0>("do_urlencode", [], 0)?;
    let pairs = match value {
        Value::Str(_) | Value::Markup(_) => None,
        Value::Dict(dict) => Some(Iter::Dict(dict.clone(), crate::value::Part::Items, 0)),
        other => Iter::of(other).ok(),
    };
    let Some(mut pairs) = pairs else {
        let text = vm.str(value)?;
        return Ok(Value::Str(quoted(vm, &text, false)?.into()));
    };
    let mut out = String::new();
    while let Some(pair) = pairs.next(vm)? {
        let items = Iter::of(&pair)?.collect(vm)?;
        let [key, value] = &items[..] else {
            return fail!(Value, "expected pairs of key and value, got {} items", items.len());
        };
        let (key, value) = (vm.str(key)?, vm.str(value)?);
        out.push_str(if out.is_empty() { "" } else { "&" });
        out.push_str(&quoted(vm, &key, true)?);
        out.push('=');
        out.push_str(&quoted(vm, &value, true)?);
    }
    Ok(Value::Str(out.into()))
}

/// Python's `urllib.parse.quote`; in a query, a slash is quoted and a space becomes a plus sign.
fn quoted(vm: &mut Vm, text: &str, in_query: bool) -> Result<String> {
    vm.budget.charge_many(text.len(), 3)?;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => out.push(byte.into()),
            b'/' if !in_query => out.push('/'),
            b' ' if in_query => out.push('+'),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    Ok(out)
}

pub(super) fn rel_attribute(vm: &mut Vm, rel: &str, nofollow: Option<Value>) -> Result<String> {
    let mut parts: Vec<&str> = methods::split(rel, None, usize::MAX);
    if flag(vm, nofollow)? {
        parts.push("nofollow");
    }
    parts.push("noopener");
    parts.sort_unstable();
    parts.dedup();
    let rel = vm.escape(&Value::str(parts.join(" ")))?;
    Ok(format!(" rel=\"{rel}\""))
}
