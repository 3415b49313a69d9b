//! Standard input, output and error: closed pipes, progress, statistics, Ctrl-C.

use crate::advice::advice;
use crate::thinking::{self, Display, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use phi3_runner::text::{ChatTemplate, SystemMessages};
use phi3_runner::{Cause, Engine, Error, Event, FinishReason, Generation, Result, RopeSet, Summary};
use phi3_tensor::Logprobs;
use std::io::{ErrorKind, IsTerminal, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    Failed,
    /// An error that was printed already.
    Error,
    Interrupted,
}

impl Outcome {
    pub(super) fn code(self) -> ExitCode {
        match self {
            Self::Done => ExitCode::SUCCESS,
            Self::Failed => ExitCode::from(1),
            Self::Error => ExitCode::from(2),
            Self::Interrupted => ExitCode::from(130),
        }
    }
}

/// Prints an error on one line, with the options that help against it.
pub(super) fn complain(error: &Error) {
    let advice = advice(error).map_or(String::new(), |advice| format!(" ({advice})"));
    complain_of(&format!("{error}{advice}"));
}

/// Prints an error message on one line.
pub(super) fn complain_of(message: &str) {
    // ignored if standard error is closed
    let _ = writeln!(std::io::stderr(), "error: {}", without_controls(message));
}

/// A message on one line: control characters, for example of a template or a file, become spaces.
fn without_controls(message: &str) -> String {
    message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Whether the reader has closed the output pipe, which is not a failure.
pub(super) fn is_closed_pipe(error: &Error) -> bool {
    let Error::Stream { stream: "output", source, .. } = error else { return false };
    source.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// Writes to standard output and flushes it.
pub(super) fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| Error::Stream {
        stream: "output",
        source: error.into(),
        hint: "is the disk full?",
    })
}

/// Writes a line to standard error; a failure is ignored.
pub(super) fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

const NOT_UTF8: &str = "text must be UTF-8; convert it, for example with iconv";

/// Decodes text in UTF-8, or in UTF-16 with a byte order mark. The mark is removed.
fn decoded(bytes: Vec<u8>) -> std::result::Result<String, String> {
    let utf_16 = |unit: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes[2..].chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).collect();
        String::from_utf16(&units).map_err(|_| "not valid UTF-16".to_owned())
    };
    match bytes.as_slice() {
        [0xFF, 0xFE, ..] if bytes.len().is_multiple_of(2) => utf_16(u16::from_le_bytes),
        [0xFE, 0xFF, ..] if bytes.len().is_multiple_of(2) => utf_16(u16::from_be_bytes),
        _ => {
            let text = String::from_utf8(bytes).map_err(|error| format!("not valid UTF-8: {}", error.utf8_error()))?;
            Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
        }
    }
}

/// Time until a note says that the program waits for the end of standard input.
const PATIENCE: Duration = Duration::from_secs(3);

/// Reads all of standard input as text.
pub(super) fn read_stdin() -> Result<String> {
    let (done, ended) = mpsc::channel::<()>();
    if !std::io::stdin().is_terminal() {
        std::thread::spawn(move || {
            if ended.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                note(
                    "input    waiting for the end of standard input, which is a pipe or a file; `< /dev/null` gives none",
                );
            }
        });
    }
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().read_to_end(&mut bytes);
    drop(done);
    let fail = |source: Cause, hint| Error::Stream { stream: "input", source, hint };
    read.map_err(|error| fail(error.into(), "give the text as an argument"))?;
    decoded(bytes).map_err(|message| fail(message.into(), NOT_UTF8))
}

/// Reads all of a file as text.
pub(super) fn read_text(path: &Path) -> Result<String> {
    let fail = |source: Cause, hint| Error::File { action: "read", path: path.to_owned(), source, hint };
    let bytes = std::fs::read(path).map_err(|error| fail(error.into(), "is the path right?"))?;
    decoded(bytes).map_err(|message| fail(message.into(), NOT_UTF8))
}

/// A progress bar on standard error, hidden if that is not a terminal.
pub(super) fn bar(what: &str, quiet: bool) -> ProgressBar {
    let shown = !quiet && std::io::stderr().is_terminal();
    let target = if shown { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(None, target);
    let counts = if what == "windows" { "{pos}/{len} {eta}" } else { "{bytes}/{total_bytes} {binary_bytes_per_sec}" };
    match ProgressStyle::with_template(&format!("{what} {{bar:32}} {counts}")) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Size in decimal units.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

/// Prints notes about a model's files, each once.
pub(super) fn notes(notes: &[String], quiet: bool) {
    let first = |i: usize| !notes[..i].contains(&notes[i]);
    for i in (0..notes.len()).filter(|&i| !quiet && first(i)) {
        note(&format!("note     {}", without_controls(&notes[i])));
    }
}

/// Flag that Ctrl-C sets. A process can have one handler only.
static STOP: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Whether a command polls the flag.
static IS_HEEDED: AtomicBool = AtomicBool::new(false);

/// A flag that Ctrl-C sets from now on; a second Ctrl-C ends the program.
pub(super) fn stop_on_ctrl_c() -> Arc<AtomicBool> {
    let stop = STOP.get_or_init(|| {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = stop.clone();
        // without a handler Ctrl-C ends the program as usual
        let _ = ctrlc::set_handler(move || {
            if flag.swap(true, Ordering::Relaxed) || !IS_HEEDED.load(Ordering::Relaxed) {
                thinking::end_dimming();
                std::process::exit(130);
            }
        });
        stop
    });
    IS_HEEDED.store(true, Ordering::Relaxed);
    stop.clone()
}

/// Runs a function that polls the flag; afterwards Ctrl-C has its previous effect.
#[cfg(feature = "hub")]
pub(super) fn with_ctrl_c<T>(run: impl FnOnce(&AtomicBool) -> T) -> T {
    let before = IS_HEEDED.load(Ordering::Relaxed);
    let result = run(&stop_on_ctrl_c());
    IS_HEEDED.store(before, Ordering::Relaxed);
    result
}

/// Prints a note if the chat template drops the given system message.
pub(super) fn note_system(engine: &Engine, system: Option<&str>, quiet: bool) {
    let drops = |template: &ChatTemplate| template.system_messages() == SystemMessages::Dropped;
    if !quiet && system.is_some() && engine.template().is_some_and(drops) {
        note("note     the chat template drops system messages: the model does not get this one");
    }
}

/// An answer that has ended.
pub(super) struct Answer {
    pub(super) ids: Vec<u32>,
    pub(super) text: String,
    /// New tokens that have log-probabilities.
    pub(super) logprobs: Vec<(u32, Logprobs)>,
    pub(super) summary: Summary,
}

/// Streams an answer to standard output. Its text includes parts that `style` hides.
pub(super) fn stream(generation: Generation, style: Style, quiet: bool) -> Result<Answer> {
    let mut display = Display::new(style);
    let mut ends_line = false;
    let mut put = |text: &str| {
        if text.is_empty() {
            return Ok(());
        }
        ends_line = text.ends_with('\n');
        print(text)
    };
    let result = collect(generation, quiet, |text| put(&display.push(text)));
    if result.is_err() {
        // ends dimming before the error is printed
        let _ = print(&display.finish());
        return result;
    }
    put(&display.finish())?;
    if !ends_line {
        print("\n")?;
    }
    result
}

/// Runs a generation to its end, and gives each piece of its text to `show`.
pub(super) fn collect(generation: Generation, quiet: bool, mut show: impl FnMut(&str) -> Result<()>) -> Result<Answer> {
    let (mut ids, mut whole, mut all_logprobs) = (Vec::new(), String::new(), Vec::new());
    for event in generation {
        match event? {
            Event::Token { id, text, logprobs } => {
                show(&text)?;
                whole.push_str(&text);
                ids.push(id);
                all_logprobs.extend(logprobs.map(|logprobs| (id, logprobs)));
            }
            Event::Text { text } => {
                show(&text)?;
                whole.push_str(&text);
            }
            Event::RopeSwitch { set, tokens } if !quiet => note(&rope_switch(set, tokens)),
            Event::Done(summary) => return Ok(Answer { ids, text: whole, logprobs: all_logprobs, summary }),
            _ => {}
        }
    }
    Err(Error::Unfinished)
}

/// Note on a change of LongRoPE's factors.
fn rope_switch(set: RopeSet, tokens: usize) -> String {
    let set = match set {
        RopeSet::Long => "long",
        RopeSet::Short => "short",
    };
    format!("longrope {set} factors from here on: computing {tokens} tokens again")
}

/// The statistics of an answer.
pub(super) fn statistics(summary: &Summary) -> String {
    let Summary { usage, timings, .. } = summary;
    let new = usage.prompt_tokens - usage.cached_tokens;
    let cached =
        if usage.cached_tokens > 0 { format!(" (+ {} from the cache)", usage.cached_tokens) } else { String::new() };
    let mut text = format!(
        "prompt   {new} tokens{cached}, {:.1} tokens/s, first token after {:.0} ms\ndecode   {} tokens, {:.1} tokens/s",
        timings.prompt_per_second, timings.first_token_ms, usage.completion_tokens, timings.decode_per_second
    );
    if timings.rebuild_ms > 0.0 {
        text += &format!("\nlongrope cache rebuilt in {:.0} ms", timings.rebuild_ms);
    }
    match summary.finish_reason {
        FinishReason::Stop => {}
        FinishReason::Length => text += "\nended    at the limit of tokens",
        FinishReason::Interrupted => text += "\nended    interrupted",
    }
    if let Some(seed) = summary.seed {
        text += &format!("\nseed     {seed}");
    }
    text
}

/// The outcome of an answer.
pub(super) fn outcome(summary: &Summary) -> Outcome {
    match summary.finish_reason {
        FinishReason::Interrupted => Outcome::Interrupted,
        _ => Outcome::Done,
    }
}
