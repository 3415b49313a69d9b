//! `phi3-run chat`: several turns.

use crate::args::Chat;
use crate::load;
use crate::logprobs;
use crate::output::{self, Answer, Outcome};
use phi3_runner::text::Message;
use phi3_runner::{
    Cause, Engine, Error, FinishReason, Image, ImageReader, ImageTag, Result, missing_tags, shown_images,
};
use rustyline::error::ReadlineError;
use std::io::{BufRead, IsTerminal};
use std::sync::atomic::Ordering;

const HELP: &str = "\
/help          this list
/reset         forget the conversation (the system message stays)
/system TEXT   start over with another system message
/image FILE    attach a picture to the next question
/undo          remove the last question and its answer
/retry         answer the last question again
/quit          end (so does Ctrl-D)
Ctrl-C ends an answer, or discards the typed text. A line that ends in \\ continues on the next line.";

/// Result of reading a line of input.
enum Typed {
    Line(String),
    /// Ctrl-C: the typed text is discarded.
    Cancelled,
    End,
}

/// Input lines: with editing and history from a terminal, plain from other sources.
enum Lines {
    Terminal(Box<rustyline::DefaultEditor>),
    Plain,
}

impl Lines {
    fn new() -> Self {
        match std::io::stdin().is_terminal().then(rustyline::DefaultEditor::new) {
            Some(Ok(editor)) => Self::Terminal(Box::new(editor)),
            _ => Self::Plain,
        }
    }

    /// The next line.
    fn next(&mut self) -> Result<Typed> {
        let fail = |source: Cause, hint| Error::Stream { stream: "input", source, hint };
        match self {
            Self::Terminal(editor) => match editor.readline("> ") {
                Ok(line) => {
                    let _ = editor.add_history_entry(&line);
                    Ok(Typed::Line(line))
                }
                Err(ReadlineError::Interrupted) => Ok(Typed::Cancelled),
                Err(ReadlineError::Eof) => Ok(Typed::End),
                Err(error) => Err(fail(error.into(), "pipe the questions in instead")),
            },
            Self::Plain => {
                let mut bytes = Vec::new();
                let read = std::io::stdin().lock().read_until(b'\n', &mut bytes);
                if read.map_err(|error| fail(error.into(), "is the input still open?"))? == 0 {
                    return Ok(Typed::End);
                }
                let line = String::from_utf8(bytes);
                let line =
                    line.map_err(|error| fail(format!("not valid UTF-8: {error}").into(), "text must be UTF-8"))?;
                // a piped file may begin with a byte order mark
                let line = line.strip_prefix('\u{feff}').unwrap_or(&line);
                Ok(Typed::Line(line.trim_end_matches(['\n', '\r']).to_owned()))
            }
        }
    }

    /// The next line with its continuation lines; `None` at the end of the input.
    fn message(&mut self) -> Result<Option<String>> {
        let mut whole = String::new();
        loop {
            match self.next()? {
                Typed::Line(line) => match line.strip_suffix('\\') {
                    Some(part) => {
                        whole.push_str(part);
                        whole.push('\n');
                    }
                    None => return Ok(Some(whole + &line)),
                },
                Typed::Cancelled => whole.clear(),
                Typed::End => return Ok((!whole.is_empty()).then_some(whole)),
            }
        }
    }
}

pub(super) fn chat(args: &Chat) -> Result<Outcome> {
    args.sampling.check()?;
    let named = args.images.read(&args.model.source()?, args.model.quiet)?;
    let engine = load::chat(&args.model, &args.talk)?;
    // a model without a vision tower gets no pictures
    let tag = engine.image_reader().map_or(ImageTag::Numbered, ImageReader::tag);
    let mut gallery = Gallery { images: named, shown: 0, tag };
    let stop = output::stop_on_ctrl_c();
    let mut lines = Lines::new();
    let mut system = args.talk.system.clone();
    output::note_system(&engine, system.as_deref(), args.model.quiet);
    let fresh = |system: &Option<String>| -> Vec<Message> { system.iter().map(Message::system).collect() };
    let mut messages = fresh(&system);
    if !args.model.quiet {
        output::note("chat     /help lists the commands, Ctrl-D ends");
    }
    while let Some(line) = lines.message()? {
        let line = line.trim();
        let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match command {
            "" => continue,
            "/quit" | "/exit" => break,
            "/help" => {
                output::note(HELP);
                continue;
            }
            "/reset" => {
                messages = fresh(&system);
                gallery.clear();
                continue;
            }
            "/system" => {
                system = (!rest.trim().is_empty()).then(|| rest.trim().to_owned());
                output::note_system(&engine, system.as_deref(), args.model.quiet);
                messages = fresh(&system);
                gallery.clear();
                continue;
            }
            "/image" => {
                match gallery.add(args, &engine, rest.trim()) {
                    Err(error) if std::io::stdin().is_terminal() => output::complain(&error),
                    result => result?,
                }
                continue;
            }
            "/undo" => {
                take_back(&mut messages);
                gallery.keep(&messages);
                continue;
            }
            "/retry" => match take_back(&mut messages) {
                Some(question) => messages.push(question),
                None => continue,
            },
            _ if command.starts_with('/') && !command[1..].contains('/') => {
                output::note(&format!("{command} is not a command; /help lists them"));
                continue;
            }
            _ => messages.push(Message::user(gallery.show(line))),
        }
        stop.store(false, Ordering::Relaxed);
        let mut options = args.sampling.options(&engine, &args.model)?;
        options.cancel = Some(stop.clone());
        let style = args.talk.style();
        let result = engine
            .chat_with_images(&messages, &gallery.images, &options)
            .and_then(|answer| output::stream(answer, style, args.model.quiet));
        let Answer { text, logprobs, summary, .. } = match result {
            Ok(result) => result,
            // on a terminal, a request that does not fit or cannot be rendered ends the turn only
            Err(
                error @ (Error::Text(_)
                | Error::ImageTags { .. }
                | Error::Submit(_)
                | Error::Model(phi3_model::Error::Request { .. } | phi3_model::Error::TooLong { .. })),
            ) => {
                if !std::io::stdin().is_terminal() {
                    return Err(error);
                }
                output::complain(&error);
                messages.pop();
                gallery.keep(&messages);
                continue;
            }
            Err(error) => return Err(error),
        };
        messages.push(Message::assistant(text));
        logprobs::print(&engine, &logprobs);
        if !args.model.quiet {
            output::note(&output::statistics(&summary));
        }
        if summary.finish_reason == FinishReason::Interrupted && !std::io::stdin().is_terminal() {
            return Ok(Outcome::Interrupted);
        }
        stop.store(false, Ordering::Relaxed);
    }
    Ok(Outcome::Done)
}

/// Pictures of a chat, numbered from 1. The first `shown` are in earlier questions, the others in the next one.
struct Gallery {
    images: Vec<Image>,
    shown: usize,
    /// Tag of a picture in a question.
    tag: ImageTag,
}

impl Gallery {
    fn clear(&mut self) {
        self.images.clear();
        self.shown = 0;
    }

    /// Reads a picture for the next question.
    fn add(&mut self, args: &Chat, engine: &Engine, path: &str) -> Result<()> {
        if path.is_empty() {
            let (expected, found) = ("the file of a picture".into(), "nothing".into());
            return Err(Error::Argument { argument: "/image", expected, found });
        }
        let reader = args.images.reader(engine.image_reader()?)?;
        let image = args.images.read_one(&reader, path.as_ref(), self.images.len() + 1, args.model.quiet)?;
        self.images.push(image);
        Ok(())
    }

    /// The question, with the tags of its pictures in front, except tags that it contains itself.
    fn show(&mut self, question: &str) -> String {
        let (first, last) = (self.shown + 1, self.images.len());
        self.shown = last;
        missing_tags(self.tag, question, first, last) + question
    }

    /// Removes the pictures from the first one on whose tag is in no message.
    fn keep(&mut self, messages: &[Message]) {
        self.shown = shown_images(self.tag, messages, self.shown);
        self.images.truncate(self.shown);
    }
}

/// Removes the last question and what follows it; returns the question.
fn take_back(messages: &mut Vec<Message>) -> Option<Message> {
    let at = messages.iter().rposition(|message| message.role() == "user")?;
    messages.drain(at..).next()
}
