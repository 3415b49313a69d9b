//! Passages: the parts of text files that are found, given to the model and cited.

use std::fmt;

/// A passage is closed at the end of a paragraph from this length on, in bytes.
const ENOUGH: usize = 400;

/// Longest passage, in bytes. Longer paragraphs and lines are divided.
const LONGEST: usize = 1200;

/// Part of a text file, verbatim.
#[derive(Clone, Debug, Default)]
pub(crate) struct Passage {
    /// The file, relative to its folder.
    pub(crate) file: String,
    /// First line with text, from 1.
    pub(crate) first_line: usize,
    /// Last line with text.
    pub(crate) last_line: usize,
    /// The headings above it, from the first level down.
    pub(crate) heading: String,
    /// The text, with its line breaks.
    pub(crate) text: String,
}

/// The citation: file, lines and headings.
impl fmt::Display for Passage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.first_line)?;
        if self.last_line > self.first_line {
            write!(f, "-{}", self.last_line)?;
        }
        if self.heading.is_empty() { Ok(()) } else { write!(f, " ({})", self.heading) }
    }
}

/// Divides a text into passages: at headings, between paragraphs, and within what is longer than a passage. Together they are the
/// text; a text without any word has none.
pub(crate) fn split(file: &str, text: &str) -> Vec<Passage> {
    let mut splitter = Splitter { file: file.to_owned(), ..Splitter::default() };
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        splitter.take(number, line);
    }
    splitter.close();
    splitter.passages
}

#[derive(Default)]
struct Splitter {
    file: String,
    passages: Vec<Passage>,
    /// The passage that lines are added to.
    open: Passage,
    /// Whether it has text other than headings.
    has_body: bool,
    /// Titles of the headings above, from the first level down.
    headings: Vec<String>,
    after_blank: bool,
    in_code: bool,
}

impl Splitter {
    fn take(&mut self, number: usize, line: &str) {
        let is_blank = line.trim().is_empty();
        let heading = if self.in_code { None } else { heading(line) };
        if line.trim_start().starts_with("```") {
            self.in_code = !self.in_code;
        } else if let Some((level, title)) = heading {
            if self.has_body {
                self.close();
            }
            self.headings.truncate(level - 1);
            self.headings.push(title.to_owned());
        }
        if self.after_blank && !is_blank && !self.in_code && self.open.text.len() >= ENOUGH {
            self.close();
        }
        for piece in pieces(line) {
            if self.open.text.len() + piece.len() > LONGEST {
                self.close();
            }
            self.open.text.push_str(piece);
            if !piece.trim().is_empty() {
                if self.open.first_line == 0 {
                    self.open.first_line = number;
                }
                self.open.last_line = number;
                self.has_body |= heading.is_none();
            }
        }
        self.after_blank = is_blank;
    }

    /// Closes the open passage and opens the next one. Blank lines alone are no passage.
    fn close(&mut self) {
        if self.open.last_line == 0 {
            return;
        }
        self.open.file = self.file.clone();
        self.open.heading = self.headings.join(" > ");
        self.passages.push(std::mem::take(&mut self.open));
        self.has_body = false;
    }
}

/// Level and title of a Markdown heading.
fn heading(line: &str) -> Option<(usize, &str)> {
    let title = line.trim_start_matches('#');
    let level = line.len() - title.len();
    ((1..=6).contains(&level) && title.starts_with(' ')).then_some((level, title.trim()))
}

/// Divides a line into pieces that a passage can hold, between words where it can.
fn pieces(line: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = line;
    while rest.len() > LONGEST {
        let limit = rest.floor_char_boundary(LONGEST);
        let space = rest[..limit].rfind(char::is_whitespace).filter(|&at| at > 0);
        let (piece, after) = rest.split_at(space.unwrap_or(limit));
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    pieces
}

/// The text without special tokens such as `<|end|>`, which would end the turn of a chat in the middle of a passage.
pub(crate) fn without_special_tokens(text: &str) -> String {
    text.replace("<|", "< |")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn citations(text: &str) -> Vec<String> {
        split("a.md", text).iter().map(ToString::to_string).collect()
    }

    fn joined(passages: &[Passage]) -> String {
        passages.iter().map(|passage| passage.text.as_str()).collect()
    }

    #[test]
    fn headings_divide_and_are_cited() {
        let text = "# Guide\n\nFirst.\n\n## Setup\n\nSecond.\nThird.\n\n```sh\n# no heading\n```\n\n# Other\n\nLast.\n";
        let want = ["a.md:1-3 (Guide)", "a.md:5-12 (Guide > Setup)", "a.md:14-16 (Other)"];
        assert_eq!(citations(text), want);
        assert_eq!(joined(&split("a.md", text)), text);
    }

    #[test]
    fn a_heading_without_text_joins_the_next() {
        assert_eq!(citations("# Guide\n## Setup\n\nText.\n"), ["a.md:1-4 (Guide > Setup)"]);
        assert_eq!(citations("# Only a title\n"), ["a.md:1 (Only a title)"]);
        assert_eq!(citations("#include <a>\n"), ["a.md:1"]);
    }

    #[test]
    fn short_paragraphs_are_joined_and_long_ones_divided() {
        let short = "A short paragraph.\n\n";
        assert_eq!(citations(&short.repeat(3)), ["a.md:1-5"]);
        let long = format!("{}\n\n", "word ".repeat(100));
        assert_eq!(citations(&long.repeat(3)), ["a.md:1", "a.md:3", "a.md:5"]);
    }

    #[test]
    fn a_huge_paragraph_is_divided() {
        for text in ["word ".repeat(20_000), "ä".repeat(50_000), "one line\n".repeat(10_000)] {
            let passages = split("a.txt", &text);
            assert!(passages.len() > text.len() / LONGEST);
            assert!(passages.iter().all(|passage| passage.text.len() <= LONGEST));
            assert_eq!(joined(&passages), text);
        }
        let passages = split("a.txt", &"one line\n".repeat(10_000));
        assert_eq!((passages[0].first_line, passages.last().unwrap().last_line), (1, 10_000));
        assert!(passages.windows(2).all(|pair| pair[0].last_line + 1 == pair[1].first_line));
    }

    #[test]
    fn passages_are_the_text() {
        let parts = ["# A\n", "\n", "word\n", "## B\r\n", "```\n", "long words \n", "\u{2003}\n", "é", "#\n", "tail"];
        // every text of six parts, by counting
        for number in 0..4000_usize {
            let text: String = (0..6).map(|place| parts[((number * 7919) >> (2 * place)) % parts.len()]).collect();
            let passages = split("a.md", &text);
            let want = if text.trim().is_empty() { "" } else { &text };
            assert_eq!(joined(&passages), want);
            assert!(passages.iter().all(|passage| 0 < passage.first_line && passage.first_line <= passage.last_line));
        }
    }

    #[test]
    fn texts_without_words_have_no_passage() {
        assert!(split("a.md", "").is_empty());
        assert!(split("a.md", "\n \n\t\n").is_empty());
        assert!(split("a.md", &"\n".repeat(5000)).is_empty());
    }

    #[test]
    fn special_tokens_are_plain_text() {
        assert_eq!(without_special_tokens("a <|end|> b"), "a < |end|> b");
    }
}
