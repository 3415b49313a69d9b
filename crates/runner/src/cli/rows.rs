//! Rows of measurements in one of several formats, each printed as soon as it is there.

use super::args::BenchFormat;
use serde_json::{Map, Value};

/// A row: every column by name.
pub(super) type Record = Map<String, Value>;

/// How a kind of row looks in Markdown.
pub(super) trait Markdown {
    /// The two lines above the rows.
    fn head(&self) -> String;
    /// A row.
    fn line(&self, record: &Record) -> String;
}

/// One of the formats; rows come as they are measured.
pub(super) struct Writer<M: Markdown> {
    format: BenchFormat,
    markdown: M,
    /// The table's name in SQL.
    table: &'static str,
    rows: usize,
}

/// Fields that are lists are left out where a row is flat.
fn flat(record: &Record) -> impl Iterator<Item = (&String, &Value)> {
    record.iter().filter(|(_, value)| !value.is_array())
}

impl<M: Markdown> Writer<M> {
    pub(super) fn new(format: BenchFormat, table: &'static str, markdown: M) -> Self {
        Self { format, markdown, table, rows: 0 }
    }

    pub(super) fn row(&mut self, record: &Record) -> String {
        let first = self.rows == 0;
        self.rows += 1;
        match self.format {
            BenchFormat::Md => {
                let head = if first { self.markdown.head() } else { String::new() };
                format!("{head}{}", self.markdown.line(record))
            }
            BenchFormat::Json => {
                let text = serde_json::to_string_pretty(record).unwrap_or_default().replace('\n', "\n  ");
                format!("{}\n  {text}", if first { "[" } else { "," })
            }
            BenchFormat::Jsonl => format!("{}\n", Value::Object(record.clone())),
            BenchFormat::Csv => {
                let line = |cells: Vec<String>| format!("{}\n", cells.join(","));
                let names = line(flat(record).map(|(name, _)| name.clone()).collect());
                let cells = line(flat(record).map(|(_, value)| quoted(&plain(value), '"')).collect());
                format!("{}{cells}", if first { names.as_str() } else { "" })
            }
            BenchFormat::Sql => {
                let name = self.table;
                let types: Vec<_> = flat(record).map(|(name, value)| format!("  {name} {}", sql_type(value))).collect();
                let table = format!("CREATE TABLE IF NOT EXISTS {name} (\n{}\n);\n\n", types.join(",\n"));
                let names: Vec<&str> = flat(record).map(|(name, _)| name.as_str()).collect();
                let cells: Vec<_> = flat(record).map(|(_, value)| quoted(&plain(value), '\'')).collect();
                let row = format!("INSERT INTO {name} ({}) VALUES ({});\n", names.join(", "), cells.join(", "));
                format!("{}{row}", if first { table.as_str() } else { "" })
            }
        }
    }

    pub(super) fn end(&self) -> String {
        match (self.format, self.rows) {
            (BenchFormat::Json, 0) => "[]\n".into(),
            (BenchFormat::Json, _) => "\n]\n".into(),
            _ => String::new(),
        }
    }
}

/// A value without its quotation marks; nothing for null.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(flag) => u8::from(*flag).to_string(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn quoted(text: &str, quote: char) -> String {
    format!("{quote}{}{quote}", text.replace(quote, &format!("{quote}{quote}")))
}

fn sql_type(value: &Value) -> &'static str {
    match value {
        Value::Number(number) if number.is_f64() => "REAL",
        Value::Number(_) | Value::Bool(_) => "INTEGER",
        _ => "TEXT",
    }
}
