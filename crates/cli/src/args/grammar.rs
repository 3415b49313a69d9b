//! Options of structured output.

use clap::Args;
use phi3_runner::Grammar;
use serde_json::Value;

/// The grammar that an answer has to match.
#[derive(Args, Clone)]
#[group(id = "structure", multiple = false, conflicts_with = "ignore_eos")]
pub(super) struct GrammarArgs {
    /// Answer in JSON that is valid by a JSON schema: a file, or the schema itself, which begins with {
    #[arg(long, value_name = "FILE|SCHEMA", value_parser = json_schema)]
    json_schema: Option<Value>,
    /// Answer with a text that matches a regular expression from its start to its end
    #[arg(long, value_name = "PATTERN")]
    regex: Option<String>,
    /// Answer with a text that matches a context-free grammar in Lark's syntax
    #[arg(long, value_name = "FILE", value_parser = lark)]
    grammar: Option<Grammar>,
}

impl GrammarArgs {
    /// The requested grammar.
    pub(super) fn grammar(&self) -> Option<Grammar> {
        let schema = self.json_schema.clone().map(Grammar::JsonSchema);
        schema.or_else(|| self.regex.clone().map(Grammar::Regex)).or_else(|| self.grammar.clone())
    }
}

fn json_schema(text: &str) -> Result<Value, String> {
    let (place, text) = match text.trim_start().starts_with('{') {
        true => ("the schema", text.to_owned()),
        false => (text, read(text).map_err(|error| format!("{error}; a schema in place of a file begins with {{"))?),
    };
    // a mark at the start of files of Windows is no JSON
    let json = text.strip_prefix('\u{FEFF}').unwrap_or(&text);
    serde_json::from_str(json).map_err(|error| format!("{place} is not JSON: {error}"))
}

fn lark(path: &str) -> Result<Grammar, String> {
    read(path).map(Grammar::Lark)
}

fn read(path: &str) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))
}
