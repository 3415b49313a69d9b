//! `tojson` as transformers defines it: Python's `json.dumps`.

use super::{flag, given};
use crate::args::Args;
use crate::error::{Result, fail};
use crate::format::float_repr;
use crate::value::Value;
use crate::vm::Vm;
use std::cmp::Ordering;
use std::fmt::Write as _;

struct Writer {
    ascii: bool,
    /// Indentation of one level; `None` for output without line breaks.
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    sorted: bool,
    out: String,
}

pub(super) fn tojson(vm: &mut Vm, value: &Value, args: Args) -> Result<Value> {
    let [ascii, indent, separators, sorted] =
        args.bind("tojson", ["ensure_ascii", "indent", "separators", "sort_keys"], 0)?;
    let indent = match given(indent) {
        None => None,
        // as in Python, the indentation of a string is not checked
        Some(_) if value.as_str().is_some() => None,
        Some(Value::Str(text) | Value::Markup(text)) => Some(text.to_string()),
        Some(width) => {
            let width = usize::try_from(width.index()?.max(0)).unwrap_or(usize::MAX);
            vm.budget.charge(width)?;
            Some(" ".repeat(width))
        }
    };
    let (item_separator, key_separator) = match given(separators) {
        None if indent.is_some() => (",".into(), ": ".into()),
        None => (", ".into(), ": ".into()),
        Some(pair) => {
            let items = crate::iterate::Iter::of(&pair)?.collect(vm)?;
            match &items[..] {
                [item, key] => (item.text("separator")?.to_string(), key.text("separator")?.to_string()),
                _ => return fail!(Value, "expected two separators, got {}", items.len()),
            }
        }
    };
    let mut writer = Writer {
        ascii: flag(vm, ascii)?,
        indent,
        item_separator,
        key_separator,
        sorted: flag(vm, sorted)?,
        out: String::new(),
    };
    writer.write(vm, value, 0)?;
    Ok(Value::Str(writer.out.into()))
}

impl Writer {
    fn write(&mut self, vm: &mut Vm, value: &Value, level: usize) -> Result<()> {
        let start = self.out.len();
        vm.budget.step()?;
        match value {
            Value::None => self.out.push_str("null"),
            Value::Bool(flag) => self.out.push_str(if *flag { "true" } else { "false" }),
            Value::Int(number) => self.out.push_str(&number.to_string()),
            Value::Float(number) => self.out.push_str(&float(*number)),
            Value::Str(text) | Value::Markup(text) => self.string(text),
            Value::List(items) | Value::Tuple(items) | Value::Group(items) => {
                let items = &items.items;
                self.container(vm, '[', ']', level, items.len(), |writer, vm, at| {
                    writer.write(vm, &items[at], level + 1)
                })?;
                return Ok(());
            }
            Value::Dict(dict) => {
                let mut entries: Vec<&(Value, Value)> = dict.entries().iter().collect();
                if self.sorted {
                    entries = sort(vm, entries)?;
                }
                self.container(vm, '{', '}', level, entries.len(), |writer, vm, at| {
                    let (key, value) = entries[at];
                    writer.key(key)?;
                    writer.out.push_str(&writer.key_separator.clone());
                    writer.write(vm, value, level + 1)
                })?;
                return Ok(());
            }
            other => return fail!(Type, "Object of type {} is not JSON serializable", other.type_name()),
        }
        vm.budget.charge(self.out.len() - start)
    }

    fn container(
        &mut self,
        vm: &mut Vm,
        open: char,
        close: char,
        level: usize,
        count: usize,
        mut item: impl FnMut(&mut Self, &mut Vm, usize) -> Result<()>,
    ) -> Result<()> {
        self.out.push(open);
        for at in 0..count {
            if at > 0 {
                self.out.push_str(&self.item_separator.clone());
            }
            self.line(vm, level + 1)?;
            vm.budget.charge(self.item_separator.len() + self.key_separator.len())?;
            item(self, vm, at)?;
        }
        if count > 0 {
            self.line(vm, level)?;
        }
        self.out.push(close);
        Ok(())
    }

    fn line(&mut self, vm: &mut Vm, level: usize) -> Result<()> {
        if let Some(indent) = &self.indent {
            vm.budget.charge_many(level, indent.len())?;
            self.out.push('\n');
            self.out.push_str(&indent.repeat(level));
        }
        Ok(())
    }

    fn key(&mut self, key: &Value) -> Result<()> {
        match key {
            Value::Str(text) | Value::Markup(text) => self.string(text),
            Value::None => self.string("null"),
            Value::Bool(flag) => self.string(if *flag { "true" } else { "false" }),
            Value::Int(number) => self.string(&number.to_string()),
            Value::Float(number) => self.string(&float(*number)),
            other => {
                return fail!(Type, "keys must be str, int, float, bool or None, not {}", other.type_name());
            }
        }
        Ok(())
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for char in text.chars() {
            match char {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\x08' => self.out.push_str("\\b"),
                '\x0C' => self.out.push_str("\\f"),
                char if char < ' ' || self.ascii && !(' '..='~').contains(&char) => {
                    for unit in char.encode_utf16(&mut [0; 2]) {
                        let _ = write!(self.out, "\\u{unit:04x}");
                    }
                }
                char => self.out.push(char),
            }
        }
        self.out.push('"');
    }
}

fn float(number: f64) -> String {
    match number {
        number if number.is_nan() => "NaN".into(),
        f64::INFINITY => "Infinity".into(),
        f64::NEG_INFINITY => "-Infinity".into(),
        number => float_repr(number),
    }
}

fn sort<'d>(vm: &mut Vm, mut entries: Vec<&'d (Value, Value)>) -> Result<Vec<&'d (Value, Value)>> {
    let mut failed = None;
    entries.sort_by(|a, b| {
        if failed.is_some() {
            return Ordering::Equal;
        }
        match vm.order(&a.0, &b.0, "<") {
            Ok(order) => order.unwrap_or(Ordering::Equal),
            Err(error) => {
                failed = Some(error);
                Ordering::Equal
            }
        }
    });
    failed.map_or(Ok(entries), Err)
}
