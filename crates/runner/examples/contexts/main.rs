//! Compares two models on a question about a long text, such as a 4k and a 128k model.
//!
//! ```console
//! cargo run --release -p phi3-runner --example contexts -- \
//!     --short ./Phi-3-mini-4k-instruct --long ./Phi-3-mini-128k-instruct --text book.txt --question "Who finds the key?"
//! ```
//!
//! A text that does not fit into a model's context is cut (`fit.rs`): the passages that match the question are kept, and the number
//! of tokens that are left out is printed. A table at the end (`report.rs`) has the measurements of both models.

mod fit;
mod report;

// The example `search` explains these.
#[path = "../search/arguments.rs"]
mod arguments;
#[path = "../search/bm25.rs"]
mod bm25;
#[path = "../search/passages.rs"]
mod passages;

use arguments::Arguments;
use fit::fit;
use phi3_runner::{
    Device, DeviceOptions, Engine, Error, Event, GenerateOptions, Prompt, Result, RopePolicy, SamplerOptions, Summary,
};
use report::{Report, RopeFactors, table};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "\
Compares two models on a question about a long text.

  --short PATH       a checkpoint folder or a GGUF file; the demo model where absent
  --long PATH        a second one; the demo model where absent
  --model PATH       one model for both
  --device NAME      auto, cpu, gpu, gpu:N or part of an adapter's name
  --text FILE        the text; the project's docs/architecture.md where absent
  --question TEXT    the question
  --max-tokens N     most tokens of an answer; 128 where absent";

const TEXT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/architecture.md");

struct Options {
    /// `None` is the demo model.
    models: [Option<PathBuf>; 2],
    device: Device,
    text: PathBuf,
    question: String,
    max_tokens: usize,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<()> {
    let mut arguments = Arguments::of_program()?;
    if arguments.flag("--help") {
        return print(&mut io::stdout(), &format!("{USAGE}\n"));
    }
    compare(&options(arguments)?, &mut io::stdout().lock()).map(|_| ())
}

fn options(mut arguments: Arguments) -> Result<Options> {
    let both = arguments.value("--model")?;
    let short = arguments.value("--short")?.or(both.clone());
    let long = arguments.value("--long")?.or(both);
    let options = Options {
        models: [short, long].map(|path| path.map(PathBuf::from)),
        device: arguments.value("--device")?.map_or(Ok(Device::Auto), |name| name.parse())?,
        text: arguments.value("--text")?.unwrap_or(TEXT.to_owned()).into(),
        question: arguments.value("--question")?.unwrap_or("How are pages of the KV cache shared?".to_owned()),
        max_tokens: arguments.number("--max-tokens")?.unwrap_or(128),
    };
    arguments.finish()?;
    Ok(options)
}

/// Asks both models and prints a table.
fn compare(options: &Options, out: &mut impl Write) -> Result<Vec<Report>> {
    let text = read(&options.text)?;
    let mut reports = Vec::new();
    for model in &options.models {
        // Only one model is in memory at a time.
        reports.push(ask(model.as_deref(), &text, options, out)?);
    }
    print(out, &table(&reports))?;
    Ok(reports)
}

fn read(path: &Path) -> Result<String> {
    let error = |source: phi3_runner::Cause| Error::File {
        action: "read",
        path: path.to_owned(),
        source,
        hint: "name a text file in UTF-8",
    };
    let text = std::fs::read_to_string(path).map_err(|source| error(source.into()))?;
    if text.trim().is_empty() { Err(error("the file has no text".into())) } else { Ok(text) }
}

/// Asks a model, prints the answer while it is generated, and measures.
fn ask(model: Option<&Path>, text: &str, options: &Options, out: &mut impl Write) -> Result<Report> {
    let device_options = DeviceOptions { device: options.device.clone(), ..DeviceOptions::default() };
    let mut builder = Engine::builder().device_options(device_options.clone()).require_chat();
    if let Some(path) = model {
        builder = builder.model(path);
    }
    let engine = builder.build()?;
    let name = engine.source().path().display().to_string();
    let context = engine.spec().max_position_embeddings;
    eprintln!("{name}: {}", engine.device());

    let fitted = fit(&engine, text, &options.question, budget(context, options.max_tokens)?)?;
    print(out, &format!("{name}, context of {context} tokens\n{fitted}\n\nQuestion: {}\n", options.question))?;
    let (summary, rope) = answer(&engine, &fitted.prompt, options.max_tokens, out)?;
    print(out, "\n\n")?;

    let (plan, _) = device_options.plan(&engine.source().checkpoint()?)?;
    let cache = |tokens| plan.cache(engine.spec(), device_options.decoder(), tokens);
    Ok(Report {
        model: name,
        context,
        text_tokens: fitted.text_tokens,
        cut: fitted.cut,
        cache: cache(summary.usage.total_tokens),
        full_cache: cache(context),
        rope,
        summary,
    })
}

/// Prints an answer while it is generated. Greedy decoding: the same prompt has the same answer.
fn answer(engine: &Engine, prompt: &Prompt, max_tokens: usize, out: &mut impl Write) -> Result<(Summary, RopeFactors)> {
    let generate_options = GenerateOptions {
        max_tokens: Some(max_tokens),
        sampler: Some(SamplerOptions::default()),
        ..GenerateOptions::default()
    };
    let rope = &engine.spec().rope;
    let mut factors = match rope.scaling() {
        None => RopeFactors::One,
        Some(_) => RopeFactors::Same(rope.choose(RopePolicy::Exact, prompt.len(), prompt.len())),
    };
    for event in engine.generate(prompt, &generate_options)? {
        match event? {
            Event::Token { text, .. } | Event::Text { text } => print(out, &text)?,
            Event::Prompt { done, total } => {
                eprint!("\rprompt: {done} of {total} tokens{}", if done == total { "\n" } else { "" });
            }
            Event::RopeSwitch { set, tokens } => {
                eprintln!("\nLongRoPE: {tokens} tokens are computed again with the {} factors", report::name(set));
                factors = RopeFactors::Switched { set, tokens };
            }
            Event::Done(summary) => return Ok((summary, factors)),
            _ => {}
        }
    }
    Err(Error::Unfinished)
}

/// Most tokens of a prompt: the context without the room for the answer.
fn budget(context: usize, max_tokens: usize) -> Result<usize> {
    context.checked_sub(max_tokens).filter(|budget| *budget > 0).ok_or_else(|| Error::Argument {
        argument: "--max-tokens",
        expected: format!("less than the context of {context} tokens"),
        found: max_tokens.to_string(),
    })
}

/// Prints at once, without waiting for the end of a line.
fn print(out: &mut impl Write, text: &str) -> Result<()> {
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| Error::Stream { stream: "output", source: error.into(), hint: "keep the reader open" })
}

#[cfg(test)]
mod tests;
