//! Display of a reasoning model's thinking: dimmed on a terminal, hidden on request, unchanged elsewhere.

use phi3_runner::text::{Span, ThinkingSplitter};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};

const DIM: &str = "\x1b[2m";
const BRIGHT: &str = "\x1b[22m";

/// Whether the terminal is dimmed at the moment, for the handler of Ctrl-C.
static IS_DIMMED: AtomicBool = AtomicBool::new(false);

/// Display of thinking.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Unchanged.
    Plain,
    /// Dimmed by escape codes of a terminal.
    Dimmed,
    /// Not printed.
    Hidden,
}

impl Style {
    /// The style for standard output. <https://no-color.org>: a variable that is empty counts as absent.
    pub(super) fn of_output(hide: bool) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        match (hide, std::io::stdout().is_terminal() && !no_color && !is_dumb) {
            (true, _) => Self::Hidden,
            (false, true) => Self::Dimmed,
            (false, false) => Self::Plain,
        }
    }
}

/// Display of an answer that arrives in pieces.
pub(super) struct Display {
    style: Style,
    splitter: ThinkingSplitter,
    is_dim: bool,
    /// Whether leading white space is dropped, after hidden thinking.
    trims: bool,
}

impl Display {
    pub(super) fn new(style: Style) -> Self {
        Self { style, splitter: ThinkingSplitter::default(), is_dim: false, trims: false }
    }

    /// The text to print for the next piece.
    pub(super) fn push(&mut self, piece: &str) -> String {
        if self.style == Style::Plain {
            return piece.to_owned();
        }
        let spans = self.splitter.push(piece);
        spans.into_iter().map(|span| self.shown(span)).collect()
    }

    /// The text to print at the end of the answer. Dimming ends here, even if the answer was cut inside the thinking.
    pub(super) fn finish(&mut self) -> String {
        let mut text = self.splitter.finish().map(|span| self.shown(span)).unwrap_or_default();
        text += self.dim(false);
        text
    }

    fn shown(&mut self, span: Span) -> String {
        match (span, self.style) {
            (Span::Thinking(_), Style::Hidden) => {
                self.trims = true;
                String::new()
            }
            (Span::Thinking(text), style) => self.dim(style == Style::Dimmed).to_owned() + &text,
            (Span::Answer(text), _) => {
                let text = if self.trims { text.trim_start() } else { &text };
                self.trims &= text.is_empty();
                self.dim(false).to_owned() + text
            }
        }
    }

    /// Escape code that starts or ends dimming; empty if nothing changes.
    fn dim(&mut self, wanted: bool) -> &'static str {
        if self.is_dim == wanted {
            return "";
        }
        self.is_dim = wanted;
        IS_DIMMED.store(wanted, Ordering::Relaxed);
        if wanted { DIM } else { BRIGHT }
    }
}

/// Ends dimming in the middle of an answer, before the process exits.
pub(super) fn end_dimming() {
    if IS_DIMMED.swap(false, Ordering::Relaxed) && std::io::stderr().is_terminal() {
        // standard output may be locked by the thread that prints
        eprint!("{BRIGHT}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(style: Style, pieces: &[&str]) -> String {
        let mut display = Display::new(style);
        let mut text: String = pieces.iter().map(|piece| display.push(piece)).collect();
        text += &display.finish();
        text
    }

    #[test]
    fn thinking_is_dimmed_or_left_out() {
        let pieces = ["<thi", "nk>hm", "</thi", "nk>\n", "\nyes\n"];
        assert_eq!(printed(Style::Plain, &pieces), pieces.concat());
        assert_eq!(printed(Style::Dimmed, &pieces), "\x1b[2m<think>hm</think>\x1b[22m\n\nyes\n");
        assert_eq!(printed(Style::Hidden, &pieces), "yes\n");
    }

    #[test]
    fn an_answer_cut_inside_the_thinking_ends_the_dimming() {
        for pieces in [&["<think>", "hm"][..], &["<think>hm</th"]] {
            let text = printed(Style::Dimmed, pieces);
            assert_eq!(text, format!("{DIM}{}{BRIGHT}", pieces.concat()));
            assert_eq!(printed(Style::Hidden, pieces), "");
        }
    }

    #[test]
    fn other_answers_are_unchanged() {
        for style in [Style::Plain, Style::Dimmed, Style::Hidden] {
            assert_eq!(printed(style, &["  a <think>", "b</think>"]), "  a <think>b</think>");
            assert_eq!(printed(style, &["<th"]), "<th");
        }
    }
}
