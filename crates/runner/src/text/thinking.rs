//! Separation of a reasoning model's thinking (Phi-4-reasoning, Phi-4-mini-reasoning) from its answer.

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";

/// A part of an answer's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Span {
    /// Text between the tags, and the tags.
    Thinking(String),
    /// Other text.
    Answer(String),
}

/// Splits an answer that comes in pieces at `<think>` and `</think>`. A tag may be cut into several pieces: text that may be part
/// of a tag is held back. The spans together are the text, unchanged.
///
/// Thinking is at the beginning of an answer, with only white space before it; a later `<think>` is text.
///
/// ```
/// use phi3_runner::text::{Span, ThinkingSplitter};
///
/// let mut splitter = ThinkingSplitter::default();
/// assert_eq!(splitter.push("<think>2 + 2</th"), [Span::Thinking("<think>2 + 2".into())]);
/// assert_eq!(splitter.push("ink>4"), [Span::Thinking("</think>".into()), Span::Answer("4".into())]);
/// assert_eq!(splitter.finish(), None);
/// ```
#[derive(Clone, Debug, Default)]
pub struct ThinkingSplitter {
    state: State,
    held: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// White space, or nothing yet.
    #[default]
    Beginning,
    Thinking,
    Answer,
}

impl ThinkingSplitter {
    /// Takes the next piece; returns the spans that are final now.
    pub fn push(&mut self, piece: &str) -> Vec<Span> {
        self.held.push_str(piece);
        let mut spans = Vec::new();
        if self.state == State::Beginning {
            let text = self.held.trim_start();
            if text.starts_with(OPEN) {
                self.state = State::Thinking;
            } else if !OPEN.starts_with(text) {
                self.state = State::Answer;
            }
        }
        if self.state == State::Thinking {
            let (end, is_closed) = match self.held.find(CLOSE) {
                Some(at) => (at + CLOSE.len(), true),
                None => (self.held.len() - begun(&self.held), false),
            };
            let rest = self.held.split_off(end);
            spans.extend(
                Some(std::mem::replace(&mut self.held, rest)).filter(|text| !text.is_empty()).map(Span::Thinking),
            );
            if is_closed {
                self.state = State::Answer;
            }
        }
        if self.state == State::Answer && !self.held.is_empty() {
            spans.push(Span::Answer(std::mem::take(&mut self.held)));
        }
        spans
    }

    /// The text that was held back, at the end of an answer.
    pub fn finish(&mut self) -> Option<Span> {
        let text = Some(std::mem::take(&mut self.held)).filter(|text| !text.is_empty())?;
        Some(if self.state == State::Thinking { Span::Thinking(text) } else { Span::Answer(text) })
    }
}

/// Bytes at the end of a text that may be the beginning of the closing tag.
fn begun(text: &str) -> usize {
    (1..CLOSE.len()).rev().find(|&len| text.ends_with(&CLOSE[..len])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Thinking and answer of a text in pieces of `size` characters.
    fn split(text: &str, size: usize) -> (String, String) {
        let characters: Vec<char> = text.chars().collect();
        let mut splitter = ThinkingSplitter::default();
        let mut spans = Vec::new();
        for piece in characters.chunks(size) {
            spans.extend(splitter.push(&piece.iter().collect::<String>()));
        }
        spans.extend(splitter.finish());
        let (mut thinking, mut answer, mut whole) = (String::new(), String::new(), String::new());
        for span in spans {
            let (Span::Thinking(text) | Span::Answer(text)) = &span;
            assert!(!text.is_empty());
            whole += text;
            match span {
                Span::Thinking(text) => thinking += &text,
                Span::Answer(text) => answer += &text,
            }
        }
        assert_eq!(whole, text);
        (thinking, answer)
    }

    #[test]
    fn thinking_is_split_off_wherever_pieces_are_cut() {
        for (thinking, answer) in [
            ("<think>a < b </ thé</think>", "\n\nyes"),
            ("\n <think></think>", "no"),
            ("<think>one</think>", " <think>two</think>"),
            ("", "the tag <think> begins it</think>"),
            ("", "<thinner>"),
            ("", "<thi"),
            ("", " \n"),
            ("<think>cut </thin", ""),
            ("<think>", ""),
        ] {
            let text = format!("{thinking}{answer}");
            for size in 1..=text.len().max(1) {
                assert_eq!(split(&text, size), (thinking.to_owned(), answer.to_owned()), "{text:?} by {size}");
            }
        }
    }

    #[test]
    fn only_what_may_be_a_tag_waits() {
        let mut splitter = ThinkingSplitter::default();
        assert_eq!(splitter.push("<th"), []);
        assert_eq!(splitter.push("ink>a<"), [Span::Thinking("<think>a".into())]);
        assert_eq!(splitter.push("b"), [Span::Thinking("<b".into())]);
        assert_eq!(splitter.push("</think>"), [Span::Thinking("</think>".into())]);
        assert_eq!(splitter.push("<"), [Span::Answer("<".into())]);
        assert_eq!(splitter.finish(), None);
    }
}
