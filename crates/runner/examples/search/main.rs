//! Answers questions about a folder of text files, with the passages that an answer cites.
//!
//! ```console
//! cargo run --release -p phi3-runner --example search -- --question "What is a page of the KV cache?"
//! cargo run --release -p phi3-runner --example search -- --model ./Phi-4-mini-instruct --folder ./notes
//! ```
//!
//! The second command is a service: it answers each line of standard input. A question is answered in four steps:
//!
//! 1. `bm25.rs` ranks the passages of the folder (`folder.rs`, `passages.rs`).
//! 2. `prompt.rs` puts as many of the best ones into a prompt as the model's context allows.
//! 3. The engine generates the answer, which is printed token by token.
//! 4. `citations.rs` finds the numbers of the passages that the answer cites.
//!
//! A question without a matching passage is not given to the model.

mod arguments;
mod bm25;
mod citations;
mod folder;
mod passages;
mod prompt;

use arguments::Arguments;
use bm25::Index;
use citations::citations;
use folder::Corpus;
use passages::Passage;
use phi3_runner::{Device, Engine, Error, Event, FinishReason, GenerateOptions, Generation, Result, SamplerOptions};
use prompt::{Selection, select};
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "\
Answers questions about a folder of text files.

  --model PATH       a checkpoint folder or a GGUF file; the demo model where absent
  --device NAME      auto, cpu, gpu, gpu:N or part of an adapter's name
  --folder PATH      folder of .md, .markdown and .txt files; the project's docs where absent
  --question TEXT    a question, also several times; lines of standard input where absent
  --parallel N       questions that are computed at once; 1 where absent
  --passages N       most passages of a prompt; 5 where absent
  --max-tokens N     most tokens of an answer; 256 where absent";

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs");

struct Options {
    model: Option<PathBuf>,
    device: Device,
    folder: PathBuf,
    questions: Vec<String>,
    parallel: usize,
    passages: usize,
    max_tokens: usize,
}

fn main() -> ExitCode {
    match run() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(2),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Returns the number of questions that failed.
fn run() -> Result<usize> {
    let mut arguments = Arguments::of_program()?;
    if arguments.flag("--help") {
        print(&mut io::stdout(), &format!("{USAGE}\n"))?;
        return Ok(0);
    }
    let options = options(arguments)?;
    let corpus = Corpus::read(&options.folder)?;
    for note in &corpus.notes {
        eprintln!("note: {note}");
    }
    eprintln!("{} files, {} passages", corpus.files, corpus.passages.len());
    let mut builder = Engine::builder().device(options.device.clone()).require_chat();
    if let Some(model) = &options.model {
        builder = builder.model(model);
    }
    let engine = builder.build()?;
    eprintln!("{}: {}", engine.source().path().display(), engine.device());
    let search = Search::new(engine, corpus, &options)?;
    let out = &mut io::stdout().lock();
    if options.questions.is_empty() {
        if io::stdin().is_terminal() {
            eprintln!("One question a line; an end of file (Ctrl-D, on Windows Ctrl-Z) ends the program.");
        }
        search.serve(lines(io::stdin().lock()), options.parallel, out)
    } else {
        search.serve(options.questions.into_iter().map(Ok), options.parallel, out)
    }
}

fn options(mut arguments: Arguments) -> Result<Options> {
    let mut questions = Vec::new();
    while let Some(question) = arguments.value("--question")? {
        questions.push(question);
    }
    let options = Options {
        model: arguments.value("--model")?.map(PathBuf::from),
        device: arguments.value("--device")?.map_or(Ok(Device::Auto), |name| name.parse())?,
        folder: arguments.value("--folder")?.unwrap_or(DOCS.to_owned()).into(),
        questions,
        parallel: arguments.number("--parallel")?.unwrap_or(1),
        passages: arguments.number("--passages")?.unwrap_or(5),
        max_tokens: arguments.number("--max-tokens")?.unwrap_or(256),
    };
    arguments.finish()?;
    Ok(options)
}

/// Lines of a reader that are not blank.
fn lines(reader: impl BufRead) -> impl Iterator<Item = Result<String>> {
    let lines = reader.split(b'\n').map(|line| match line {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).trim().to_owned()),
        Err(error) => Err(Error::Stream { stream: "input", source: error.into(), hint: "give one question a line" }),
    });
    lines.filter(|line| line.as_ref().map_or(true, |line| !line.is_empty()))
}

/// A model and an indexed folder.
struct Search {
    engine: Engine,
    corpus: Corpus,
    index: Index,
    /// Most passages of a prompt.
    most_passages: usize,
    /// Most tokens of an answer.
    max_tokens: usize,
    /// Most tokens of a prompt: the context without the room for the answer.
    budget: usize,
}

/// A question on its way.
enum Reply<'a> {
    /// No passage shares a word with the question.
    NothingFound,
    /// The model generates.
    Answer { selection: Selection<'a>, matching: usize, generation: Generation },
}

impl Search {
    fn new(engine: Engine, corpus: Corpus, options: &Options) -> Result<Self> {
        let context = engine.spec().max_position_embeddings;
        let Some(budget) = context.checked_sub(options.max_tokens).filter(|budget| *budget > 0) else {
            return Err(Error::Argument {
                argument: "--max-tokens",
                expected: format!("less than the model's context of {context} tokens"),
                found: options.max_tokens.to_string(),
            });
        };
        let index = Index::new(corpus.passages.iter().map(|passage| format!("{passage} {}", passage.text)));
        let Options { passages: most_passages, max_tokens, .. } = *options;
        Ok(Self { engine, corpus, index, most_passages, max_tokens, budget })
    }

    /// Answers all questions, `parallel` at once. An error of one question is printed, and the next one is answered. Returns the number
    /// of errors.
    ///
    /// # Errors
    ///
    /// Questions cannot be read, or answers cannot be written.
    fn serve(
        &self,
        mut questions: impl Iterator<Item = Result<String>>,
        parallel: usize,
        out: &mut impl Write,
    ) -> Result<usize> {
        let mut failed = 0;
        loop {
            let batch: Vec<String> = questions.by_ref().take(parallel).collect::<Result<_>>()?;
            if batch.is_empty() {
                return Ok(failed);
            }
            // The engine computes all of them from here on. Events of a generation wait until they are taken.
            let replies: Vec<Result<Reply<'_>>> = batch.iter().map(|question| self.ask(question)).collect();
            for (question, reply) in batch.iter().zip(replies) {
                print(out, &format!("Question: {question}\n"))?;
                match reply.and_then(|reply| self.print_reply(reply, out)) {
                    Err(error @ Error::Stream { .. }) => return Err(error),
                    Err(error) => {
                        eprintln!("error: {error}");
                        failed += 1;
                    }
                    Ok(()) => {}
                }
                print(out, "\n")?;
            }
        }
    }

    /// Finds passages for a question and starts the answer.
    fn ask(&self, question: &str) -> Result<Reply<'_>> {
        let ranked: Vec<&Passage> =
            self.index.search(question).into_iter().map(|number| &self.corpus.passages[number]).collect();
        if ranked.is_empty() {
            return Ok(Reply::NothingFound);
        }
        let best = &ranked[..ranked.len().min(self.most_passages)];
        let selection = select(&self.engine, question, best, self.budget)?;
        let generation = self.engine.generate(&selection.prompt, &self.generate_options())?;
        Ok(Reply::Answer { selection, matching: ranked.len(), generation })
    }

    /// Greedy decoding: the same question has the same answer.
    fn generate_options(&self) -> GenerateOptions {
        GenerateOptions {
            max_tokens: Some(self.max_tokens),
            sampler: Some(SamplerOptions::default()),
            ..GenerateOptions::default()
        }
    }

    /// Prints an answer while it is generated, then its passages.
    fn print_reply(&self, reply: Reply<'_>, out: &mut impl Write) -> Result<()> {
        let Reply::Answer { selection, matching, generation } = reply else {
            return print(out, "No passage matches. The model was not asked.\n");
        };
        let mut answer = String::new();
        for event in generation {
            match event? {
                Event::Token { text, .. } | Event::Text { text } => {
                    print(out, &text)?;
                    answer.push_str(&text);
                }
                Event::Done(summary) if summary.finish_reason == FinishReason::Length => {
                    print(out, &format!("\n(The answer ends here, at {} tokens.)", self.max_tokens))?;
                }
                _ => {}
            }
        }
        print(out, "\n\n")?;
        print(out, &passage_list(&selection, matching, &answer))
    }
}

/// The passages of a prompt, with a mark at those that the answer cites.
fn passage_list(selection: &Selection<'_>, matching: usize, answer: &str) -> String {
    let cited = citations(answer);
    let given = selection.given.len();
    let mut list = format!("Passages, * cited ({given} of {matching} that match):\n");
    for (number, passage) in (1..).zip(&selection.given) {
        let mark = if cited.contains(&number) { '*' } else { ' ' };
        list.push_str(&format!("{mark} [{number}] {passage}\n"));
    }
    if selection.left_out > 0 {
        list.push_str(&format!("{} more did not fit into the prompt.\n", selection.left_out));
    }
    if cited.is_empty() {
        list.push_str("The answer cites no passage.\n");
    }
    for number in cited.into_iter().filter(|number| !(1..=given).contains(number)) {
        list.push_str(&format!("The answer cites [{number}], which is no passage.\n"));
    }
    list
}

/// Prints at once, without waiting for the end of a line.
fn print(out: &mut impl Write, text: &str) -> Result<()> {
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| Error::Stream { stream: "output", source: error.into(), hint: "keep the reader open" })
}

#[cfg(test)]
mod tests;
