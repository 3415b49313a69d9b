//! Filters of text.

use super::{flag, given, like};
use crate::args::Args;
use crate::ast::{Binary, Compare};
use crate::error::{Result, fail};
use crate::format;
use crate::methods;
use crate::operators::binary;
use crate::unicode;
use crate::value::Value;
use crate::vm::Vm;

/// A filter without arguments, defined by a function of text.
pub(super) fn changed(vm: &mut Vm, value: &Value, args: Args, change: fn(&str) -> String) -> Result<Value> {
    args.bind::<0>("filter", [], 0)?;
    let text = vm.soft_str(value)?;
    let changed = change(text.as_str().unwrap_or_default());
    vm.budget.charge(changed.len())?;
    Ok(like(&text, changed))
}

pub(super) fn capitalize(vm: &mut Vm, value: &Value, args: Args) -> Result<Value> {
    changed(vm, value, args, methods::capitalize)
}

/// The first letter of each word in upper case, the others in lower case. Words begin at the start, after white space, `-`,
/// `(`, `{`, `[` and `<`.
pub(super) fn title(text: &str) -> String {
    let separates = |char: char| matches!(char, '-' | '(' | '{' | '[' | '<') || unicode::is_space(char);
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let in_word = !separates(first);
        let end = rest.find(|char| separates(char) == in_word).unwrap_or(rest.len());
        let (part, after) = rest.split_at(end);
        let (head, tail) = part.split_at(first.len_utf8());
        out.push_str(&methods::upper(head));
        out.push_str(&methods::lower(tail));
        rest = after;
    }
    out
}

pub(super) fn center(vm: &mut Vm, value: &Value, args: Args) -> Result<Value> {
    let [width] = args.bind("do_center", ["width"], 0)?;
    let text = vm.soft_str(value)?;
    let width = width.map_or(Ok(80), |width| width.index())?;
    let centered = methods::align(vm, text.as_str().unwrap_or_default(), "center", width, ' ')?;
    Ok(like(&text, centered))
}

pub(super) fn trim(vm: &mut Vm, value: &Value, args: Args) -> Result<Value> {
    let [chars] = args.bind("do_trim", ["chars"], 0)?;
    let text = vm.soft_str(value)?;
    let trimmed = methods::strip(text.as_str().unwrap_or_default(), "strip", chars.as_ref())?;
    vm.budget.charge(trimmed.len())?;
    Ok(like(&text, trimmed))
}

pub(super) fn format(vm: &mut Vm, value: &Value, args: Args) -> Result<Value> {
    let text = vm.soft_str(value)?;
    if args.keywords.is_empty() {
        return format::percent(vm, &text, &Value::tuple(args.positional)?);
    }
    if !args.positional.is_empty() {
        return fail!(Runtime, "can't handle positional and keyword arguments at the same time");
    }
    let mut named = crate::value::Dict::default();
    for (keyword, value) in args.keywords {
        named.insert(Value::Str(keyword), value)?;
    }
    format::percent(vm, &text, &Value::dict(named))
}

pub(super) fn replace(vm: &mut Vm, value: &Value, args: Args) -> Result<Value> {
    let [old, new, count] = args.bind("do_replace", ["old", "new", "count"], 2)?;
    let (old, new) = (old.unwrap_or(Value::None), new.unwrap_or(Value::None));
    let count = given(count).map_or(Ok(-1), |count| count.index())?;
    if !vm.autoescape {
        let (text, old, new) = (vm.str(value)?, vm.str(&old)?, vm.str(&new)?);
        return Ok(Value::Str(replaced(vm, &text, &old, &new, count)?));
    }
    let is_markup = |value: &Value| matches!(value, Value::Markup(_));
    let escapes = is_markup(&old) || is_markup(&new) && !is_markup(value);
    let text = if escapes { Value::Markup(vm.escape(value)?) } else { vm.soft_str(value)? };
    let new = if is_markup(&text) { vm.escape(&new)? } else { vm.str(&new)? };
    let old = vm.str(&old)?;
    let replaced = replaced(vm, text.as_str().unwrap_or_default(), &old, &new, count)?;
    Ok(like(&text, replaced))
}

fn replaced(vm: &mut Vm, text: &str, old: &str, new: &str, count: i128) -> Result<std::sync::Arc<str>> {
    Ok(methods::replace(vm, text, old, new, count)?.into())
}

pub(super) fn indent(vm: &mut Vm, value: &Value, args: Args) -> Result<Value> {
    let [width, first, blank] = args.bind("do_indent", ["width", "first", "blank"], 0)?;
    value.defined()?;
    let text = value.text("the text to indent")?;
    let width = width.unwrap_or(Value::Int(4));
    let (first, blank) = (flag(vm, first)?, flag(vm, blank)?);
    let indention = match width.as_str() {
        Some(_) if matches!(value, Value::Markup(_)) => vm.escape(&width)?.to_string(),
        Some(text) => text.to_owned(),
        None => {
            let width = usize::try_from(width.index()?.max(0)).unwrap_or(usize::MAX);
            vm.budget.charge(width)?;
            " ".repeat(width)
        }
    };
    let text = format!("{text}\n");
    let lines = methods::split_lines(&text, false);
    vm.budget.charge(text.len())?;
    vm.budget.charge_many(lines.len(), indention.len() + 1)?;
    let mut out = String::new();
    for (i, line) in lines.iter().enumerate() {
        out.push_str(if i == 0 { "" } else { "\n" });
        let indents = if i == 0 { first } else { blank || !line.is_empty() };
        out.push_str(if indents { &indention } else { "" });
        out.push_str(line);
    }
    Ok(like(value, out))
}

pub(super) fn truncate(vm: &mut Vm, value: Value, args: Args) -> Result<Value> {
    let [length, killwords, end, leeway] = args.bind("do_truncate", ["length", "killwords", "end", "leeway"], 0)?;
    let length = length.unwrap_or(Value::Int(255));
    let killwords = flag(vm, killwords)?;
    let end = end.unwrap_or_else(|| Value::str("..."));
    let end_length = Value::Int(vm.len(&end)? as i128);
    let leeway = given(leeway).unwrap_or(Value::Int(5));
    if vm.compare(Compare::Lt, &length, &end_length)? {
        return fail!(Assertion, "expected length >= {}, got {}", vm.repr(&end_length)?, vm.repr(&length)?);
    }
    if vm.compare(Compare::Lt, &leeway, &Value::Int(0))? {
        return fail!(Assertion, "expected leeway >= 0, got {}", vm.repr(&leeway)?);
    }
    let most = binary(vm, Binary::Add, &length, &leeway)?;
    let own_length = Value::Int(vm.len(&value)? as i128);
    if vm.compare(Compare::Le, &own_length, &most)? {
        return Ok(value);
    }
    let kept = binary(vm, Binary::Sub, &length, &end_length)?;
    let kept = vm.slice(&value, &[None, Some(kept), None])?;
    let kept_text = kept.text("the text to truncate")?;
    let kept = match killwords {
        true => kept.clone(),
        false => like(&kept, kept_text.rsplit_once(' ').map_or(&**kept_text, |(before, _)| before)),
    };
    binary(vm, Binary::Add, &kept, &end)
}

pub(super) fn wordcount(vm: &mut Vm, value: &Value, args: Args) -> Result<Value> {
    args.bind::<0>("do_wordcount", [], 0)?;
    let text = vm.str(value)?;
    vm.budget.steps(text.len() / 16)?;
    let is_word = |char: char| char == '_' || unicode::is_alphanumeric(char);
    let words = text.split(|char| !is_word(char)).filter(|word| !word.is_empty()).count();
    Ok(Value::Int(words as i128))
}
