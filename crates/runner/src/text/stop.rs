//! Stop strings, which end an answer.

/// Search for stop strings in a text that comes in pieces. Text that may be the beginning of a stop string is held back, so that no
/// part of one is ever returned.
#[derive(Clone, Debug, Default)]
pub(crate) struct StopTexts {
    texts: Vec<String>,
    held: String,
}

impl StopTexts {
    /// Searches for any of `texts`, which must not be empty.
    pub(crate) fn new(texts: Vec<String>) -> Self {
        Self { texts, held: String::new() }
    }

    /// Takes the next piece; returns the text that is final now, and whether a stop string ends it.
    pub(crate) fn push(&mut self, piece: &str) -> (String, bool) {
        self.held.push_str(piece);
        if let Some(at) = self.texts.iter().filter_map(|text| self.held.find(text.as_str())).min() {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let ends = self.held.char_indices().map(|(at, _)| at);
        let begins = |at: usize| self.texts.iter().any(|text| text.starts_with(&self.held[at..]));
        let certain = ends.into_iter().find(|&at| begins(at)).unwrap_or(self.held.len());
        let rest = self.held.split_off(certain);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// The text that was held back, for the end of an answer.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::StopTexts;

    /// Text returned for pieces, and whether a stop string ended it.
    fn given(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut texts = StopTexts::new(stops.iter().map(|stop| (*stop).to_owned()).collect());
        let mut out = String::new();
        for piece in pieces {
            let (text, ended) = texts.push(piece);
            out += &text;
            if ended {
                return (out, true);
            }
        }
        (out + &texts.finish(), false)
    }

    #[test]
    fn stop_texts_end_an_answer_wherever_pieces_are_cut() {
        let text = "one two\n\nthree ééé end";
        for stop in ["two", "\n\n", "éé", "o", "three ééé", "end"] {
            let at = text.find(stop).unwrap();
            let bytes: Vec<String> = text.chars().map(String::from).collect();
            let characters: Vec<&str> = bytes.iter().map(String::as_str).collect();
            assert_eq!(given(&[stop], &characters), (text[..at].to_owned(), true), "{stop:?}");
            assert_eq!(given(&[stop], &[text]), (text[..at].to_owned(), true), "{stop:?}");
        }
        assert_eq!(given(&["endless"], &["the e", "n", "d"]), ("the end".into(), false));
        assert_eq!(given(&["aab"], &["aaa", "ab!"]), ("aa".into(), true));
        assert_eq!(given(&["b", "ab"], &["xa", "b"]), ("x".into(), true));
        assert_eq!(given(&[], &["x"]), ("x".into(), false));
    }

    #[test]
    fn only_what_may_begin_a_stop_text_waits() {
        let mut texts = StopTexts::new(vec!["###".into()]);
        assert_eq!(texts.push("a #"), ("a ".into(), false));
        assert_eq!(texts.push("#b"), ("##b".into(), false));
        assert_eq!(texts.push("##"), (String::new(), false));
        assert_eq!(texts.finish(), "##");
    }
}
