//! `phi3-run "PROMPT"` and `phi3-run generate`.

use crate::args::{self, Ask, Generate, InputArgs, PromptFile};
use crate::load;
use crate::logprobs;
use crate::output::{self, Answer, Outcome};
use crate::thinking::Style;
use phi3_runner::text::Message;
use phi3_runner::{Engine, Error, Result, Summary};
use serde_json::json;
use std::io::IsTerminal;
use std::path::Path;

/// `phi3-run "PROMPT"`
pub(super) fn ask(args: &Ask) -> Result<Outcome> {
    let (words, dash) = words(&args.words);
    let prompt = prompt(words, &args.prompt, if dash { Stdin::Wanted } else { Stdin::Beside("\n\n") })?;
    let mut messages: Vec<Message> = args.talk.system.iter().map(Message::system).collect();
    messages.push(Message::user(prompt));

    args.sampling.check()?;
    let images = args.images.read(&args.model.source()?, args.model.quiet)?;
    let engine = load::chat(&args.model, &args.talk)?;
    output::note_system(&engine, args.talk.system.as_deref(), args.model.quiet);
    let mut options = args.sampling.options(&engine, &args.model)?;
    options.cancel = Some(output::stop_on_ctrl_c());
    let answer = engine.chat_with_images(&messages, &images, &options)?;
    let Answer { logprobs, summary, .. } = output::stream(answer, args.talk.style(), args.model.quiet)?;
    logprobs::print(&engine, &logprobs);
    if !args.model.quiet {
        output::note(&output::statistics(&summary));
    }
    Ok(output::outcome(&summary))
}

const WAITING: &str =
    "type the prompt, then end it with Ctrl-D (Ctrl-Z and Enter on Windows); phi3-run --help shows more";

/// Text without its last line break, which ends a file or a piped line and is not part of the prompt.
fn without_last_break(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

/// The words joined to one text, and whether the first or last of them is "-", that is, standard input. Between words, "-"
/// is a minus sign.
fn words(words: &[String]) -> (Option<String>, bool) {
    let words = match words {
        [first, rest @ ..] if first == "-" => (rest, true),
        [rest @ .., last] if last == "-" => (rest, true),
        words => (words, false),
    };
    let (words, dash) = words;
    ((!words.is_empty()).then(|| words.join(" ")), dash)
}

/// Use of standard input beside a given text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stdin {
    /// Requested by "-".
    Wanted,
    /// Piped text is put before the given text, with this separator.
    Beside(&'static str),
}

/// The prompt from the command line or a file, and standard input.
fn prompt(typed: Option<String>, file: &PromptFile, stdin: Stdin) -> Result<String> {
    let given = match (typed, &file.file) {
        (Some(text), _) => Some(text),
        // "-" is standard input, as among the words
        (None, Some(path)) if path != Path::new("-") => Some(without_last_break(output::read_text(path)?)),
        (None, _) => None,
    };
    let is_terminal = std::io::stdin().is_terminal();
    if is_terminal && (given.is_none() || stdin == Stdin::Wanted) {
        output::note(WAITING);
    }
    let wanted = given.is_none() || stdin == Stdin::Wanted || !is_terminal;
    let piped = if wanted { without_last_break(output::read_stdin()?) } else { String::new() };
    let between = match stdin {
        Stdin::Beside(between) => between,
        Stdin::Wanted => "\n\n",
    };
    let text = match given {
        Some(given) if piped.trim().is_empty() => given,
        Some(given) => piped + between + &given,
        None => piped,
    };
    if text.trim().is_empty() {
        return Err(Error::EmptyPrompt { hint: "type a question, such as phi3-run \"Who are you?\"" });
    }
    Ok(text)
}

/// Text or token ids of a command.
pub(super) enum Input {
    Text(String),
    Ids(Vec<u32>),
}

pub(super) fn input(args: &InputArgs) -> Result<Input> {
    match &args.ids {
        Some(ids) => {
            let ids = args::ids(ids)?;
            if ids.is_empty() {
                return Err(Error::EmptyPrompt { hint: "give at least one token id" });
            }
            Ok(Input::Ids(ids))
        }
        None => Ok(Input::Text(prompt(args.prompt.clone(), &args.file, Stdin::Beside("\n"))?)),
    }
}

/// `phi3-run generate`
pub(super) fn generate(args: &Generate) -> Result<Outcome> {
    let input = input(&args.input)?;
    args.sampling.check()?;
    let images = args.images.read(&args.model.source()?, args.model.quiet)?;
    if let (Input::Ids(_), Some(image)) = (&input, images.first()) {
        return Err(Error::Argument {
            argument: "--ids",
            expected: "text, because token ids hold no pictures".into(),
            found: format!("token ids and the picture {}", image.path().display()),
        });
    }
    let engine = load::engine(&args.model)?;
    let mut options = args.sampling.options(&engine, &args.model)?;
    options.raw = args.raw;
    options.cancel = Some(output::stop_on_ctrl_c());
    let has_tokenizer = engine.tokenizer().is_ok();
    let device = engine.device().to_owned();
    let generation = match &input {
        Input::Text(text) => engine.complete_with_images(text, &images, &options)?,
        Input::Ids(ids) => engine.continue_ids(ids, &options)?,
    };
    let silently = |generation| output::collect(generation, args.model.quiet, |_| Ok(()));
    let summary = if args.json {
        let Answer { ids, text, logprobs, summary } = silently(generation)?;
        let text = has_tokenizer.then_some(text);
        let Summary { finish_reason, usage, timings, seed } = &summary;
        let mut object = json!({
            "ids": ids, "text": text, "finish_reason": finish_reason, "usage": usage, "timings": timings,
            "device": device, "seed": seed,
        });
        if options.logprobs.is_some() {
            object["logprobs"] = logprobs::json(&engine, &logprobs);
        }
        output::print(&format!("{object}\n"))?;
        summary
    } else {
        let Answer { ids, logprobs, summary, .. } = match has_tokenizer {
            true => output::stream(generation, Style::Plain, args.model.quiet)?,
            false => silently(generation)?,
        };
        if !has_tokenizer {
            output::print(&format!("{}\n", spaced(&ids)))?;
        }
        logprobs::print(&engine, &logprobs);
        summary
    };
    if !args.model.quiet {
        output::note(&output::statistics(&summary));
    }
    Ok(output::outcome(&summary))
}

/// Ids separated by spaces.
pub(super) fn spaced(ids: &[u32]) -> String {
    ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
}

/// Token ids of an input.
pub(super) fn input_ids(engine: &Engine, input: &Input) -> Result<Vec<u32>> {
    match input {
        Input::Text(text) => Ok(engine.tokenizer()?.encode(text, true)?),
        Input::Ids(ids) => Ok(ids.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn a_minus_sign_is_standard_input_at_the_ends_only() {
        let of = |text: &str| words(&text.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(of("what is 5 - 3"), (Some("what is 5 - 3".into()), false));
        assert_eq!(of("summarize this -"), (Some("summarize this".into()), true));
        assert_eq!(of("- summarize this"), (Some("summarize this".into()), true));
        assert_eq!(of("-"), (None, true));
        assert_eq!(words(&[]), (None, false));
    }
}
