//! Whole answers of the demo model.

use super::*;
use std::fs;
use tempfile::TempDir;

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let fox = "# Foxes\n\nA brave fox found a lost key.\n";
    fs::write(folder.path().join("fox.md"), fox).unwrap();
    fs::write(folder.path().join("moon.txt"), "The moon rises over the sleeping trees.\n").unwrap();
    fs::write(folder.path().join("empty.md"), "").unwrap();
    folder
}

fn search(folder: &TempDir, words: &[&str]) -> Result<Search> {
    let options = options(Arguments::of(words))?;
    let engine = Engine::builder().device(Device::Cpu).build()?;
    Search::new(engine, Corpus::read(folder.path())?, &options)
}

fn answers(search: &Search, questions: &[&str], parallel: usize) -> String {
    let mut out = Vec::new();
    let questions = questions.iter().map(|question| Ok((*question).to_owned()));
    search.serve(questions, parallel, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Counts what is written, and how often.
#[derive(Default)]
struct Pieces(Vec<String>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.push(String::from_utf8_lossy(bytes).into_owned());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A reader of the output that has gone away.
struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_answer_is_streamed_with_its_passages() {
    let folder = folder();
    let search = search(&folder, &["--max-tokens", "24"]).unwrap();
    let mut out = Pieces::default();
    search.serve([Ok("What did the fox find?".to_owned())].into_iter(), 1, &mut out).unwrap();
    let text = out.0.concat();
    assert!(text.starts_with("Question: What did the fox find?\n"), "{text}");
    assert!(text.contains("Passages, * cited (1 of 1 that match):\n"), "{text}");
    assert!(text.contains("[1] fox.md:1-3 (Foxes)\n") && !text.contains("moon.txt"), "{text}");
    let (before, _) = text.split_once("\n\nPassages").unwrap();
    let (_, answer) = before.split_once('\n').unwrap();
    let want = search.engine.generate(
        &select(&search.engine, "What did the fox find?", &[&search.corpus.passages[0]], search.budget).unwrap().prompt,
        &search.generate_options(),
    );
    let want = want.unwrap().collect_all().unwrap();
    assert!(!want.text.trim().is_empty() && answer.starts_with(&want.text), "{answer}");
    assert!(out.0.len() > want.ids.len() / 2, "{} pieces", out.0.len());
}

#[test]
fn without_a_passage_the_model_is_not_asked() {
    let folder = folder();
    let search = search(&folder, &[]).unwrap();
    for question in ["What about elephants?", "Who are you?", "???"] {
        let text = answers(&search, &[question], 1);
        assert_eq!(text, format!("Question: {question}\nNo passage matches. The model was not asked.\n\n"));
    }
    assert_eq!(search.engine.stats().prefix_queries, 0);
    let empty = tempfile::tempdir().unwrap();
    let search = self::search(&empty, &[]).unwrap();
    assert!(answers(&search, &["What did the fox find?"], 1).contains("No passage matches."));
}

#[test]
fn answers_at_once_are_the_answers_alone() {
    let folder = folder();
    let search = search(&folder, &["--max-tokens", "16"]).unwrap();
    let questions = ["Who found the key?", "Any elephants?", "Where is the moon?", "What is a fox and what is a tree?"];
    let alone = answers(&search, &questions, 1);
    for parallel in [2, 3, 10] {
        assert_eq!(answers(&search, &questions, parallel), alone);
    }
}

#[test]
fn an_error_of_one_question_does_not_end_the_service() {
    let folder = folder();
    let search = search(&folder, &["--max-tokens", "4"]).unwrap();
    let long = "fox ".repeat(6000);
    let mut out = Vec::new();
    let questions = [&long, "Where is the moon?"].map(|question| Ok(question.to_owned()));
    assert_eq!(search.serve(questions.into_iter(), 2, &mut out).unwrap(), 1);
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("[1] moon.txt:1"), "{text}");
    let questions = ["Where is the moon?"].map(|question| Ok(question.to_owned()));
    let error = search.serve(questions.into_iter(), 1, &mut Closed).unwrap_err().to_string();
    assert!(error.contains("standard output"), "{error}");
}

#[test]
fn lines_of_standard_input() {
    let lines: Vec<String> = lines(&b"one\r\n\n  \nt\xffwo"[..]).map(Result::unwrap).collect();
    assert_eq!(lines, ["one", "t\u{fffd}wo"]);
}

#[test]
fn room_for_the_answer() {
    let folder = folder();
    let error = search(&folder, &["--max-tokens", "4096"]).err().unwrap().to_string();
    assert!(error.contains("--max-tokens") && error.contains("4096"), "{error}");
    assert_eq!(search(&folder, &["--max-tokens", "4095"]).unwrap().budget, 1);
}

#[test]
fn cited_passages_are_marked() {
    let folder = folder();
    let search = search(&folder, &[]).unwrap();
    let ranked: Vec<&Passage> = search.corpus.passages.iter().collect();
    let selection = select(&search.engine, "fox", &ranked, 1000).unwrap();
    let list = passage_list(&selection, 7, "A key [1]. A moon [9].");
    let want = "Passages, * cited (2 of 7 that match):\n* [1] fox.md:1-3 (Foxes)\n  [2] moon.txt:1\n\
        The answer cites [9], which is no passage.\n";
    assert_eq!(list, want);
    assert!(passage_list(&selection, 2, "None.").ends_with("The answer cites no passage.\n"));
}
