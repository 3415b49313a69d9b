//! `tokenize` and `render`: the tokenizer's files only, no weights.

use crate::args::{self, Render, Tokenize};
use crate::ask::spaced;
use crate::fetch::Need;
use crate::output::{self, Outcome};
use phi3_runner::text::{Message, Tokenizer};
use phi3_runner::{Error, Result, Source};
use serde_json::json;
use std::path::Path;

fn tokenizer(source: &Source) -> Result<Tokenizer> {
    source.tokenizer()?.ok_or_else(|| source.no_tokenizer())
}

/// `phi3-run tokenize`
pub(super) fn tokenize(args: &Tokenize) -> Result<Outcome> {
    let tokenizer = tokenizer(&args::source(&args.model, Need::Text, false)?)?;
    output::notes(tokenizer.notes(), false);
    let text = match &args.text {
        Some(text) => text.clone(),
        None => output::read_stdin()?,
    };
    let object = |text: &str| -> Result<String> {
        let ids = tokenizer.encode(text, args.special)?;
        let decoded = tokenizer.decode(&ids, false)?;
        Ok(format!("{}\n", json!({ "ids": ids, "decoded": decoded })))
    };
    if args.jsonl {
        for (i, line) in text.lines().enumerate() {
            let line: String = serde_json::from_str(line).map_err(|error| Error::Stream {
                stream: "input",
                source: format!("line {}: not a JSON string: {error}", i + 1).into(),
                hint: "with --jsonl every line is a JSON string",
            })?;
            output::print(&object(&line)?)?;
        }
    } else if args.json {
        output::print(&object(&text)?)?;
    } else {
        output::print(&format!("{}\n", spaced(&tokenizer.encode(&text, args.special)?)))?;
    }
    Ok(Outcome::Done)
}

/// `phi3-run render`
pub(super) fn render(args: &Render) -> Result<Outcome> {
    let (name, text) = match args.messages.as_path() {
        path if path == Path::new("-") => (Path::new("standard input"), output::read_stdin()?),
        path => (path, output::read_text(path)?),
    };
    let text = phi3_model::json_text(name, text.as_bytes())?;
    let messages: Vec<Message> = serde_json::from_slice(&text).map_err(|error| Error::File {
        action: "use",
        path: name.to_owned(),
        source: error.into(),
        hint: "messages are a JSON list of {\"role\": …, \"content\": …}",
    })?;
    let source = args::source(&args.model, Need::Text, false)?;
    let template = match args.template.template(&source)? {
        Some(template) => template,
        None => source.template()?,
    };
    output::print(&template.render(&messages, !args.no_generation_prompt)?)?;
    Ok(Outcome::Done)
}
