//! `pprint`: Python's `pprint.pformat` with its defaults.

use std::cmp::Ordering;

use crate::error::{ErrorKind, Result};
use crate::methods;
use crate::unicode;
use crate::value::Value;
use crate::vm::Vm;

const WIDTH: isize = 80;

pub(super) fn pprint(vm: &mut Vm, value: &Value) -> Result<Value> {
    let mut printer = Printer { out: String::new() };
    printer.format(vm, value, 0, 0, 0)?;
    vm.budget.charge(printer.out.len())?;
    Ok(Value::Str(printer.out.into()))
}

struct Printer {
    out: String,
}

fn width(text: &str) -> isize {
    text.chars().count() as isize
}

impl Printer {
    /// Writes a value at the column `indent`, with `allowance` characters reserved after it on its last line.
    fn format(&mut self, vm: &mut Vm, value: &Value, indent: isize, allowance: isize, level: usize) -> Result<()> {
        let repr = sorted_repr(vm, value)?;
        if width(&repr) <= WIDTH - indent - allowance {
            self.out.push_str(&repr);
            return Ok(());
        }
        match value {
            Value::Dict(_) => {
                let entries = sorted_entries(vm, value)?;
                self.out.push('{');
                let last = entries.len().saturating_sub(1);
                for (i, (key, value)) in entries.iter().enumerate() {
                    if i > 0 {
                        self.line(vm, indent + 1)?;
                    }
                    let key = sorted_repr(vm, key)?;
                    self.out.push_str(&key);
                    self.out.push_str(": ");
                    let allowance = if i == last { allowance + 1 } else { 1 };
                    self.format(vm, value, indent + 1 + width(&key) + 2, allowance, level + 1)?;
                }
                self.out.push('}');
            }
            Value::List(list) => self.items(vm, "[", &list.items, "]", indent, allowance, level)?,
            Value::Tuple(tuple) => {
                let close = if tuple.items.len() == 1 { ",)" } else { ")" };
                self.items(vm, "(", &tuple.items, close, indent, allowance, level)?;
            }
            Value::Str(text) => self.text(vm, text, indent, allowance, level + 1)?,
            _ => self.out.push_str(&repr),
        }
        Ok(())
    }

    fn line(&mut self, vm: &mut Vm, indent: isize) -> Result<()> {
        vm.budget.charge(indent as usize)?;
        self.out.push_str(",\n");
        self.out.push_str(&" ".repeat(indent as usize));
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    fn items(
        &mut self,
        vm: &mut Vm,
        open: &str,
        items: &[Value],
        close: &str,
        indent: isize,
        allowance: isize,
        level: usize,
    ) -> Result<()> {
        self.out.push_str(open);
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                self.line(vm, indent + 1)?;
            }
            let allowance = if i + 1 == items.len() { allowance + width(close) } else { 1 };
            self.format(vm, item, indent + 1, allowance, level + 1)?;
        }
        self.out.push_str(close);
        Ok(())
    }

    /// Writes a long string as several literals on separate lines.
    fn text(&mut self, vm: &mut Vm, text: &str, indent: isize, allowance: isize, level: usize) -> Result<()> {
        let (indent, allowance) = if level == 1 { (indent + 1, allowance + 1) } else { (indent, allowance) };
        let room = WIDTH - indent;
        let mut chunks = Vec::new();
        let lines = methods::split_lines(text, true);
        let last = lines.len().saturating_sub(1);
        let mut repr = String::new();
        for (i, line) in lines.iter().enumerate() {
            repr = vm.repr(&Value::str(line))?;
            if width(&repr) <= if i == last { room - allowance } else { room } {
                chunks.push(repr.clone());
                continue;
            }
            let parts = words(line);
            let mut current = String::new();
            for (j, part) in parts.iter().enumerate() {
                let candidate = format!("{current}{part}");
                let room = if i == last && j + 1 == parts.len() { room - allowance } else { room };
                if width(&vm.repr(&Value::str(&candidate))?) > room {
                    if !current.is_empty() {
                        chunks.push(vm.repr(&Value::str(&current))?);
                    }
                    current = (*part).to_owned();
                } else {
                    current = candidate;
                }
            }
            if !current.is_empty() {
                chunks.push(vm.repr(&Value::str(&current))?);
            }
        }
        if chunks.len() == 1 {
            self.out.push_str(&repr);
            return Ok(());
        }
        vm.budget.charge_many(chunks.len(), indent.max(0) as usize)?;
        self.out.push_str(if level == 1 { "(" } else { "" });
        self.out.push_str(&chunks.join(&format!("\n{}", " ".repeat(indent.max(0) as usize))));
        self.out.push_str(if level == 1 { ")" } else { "" });
        Ok(())
    }
}

/// Words with their trailing white space.
fn words(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let word = rest.find(unicode::is_space).unwrap_or(rest.len());
        let end = rest[word..].find(|char| !unicode::is_space(char)).map_or(rest.len(), |length| word + length);
        let (part, after) = rest.split_at(end);
        words.push(part);
        rest = after;
    }
    words
}

/// `repr` with the keys of all dictionaries sorted.
fn sorted_repr(vm: &mut Vm, value: &Value) -> Result<String> {
    let (open, close, parts): (_, _, Vec<String>) = match value {
        Value::Dict(_) => {
            let mut parts = Vec::new();
            for (key, value) in sorted_entries(vm, value)? {
                parts.push(format!("{}: {}", sorted_repr(vm, &key)?, sorted_repr(vm, &value)?));
            }
            ("{", "}", parts)
        }
        Value::List(list) => ("[", "]", reprs(vm, &list.items)?),
        Value::Tuple(tuple) => ("(", if tuple.items.len() == 1 { ",)" } else { ")" }, reprs(vm, &tuple.items)?),
        other => return vm.repr(other),
    };
    let repr = format!("{open}{}{close}", parts.join(", "));
    vm.budget.charge(repr.len())?;
    Ok(repr)
}

fn reprs(vm: &mut Vm, items: &[Value]) -> Result<Vec<String>> {
    items.iter().map(|item| sorted_repr(vm, item)).collect()
}

/// Entries sorted by key; keys without an order by their type names.
fn sorted_entries(vm: &mut Vm, dict: &Value) -> Result<Vec<(Value, Value)>> {
    let Value::Dict(dict) = dict else { return Ok(Vec::new()) };
    let mut failed = None;
    let mut entries = dict.entries().to_vec();
    entries.sort_by(|a, b| match vm.order(&a.0, &b.0, "<") {
        Ok(order) => order.unwrap_or(Ordering::Equal),
        Err(error) if error.kind() == ErrorKind::Type => a.0.type_name().cmp(b.0.type_name()),
        Err(error) => {
            failed.get_or_insert(error);
            Ordering::Equal
        }
    });
    failed.map_or(Ok(entries), Err)
}
