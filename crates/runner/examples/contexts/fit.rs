//! The prompt of a question about a text. A text that is longer than the context is cut, and what is left out is counted.

use crate::bm25::Index;
use crate::passages::{Passage, split, without_special_tokens};
use phi3_runner::text::Message;
use phi3_runner::{Engine, Error, Prompt, Result};
use std::collections::BTreeSet;
use std::fmt;

/// Stands for passages that are left out.
const GAP: &str = "[...]\n";

/// A prompt with a text, or with a part of it.
pub(crate) struct Fitted {
    pub(crate) prompt: Prompt,
    /// Tokens of the text, without question and chat template.
    pub(crate) text_tokens: usize,
    /// What is left out; `None` if the whole text fits.
    pub(crate) cut: Option<Cut>,
}

/// One sentence for a whole text, three for a cut one.
impl fmt::Display for Fitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.text_tokens;
        let Some(Cut { tokens, passages, of_passages, matching }) = self.cut else {
            return write!(f, "The text fits: {all} tokens.");
        };
        let others = of_passages - passages - matching;
        writeln!(f, "The text does not fit: {tokens} of {all} tokens are left out.")?;
        write!(f, "Left out: {passages} of {of_passages} passages. ")?;
        write!(f, "Kept: {matching} that match the question, {others} others from the start of the text on.")
    }
}

/// What is left out of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Tokens of the text, less those of the passages that are kept.
    pub(crate) tokens: usize,
    /// Passages that are left out.
    pub(crate) passages: usize,
    /// Passages of the text.
    pub(crate) of_passages: usize,
    /// Passages that are kept because they share a word with the question. The others are kept from the start of the text on.
    pub(crate) matching: usize,
}

/// The prompt of a question about a text, of at most `budget` tokens.
///
/// # Errors
///
/// The question and one passage are longer than the budget.
pub(crate) fn fit(engine: &Engine, text: &str, question: &str, budget: usize) -> Result<Fitted> {
    let text = without_special_tokens(text);
    let text_tokens = tokens(engine, &text)?;
    if text_tokens <= budget {
        let prompt = prompt(engine, &text, question)?;
        if prompt.len() <= budget {
            return Ok(Fitted { prompt, text_tokens, cut: None });
        }
    }
    let passages = split("", &text);
    let (order, matching) = order(&passages, question);
    // Tokens of the parts are about those of the whole, so this choice is nearly right.
    let mut room = budget.saturating_sub(prompt(engine, GAP, question)?.len());
    let gap = tokens(engine, GAP)?;
    let mut kept = Vec::new();
    for number in order {
        let size = tokens(engine, &passages[number].text)? + gap;
        if size <= room {
            room -= size;
            kept.push(number);
        }
    }
    // The whole prompt decides: the last choice goes while it is too long.
    while !kept.is_empty() {
        let chosen: BTreeSet<usize> = kept.iter().copied().collect();
        let prompt = prompt(engine, &excerpt(&passages, &chosen), question)?;
        if prompt.len() <= budget {
            let kept_text: String = chosen.iter().map(|&number| passages[number].text.as_str()).collect();
            let cut = Cut {
                tokens: text_tokens.saturating_sub(tokens(engine, &kept_text)?),
                passages: passages.len() - kept.len(),
                of_passages: passages.len(),
                matching: kept.iter().filter(|number| matching.contains(number)).count(),
            };
            return Ok(Fitted { prompt, text_tokens, cut: Some(cut) });
        }
        kept.pop();
    }
    Err(Error::Argument {
        argument: "--question",
        expected: format!("a question that leaves room for a passage in {budget} tokens"),
        found: format!("{} tokens", tokens(engine, question)?),
    })
}

/// The passages in the order in which they are kept: those that share a word with the question, the best first, then the others
/// from the start of the text on. Also the former alone.
fn order(passages: &[Passage], question: &str) -> (Vec<usize>, BTreeSet<usize>) {
    let mut order = Index::new(passages.iter().map(|passage| &passage.text)).search(question);
    let matching: BTreeSet<usize> = order.iter().copied().collect();
    order.extend((0..passages.len()).filter(|number| !matching.contains(number)));
    (order, matching)
}

/// The chosen passages in the order of the text, with a mark at each gap.
fn excerpt(passages: &[Passage], chosen: &BTreeSet<usize>) -> String {
    let mut text = String::new();
    let mut in_gap = false;
    for (number, passage) in passages.iter().enumerate() {
        if chosen.contains(&number) {
            text.push_str(&passage.text);
        } else if !in_gap {
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(GAP);
        }
        in_gap = !chosen.contains(&number);
    }
    text
}

fn prompt(engine: &Engine, text: &str, question: &str) -> Result<Prompt> {
    let question = without_special_tokens(question);
    let message = format!("Answer the question about the text.\n\nText:\n{text}\n\nQuestion: {question}");
    engine.chat_prompt(&[Message::user(message)], &[])
}

fn tokens(engine: &Engine, text: &str) -> Result<usize> {
    Ok(engine.tokenizer()?.encode(text, false)?.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use phi3_runner::Device;

    const QUESTION: &str = "What did the owl lose?";

    fn engine() -> Engine {
        Engine::builder().device(Device::Cpu).build().unwrap()
    }

    /// Thirty sections, of which number 20 answers the question.
    fn text() -> String {
        let section = |number: usize| match number {
            20 => "# Section 20\n\nThe clever owl lost a golden bell.\n\n".to_owned(),
            _ => format!("# Section {number}\n\n{}\n\n", "A fox went for a walk. ".repeat(1 + number * 5 % 13)),
        };
        (0..30).map(section).collect()
    }

    fn sent(engine: &Engine, fitted: &Fitted) -> String {
        engine.tokenizer().unwrap().decode(&fitted.prompt.ids(), false).unwrap()
    }

    #[test]
    fn the_budget_is_never_exceeded() {
        let (engine, text) = (engine(), text());
        let mut left_out = Vec::new();
        for budget in (0..3600).step_by(83) {
            match fit(&engine, &text, QUESTION, budget) {
                Ok(fitted) => {
                    assert!(fitted.prompt.len() <= budget);
                    left_out.push(fitted.cut.map_or(0, |cut| cut.tokens));
                    assert_eq!(fitted.cut.is_some(), sent(&engine, &fitted).contains("[...]"));
                }
                Err(error) => {
                    assert!(left_out.is_empty(), "{error}");
                    assert!(error.to_string().contains(&budget.to_string()), "{error}");
                }
            }
        }
        assert!(left_out.len() > 30, "{left_out:?}");
        assert_eq!(left_out.last(), Some(&0), "{left_out:?}");
        assert!(left_out.is_sorted_by(|a, b| a >= b), "{left_out:?}");
    }

    #[test]
    fn the_whole_text_is_unchanged() {
        let (engine, text) = (engine(), text());
        let fitted = fit(&engine, &text, QUESTION, 4000).unwrap();
        assert_eq!(fitted.cut, None);
        assert_eq!(fitted.text_tokens, tokens(&engine, &text).unwrap());
        assert!(sent(&engine, &fitted).contains(&text));
        // the smallest budget that holds it, and one token less
        assert_eq!(fit(&engine, &text, QUESTION, fitted.prompt.len()).unwrap().cut, None);
        assert!(fit(&engine, &text, QUESTION, fitted.prompt.len() - 1).unwrap().cut.is_some());
    }

    #[test]
    fn the_passage_that_matches_is_kept() {
        let (engine, text) = (engine(), text());
        for budget in [200, 500, 1500] {
            let fitted = fit(&engine, &text, QUESTION, budget).unwrap();
            let cut = fitted.cut.unwrap();
            let sent = sent(&engine, &fitted);
            assert!(sent.contains("The clever owl lost a golden bell."), "{sent}");
            assert_eq!((cut.matching, cut.of_passages), (1, 30));
            let kept = sent.matches("# Section").count();
            assert_eq!(kept + cut.passages, 30);
        }
    }

    #[test]
    fn tokens_left_out_are_counted() {
        let engine = engine();
        let text = text();
        let fitted = fit(&engine, &text, QUESTION, 700).unwrap();
        let cut = fitted.cut.unwrap();
        let kept: String = split("", &text)
            .into_iter()
            .map(|passage| passage.text)
            .filter(|passage| sent(&engine, &fitted).contains(passage.as_str()))
            .collect();
        assert_eq!(cut.tokens, fitted.text_tokens - tokens(&engine, &kept).unwrap());
    }

    #[test]
    fn gaps_are_marked_once() {
        let passages = split("", "# A\n\na\n# B\n\nb\n# C\n\nc\n# D\n\nd");
        let excerpt = |chosen: &[usize]| excerpt(&passages, &chosen.iter().copied().collect());
        assert_eq!(excerpt(&[0, 1, 2, 3]), "# A\n\na\n# B\n\nb\n# C\n\nc\n# D\n\nd");
        assert_eq!(excerpt(&[0, 3]), "# A\n\na\n[...]\n# D\n\nd");
        assert_eq!(excerpt(&[1]), "[...]\n# B\n\nb\n[...]\n");
    }

    #[test]
    fn a_huge_paragraph_is_cut_within() {
        let engine = engine();
        let fitted = fit(&engine, &"a brave fox and a small boat ".repeat(5000), QUESTION, 1000).unwrap();
        let cut = fitted.cut.unwrap();
        assert!(fitted.prompt.len() <= 1000 && fitted.prompt.len() > 600, "{}", fitted.prompt.len());
        assert!(cut.tokens > 20_000 && cut.matching == 0, "{cut:?}");
    }
}
