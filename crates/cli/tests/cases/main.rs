//! Unusual input of users: files that are damaged, incomplete, of other formats or contradictory, and usage known from other
//! programs. The inputs are derived from the demo model and from small random models.

/// JSON files written by other programs, and `generation_config.json`.
mod companions;
/// Builders of files.
mod files;
/// GGUF files with missing keys, other types, sampling defaults.
mod gguf;
/// Standard input beside a question, negative numbers, stop texts.
mod input;
/// Pictures beside a question and in a chat.
mod pictures;
/// Paths given as a model.
mod places;
/// Chat templates.
mod templates;
/// A chat in a terminal.
#[cfg(unix)]
mod terminal;
/// Tokenizers: chats, tokens from other files, and features not representable in a GGUF file.
mod tokenizers;
/// Heads and embeddings, and names of tensors.
mod weights;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Result of a run of the program.
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ran {
    /// Asserts exit code 0.
    fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self
    }

    /// Asserts exit code 2, an error with all `words` (case-insensitive), and no standard output.
    fn error(self, words: &[&str]) -> String {
        assert_eq!((self.code, self.stdout.as_str()), (Some(2), ""), "{}", self.stderr);
        let error = self.stderr.lines().last().unwrap_or_default();
        assert!(error.starts_with("error: ") && !self.stderr.contains("panicked"), "{}", self.stderr);
        for word in words {
            assert!(error.to_lowercase().contains(&word.to_lowercase()), "{word:?} is not in {error}");
        }
        error.to_owned()
    }

    /// The notes on standard error.
    fn notes(&self) -> Vec<&str> {
        self.stderr.lines().filter_map(|line| line.strip_prefix("note     ")).collect()
    }

    /// Asserts that one note contains all `words`.
    fn note(&self, words: &[&str]) {
        let notes = self.notes();
        assert!(notes.iter().any(|note| words.iter().all(|word| note.contains(word))), "{words:?} in {}", self.stderr);
    }

    /// Number of new tokens of the first answer.
    fn new_tokens(&self) -> usize {
        self.number("decode   ")
    }

    /// Number of tokens of the first prompt.
    fn prompt_tokens(&self) -> usize {
        self.number("prompt   ")
    }

    fn number(&self, start: &str) -> usize {
        let line = self.stderr.lines().find_map(|line| line.strip_prefix(start));
        line.and_then(|line| line.split(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("{start}: {}", self.stderr))
    }
}

/// Runs the program offline, with empty standard input.
fn run(args: &[&str]) -> Ran {
    run_with(args, None)
}

/// Like [`run`], with text piped in.
fn run_with(args: &[&str], input: Option<&[u8]>) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_phi3-run"));
    command.args(args).env("HF_HUB_OFFLINE", "1").stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.spawn().expect("the program starts");
    if let Some(input) = input {
        // a program that ends with an error may not read its input
        let _ = child.stdin.take().expect("piped").write_all(input);
    }
    let output = child.wait_with_output().expect("the program ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text is UTF-8");
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Continues token ids greedily on the CPU with f32 activations; `stdout` holds the new ids.
fn continued(model: &Path) -> Ran {
    let model = model.display().to_string();
    let args = ["generate", "-m", &model, "--ids", "5 9 33 71 2", "-n", "12", "--greedy", "--device", "cpu", "--json"];
    let mut ran = run(&[&args[..], &["--activations", "f32"]].concat());
    if let Ok(json) = serde_json::from_str::<serde_json::Value>(&ran.stdout) {
        ran.stdout = json["ids"].to_string();
    }
    ran
}

/// Asks a question with greedy sampling on the CPU.
fn ask(model: &Path, question: &str, more: &[&str]) -> Ran {
    let model = model.display().to_string();
    run(&[&["-m", &model, "--device", "cpu", "--greedy"], more, &[question]].concat())
}
