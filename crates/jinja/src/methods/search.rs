//! Substring search and splitting.

use crate::args::Args;
use crate::attributes::places;
use crate::error::{Result, fail};
use crate::unicode;
use crate::value::{ITEM, Value};
use crate::vm::Vm;

/// The part of a text between optional bounds, and the number of characters before it; `None` if the start is beyond the end.
fn window<'t>(text: &'t str, start: Option<&Value>, end: Option<&Value>) -> Result<Option<(&'t str, usize)>> {
    let bound = |bound: Option<&Value>| match bound {
        None | Some(Value::None) => Ok(None),
        Some(bound) => match bound.as_int() {
            Some(number) => Ok(Some(number)),
            None => fail!(Type, "slice indices must be integers or None or have an __index__ method"),
        },
    };
    let (start, end) = (bound(start)?, bound(end)?);
    if start.is_none() && end.is_none() {
        return Ok(Some((text, 0)));
    }
    let length = text.chars().count();
    let Some(range) = places(length, [start, end, None]) else { return Ok(None) };
    if start.is_some_and(|start| start > length as i128) || range.start > range.stop {
        return Ok(None);
    }
    let offset = |at: i128| text.char_indices().nth(at as usize).map_or(text.len(), |(offset, _)| offset);
    Ok(Some((&text[offset(range.start)..offset(range.stop)], range.start as usize)))
}

/// Position of a substring in characters: `find`, `rfind`, `index`, `rindex`.
pub(super) fn find(vm: &mut Vm, text: &str, name: &str, args: Args) -> Result<Value> {
    let [part, start, end] = args.places(name, 1)?;
    let part = part.unwrap_or(Value::None);
    let part = part.text("argument 1")?;
    vm.budget.steps(text.len() / 64)?;
    let found = window(text, start.as_ref(), end.as_ref())?.and_then(|(window, before)| {
        let at = if name.starts_with('r') { window.rfind(&**part) } else { window.find(&**part) }?;
        Some(before + window[..at].chars().count())
    });
    match found {
        Some(at) => Ok(Value::Int(at as i128)),
        None if name.ends_with("index") => fail!(Value, "substring not found"),
        None => Ok(Value::Int(-1)),
    }
}

pub(super) fn count(vm: &mut Vm, text: &str, args: Args) -> Result<Value> {
    let [part, start, end] = args.places("count", 1)?;
    let part = part.unwrap_or(Value::None);
    let part = part.text("argument 1")?;
    vm.budget.steps(text.len() / 64)?;
    let count = window(text, start.as_ref(), end.as_ref())?.map_or(0, |(window, _)| match part.is_empty() {
        true => window.chars().count() + 1,
        false => window.matches(&**part).count(),
    });
    Ok(Value::Int(count as i128))
}

/// `startswith` and `endswith`, with one text or a tuple of them.
pub(super) fn begins_or_ends(vm: &mut Vm, text: &str, name: &str, args: Args) -> Result<Value> {
    let [part, start, end] = args.places(name, 1)?;
    let part = part.unwrap_or(Value::None);
    let parts = match &part {
        Value::Tuple(parts) | Value::Group(parts) => parts.items.as_slice(),
        single => std::slice::from_ref(single),
    };
    vm.budget.steps(text.len() / 64)?;
    let window = window(text, start.as_ref(), end.as_ref())?;
    for part in parts {
        let Some(part) = part.as_str() else {
            return fail!(Type, "{name} first arg must be str or a tuple of str, not {}", part.type_name());
        };
        let holds = window.is_some_and(|(window, _)| match name {
            "startswith" => window.starts_with(part),
            _ => window.ends_with(part),
        });
        if holds {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

/// `partition` and `rpartition`
pub(super) fn partition(text: &str, name: &str, args: Args) -> Result<Value> {
    let [separator] = args.places(name, 1)?;
    let separator = separator.unwrap_or(Value::None);
    let separator = &**separator.text("separator")?;
    if separator.is_empty() {
        return fail!(Value, "empty separator");
    }
    let from_right = name == "rpartition";
    let split = if from_right { text.rsplit_once(separator) } else { text.split_once(separator) };
    let parts = match split {
        Some((left, right)) => [left, separator, right],
        None if from_right => ["", "", text],
        None => [text, "", ""],
    };
    Value::tuple(parts.map(Value::str).to_vec())
}

/// `split` and `rsplit`
pub(super) fn split_method(vm: &mut Vm, text: &str, name: &str, args: Args) -> Result<Value> {
    let [separator, most] = args.bind(name, ["sep", "maxsplit"], 0)?;
    let most = most.map_or(Ok(-1), |most| most.index())?;
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let separator = match &separator {
        None | Some(Value::None) => None,
        Some(separator) => Some(&**separator.text("sep")?),
    };
    if separator == Some("") {
        return fail!(Value, "empty separator");
    }
    let parts = if name == "rsplit" { rsplit(text, separator, most) } else { split(text, separator, most) };
    list(vm, parts)
}

fn list(vm: &mut Vm, parts: Vec<&str>) -> Result<Value> {
    for part in &parts {
        vm.budget.charge(ITEM + part.len())?;
    }
    Value::list(parts.into_iter().map(Value::str).collect())
}

/// Splits at separators or at white space, at most `most` times.
pub(crate) fn split<'t>(text: &'t str, separator: Option<&str>, most: usize) -> Vec<&'t str> {
    if let Some(separator) = separator {
        return text.splitn(most.saturating_add(1), separator).collect();
    }
    let mut parts = Vec::new();
    let mut rest = text.trim_start_matches(unicode::is_space);
    while !rest.is_empty() {
        if parts.len() == most {
            parts.push(rest);
            break;
        }
        let end = rest.find(unicode::is_space).unwrap_or(rest.len());
        parts.push(&rest[..end]);
        rest = rest[end..].trim_start_matches(unicode::is_space);
    }
    parts
}

fn rsplit<'t>(text: &'t str, separator: Option<&str>, most: usize) -> Vec<&'t str> {
    let mut parts: Vec<&str> = Vec::new();
    if let Some(separator) = separator {
        parts = text.rsplitn(most.saturating_add(1), separator).collect();
    } else {
        let mut rest = text.trim_end_matches(unicode::is_space);
        while !rest.is_empty() {
            if parts.len() == most {
                parts.push(rest);
                break;
            }
            let last = rest.char_indices().rev().find(|(_, char)| unicode::is_space(*char));
            let start = last.map_or(0, |(at, char)| at + char.len_utf8());
            parts.push(&rest[start..]);
            rest = rest[..start].trim_end_matches(unicode::is_space);
        }
    }
    parts.reverse();
    parts
}

/// Python's `splitlines`.
pub(crate) fn split_lines(text: &str, with_ends: bool) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (end, next) = match rest.char_indices().find(|(_, char)| unicode::is_line_break(*char)) {
            None => (rest.len(), rest.len()),
            Some((at, '\r')) if rest[at..].starts_with("\r\n") => (at, at + 2),
            Some((at, char)) => (at, at + char.len_utf8()),
        };
        lines.push(&rest[..if with_ends { next } else { end }]);
        rest = &rest[next..];
    }
    lines
}

pub(super) fn splitlines(vm: &mut Vm, text: &str, args: Args) -> Result<Value> {
    let [with_ends] = args.bind("splitlines", ["keepends"], 0)?;
    let with_ends = with_ends.map_or(Ok(0), |with_ends| with_ends.index())? != 0;
    list(vm, split_lines(text, with_ends))
}

/// `strip`, `lstrip`, `rstrip`; without characters, white space.
pub(crate) fn strip<'t>(text: &'t str, name: &str, chars: Option<&Value>) -> Result<&'t str> {
    let chars = match chars {
        None | Some(Value::None) => None,
        Some(chars) => match chars.as_str() {
            Some(chars) => Some(chars),
            None => return fail!(Type, "{name} arg must be None or str"),
        },
    };
    let goes = |char: char| chars.map_or_else(|| unicode::is_space(char), |chars| chars.contains(char));
    let text = if name == "rstrip" { text } else { text.trim_start_matches(goes) };
    Ok(if name == "lstrip" { text } else { text.trim_end_matches(goes) })
}

/// `replace`
pub(crate) fn replace(vm: &mut Vm, text: &str, old: &str, new: &str, most: i128) -> Result<String> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    vm.budget.charge(text.len())?;
    let found = if old.is_empty() { text.chars().count() + 1 } else { text.matches(old).count() };
    vm.budget.charge_many(found.min(most), new.len())?;
    Ok(text.replacen(old, new, most))
}
