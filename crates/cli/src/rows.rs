//! Rows of measurements in one of several formats, each printed as soon as it is measured.

use crate::args::BenchFormat;
use serde_json::{Map, Value};

/// A row: every column by name.
pub(super) type Record = Map<String, Value>;

/// Columns and layout of a kind of row.
pub(super) trait Table {
    /// Name of the table in SQL.
    const NAME: &'static str;
    /// Columns of integers and booleans.
    const INTEGERS: &'static [&'static str];
    /// Columns of other numbers.
    const REALS: &'static [&'static str];
    /// The two lines above the rows in Markdown.
    fn head(&self) -> String;
    /// A row in Markdown.
    fn line(&self, record: &Record) -> String;
    /// Text below the rows in Markdown.
    fn foot(&self) -> String {
        String::new()
    }
}

/// Formats rows one at a time.
pub(super) struct Writer<T: Table> {
    format: BenchFormat,
    table: T,
    /// Rows of the table so far.
    rows: usize,
    /// Titles so far.
    sections: usize,
}

/// Fields of a flat row: all except lists.
fn flat(record: &Record) -> impl Iterator<Item = (&String, &Value)> {
    record.iter().filter(|(_, value)| !value.is_array())
}

impl<T: Table> Writer<T> {
    pub(super) fn new(format: BenchFormat, table: T) -> Self {
        Self { format, table, rows: 0, sections: 0 }
    }

    /// Begins another table below `title` in Markdown; the other formats have one table.
    pub(super) fn section(&mut self, title: &str) -> String {
        if self.format != BenchFormat::Md {
            return String::new();
        }
        let space = if self.sections == 0 { "" } else { "\n" };
        self.sections += 1;
        self.rows = 0;
        format!("{space}{title}\n\n")
    }

    pub(super) fn row(&mut self, record: &Record) -> String {
        let first = self.rows == 0;
        self.rows += 1;
        match self.format {
            BenchFormat::Md => {
                let head = if first { self.table.head() } else { String::new() };
                format!("{head}{}", self.table.line(record))
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
                let name = T::NAME;
                let types: Vec<_> = flat(record).map(|(name, _)| format!("  {name} {}", sql_type::<T>(name))).collect();
                let table = format!("CREATE TABLE IF NOT EXISTS {name} (\n{}\n);\n\n", types.join(",\n"));
                let names: Vec<&str> = flat(record).map(|(name, _)| name.as_str()).collect();
                let cells: Vec<_> = flat(record).map(|(_, value)| sql_value(value)).collect();
                let row = format!("INSERT INTO {name} ({}) VALUES ({});\n", names.join(", "), cells.join(", "));
                format!("{}{row}", if first { table.as_str() } else { "" })
            }
        }
    }

    pub(super) fn end(&self) -> String {
        match (self.format, self.rows) {
            (BenchFormat::Json, 0) => "[]\n".into(),
            (BenchFormat::Json, _) => "\n]\n".into(),
            (BenchFormat::Md, 1..) => self.table.foot(),
            _ => String::new(),
        }
    }
}

/// A value without its quotation marks; empty for null.
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

/// SQL type of a column. It does not depend on values, because those of the first row may be null.
fn sql_type<T: Table>(column: &str) -> &'static str {
    match () {
        () if T::INTEGERS.contains(&column) => "INTEGER",
        () if T::REALS.contains(&column) => "REAL",
        () => "TEXT",
    }
}

fn sql_value(value: &Value) -> String {
    if value.is_null() { "NULL".into() } else { quoted(&plain(value), '\'') }
}
