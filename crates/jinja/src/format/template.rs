//! `text.format(…)`, with the rules of jinja2's sandbox.

use super::spec::format_value;
use crate::args::Args;
use crate::error::{Result, fail};
use crate::text::to_ascii;
use crate::value::Value;
use crate::vm::Vm;

/// Source of the values of a format string.
pub(crate) enum Source {
    /// `format`: positional and keyword arguments.
    Arguments(Args),
    /// `format_map`: a mapping.
    Mapping(Value),
}

/// Numbering of the fields.
#[derive(Clone, Copy)]
enum Numbers {
    Undecided,
    Automatic(usize),
    Written,
}

/// Maximum nesting of format strings in format specifications.
const DEEPEST: usize = 2;

/// The text of a format string; with `escape`, fields are escaped for HTML.
pub(crate) fn format_text(vm: &mut Vm, text: &str, source: &Source, escape: bool) -> Result<String> {
    let mut formatter = Formatter { source, escape, numbers: Numbers::Undecided };
    formatter.format(vm, text, DEEPEST)
}

struct Formatter<'s> {
    source: &'s Source,
    escape: bool,
    numbers: Numbers,
}

struct Field<'t> {
    name: &'t str,
    conversion: Option<char>,
    spec: &'t str,
}

impl Formatter<'_> {
    fn format(&mut self, vm: &mut Vm, text: &str, deeper: usize) -> Result<String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            out.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                out.push_str(brace);
                rest = after;
                continue;
            }
            if brace == "}" {
                return fail!(Value, "Single '}}' encountered in format string");
            }
            let (field, after) = field(rest)?;
            rest = after;
            let text = self.field(vm, &field, deeper)?;
            vm.budget.charge(text.len())?;
            out.push_str(&text);
        }
        vm.budget.charge(text.len())?;
        Ok(out + rest)
    }

    fn field(&mut self, vm: &mut Vm, field: &Field<'_>, deeper: usize) -> Result<String> {
        let value = self.look_up(vm, field.name)?;
        let value = match field.conversion {
            None => value,
            Some('s') => Value::Str(vm.str(&value)?),
            Some('r') => Value::str(vm.repr(&value)?),
            Some('a') => Value::str(to_ascii(&vm.repr(&value)?)),
            Some(other) => return fail!(Value, "Unknown conversion specifier {other}"),
        };
        if deeper == 0 {
            return fail!(Value, "Max string recursion exceeded");
        }
        let spec = if field.spec.is_empty() { String::new() } else { self.format(vm, field.spec, deeper - 1)? };
        match (self.escape, &value) {
            (true, Value::Markup(text)) if spec.is_empty() => Ok(text.to_string()),
            (true, Value::Markup(_)) => fail!(Value, "Unsupported format specification for Markup."),
            (true, _) => {
                let text = Value::str(format_value(vm, &value, &spec)?);
                Ok(vm.escape(&text)?.to_string())
            }
            (false, _) => format_value(vm, &value, &spec),
        }
    }

    /// `name.attribute[index]`
    fn look_up(&mut self, vm: &mut Vm, name: &str) -> Result<Value> {
        let end = name.find(['.', '[']).unwrap_or(name.len());
        let (first, mut rest) = name.split_at(end);
        let mut value = self.first(first)?;
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('.') {
                let end = after.find(['.', '[']).unwrap_or(after.len());
                if end == 0 {
                    return fail!(Value, "Empty attribute in format string");
                }
                value = vm.getattr(&value, &after[..end])?;
                rest = &after[end..];
            } else if let Some(after) = rest.strip_prefix('[') {
                let Some(end) = after.find(']') else { return fail!(Value, "Missing ']' in format string") };
                if end == 0 {
                    return fail!(Value, "Empty attribute in format string");
                }
                let index = match after[..end].parse::<i128>() {
                    Ok(number) if after.as_bytes()[0].is_ascii_digit() => Value::Int(number),
                    _ => Value::str(&after[..end]),
                };
                value = vm.getitem(&value, &index)?;
                rest = &after[end + 1..];
            } else {
                return fail!(Value, "Only '.' or '[' may follow ']' in format field specifier");
            }
        }
        Ok(value)
    }

    fn first(&mut self, name: &str) -> Result<Value> {
        let is_number = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
        let place = match (self.numbers, name) {
            (Numbers::Written, "") => {
                return fail!(Value, "cannot switch from manual field specification to automatic field numbering");
            }
            (Numbers::Automatic(next), "") => {
                self.numbers = Numbers::Automatic(next + 1);
                Some(next)
            }
            (Numbers::Undecided, "") => {
                self.numbers = Numbers::Automatic(1);
                Some(0)
            }
            (Numbers::Automatic(_), _) if is_number => {
                return fail!(Value, "cannot switch from manual field specification to automatic field numbering");
            }
            (_, name) if is_number => {
                self.numbers = Numbers::Written;
                Some(name.parse::<usize>().unwrap_or(usize::MAX))
            }
            _ => None,
        };
        let (positional, named) = match self.source {
            Source::Arguments(args) => (
                &*args.positional,
                args.keywords.iter().find(|(keyword, _)| &**keyword == name).map(|(_, value)| value.clone()),
            ),
            Source::Mapping(Value::Dict(dict)) => (&[][..], dict.get_str(name).cloned()),
            Source::Mapping(other) if place.is_none() => {
                other.defined()?;
                return fail!(Type, "'{}' object is no mapping", other.type_name());
            }
            Source::Mapping(_) => (&[][..], None),
        };
        match (place, named) {
            (Some(place), _) => match positional.get(place) {
                Some(value) => Ok(value.clone()),
                None => fail!(Lookup, "Replacement index {place} out of range for positional args tuple"),
            },
            (None, Some(value)) => Ok(value),
            (None, None) => fail!(Lookup, "'{name}'"),
        }
    }
}

/// Parses a field after its brace; also returns the rest of the text.
fn field(text: &str) -> Result<(Field<'_>, &str)> {
    if text.is_empty() {
        return fail!(Value, "Single '{{' encountered in format string");
    }
    let mut in_brackets = false;
    let end = text.char_indices().find(|(_, char)| match char {
        '[' => {
            in_brackets = true;
            false
        }
        ']' => {
            in_brackets = false;
            false
        }
        '{' | '}' | ':' | '!' => !in_brackets,
        _ => false,
    });
    let Some((end, mark)) = end else { return fail!(Value, "expected '}}' before end of string") };
    let (name, mut rest) = (&text[..end], &text[end + 1..]);
    let mut conversion = None;
    match mark {
        '}' => return Ok((Field { name, conversion, spec: "" }, rest)),
        '{' => return fail!(Value, "unexpected '{{' in field name"),
        '!' => {
            let mut chars = rest.chars();
            conversion = chars.next();
            match (conversion, chars.next()) {
                (Some(_), Some('}')) => return Ok((Field { name, conversion, spec: "" }, chars.as_str())),
                (Some(_), Some(':')) => rest = chars.as_str(),
                (Some(_), Some(_)) => return fail!(Value, "expected ':' after conversion specifier"),
                _ => return fail!(Value, "unmatched '{{' in format spec"),
            }
        }
        _ => {}
    }
    let mut depth = 1;
    let end = rest.char_indices().find(|(_, char)| {
        depth += match char {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        depth == 0
    });
    match end {
        Some((end, _)) => Ok((Field { name, conversion, spec: &rest[..end] }, &rest[end + 1..])),
        None => fail!(Value, "unmatched '{{' in format spec"),
    }
}
