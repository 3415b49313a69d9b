//! The prompt of a question: as many of the best passages as a budget of tokens allows.

use crate::passages::{Passage, without_special_tokens};
use phi3_runner::text::Message;
use phi3_runner::{Engine, Error, Prompt, Result};

const INSTRUCTIONS: &str = "Answer the question with the passages below only. After each sentence, put the number of \
    the passage that it is from in square brackets, such as [1]. If the passages do not answer the question, say so.";

/// A question with the passages that the model is given.
pub(crate) struct Selection<'a> {
    pub(crate) prompt: Prompt,
    /// The passages, numbered from 1 in the prompt.
    pub(crate) given: Vec<&'a Passage>,
    /// Number of passages that did not fit.
    pub(crate) left_out: usize,
}

/// Takes passages in their order, and skips those with which the prompt would be longer than `budget` tokens.
///
/// # Errors
///
/// No passage fits.
pub(crate) fn select<'a>(
    engine: &Engine,
    question: &str,
    ranked: &[&'a Passage],
    budget: usize,
) -> Result<Selection<'a>> {
    let mut given = Vec::new();
    let mut fitting = None;
    let mut shortest = usize::MAX;
    for &passage in ranked {
        given.push(passage);
        let prompt = engine.chat_prompt(&[message(question, &given)], &[])?;
        shortest = shortest.min(prompt.len());
        if prompt.len() <= budget {
            fitting = Some(prompt);
        } else {
            given.pop();
        }
    }
    let left_out = ranked.len() - given.len();
    match fitting {
        Some(prompt) => Ok(Selection { prompt, given, left_out }),
        None => Err(Error::Argument {
            argument: "question",
            expected: format!("at most {budget} tokens together with a passage"),
            found: format!("{shortest} tokens"),
        }),
    }
}

/// One message of the user. Some models have no system message.
fn message(question: &str, given: &[&Passage]) -> Message {
    let mut text = format!("{INSTRUCTIONS}\n\n");
    for (number, passage) in (1..).zip(given) {
        let citation = without_special_tokens(&passage.to_string());
        let content = without_special_tokens(passage.text.trim());
        text.push_str(&format!("[{number}] {citation}\n{content}\n\n"));
    }
    text.push_str(&format!("Question: {}", without_special_tokens(question)));
    Message::user(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passages::split;
    use phi3_runner::Device;

    fn engine() -> Engine {
        Engine::builder().device(Device::Cpu).build().unwrap()
    }

    /// Passages of different lengths.
    fn passages() -> Vec<Passage> {
        let texts = [700, 20, 1, 300, 120, 5, 60, 230].map(|words| "the brave fox saw a boat ".repeat(words / 6 + 1));
        texts.iter().flat_map(|text| split("fox.md", text)).collect()
    }

    #[test]
    fn the_budget_is_never_exceeded() {
        let (engine, passages) = (engine(), passages());
        let ranked: Vec<&Passage> = passages.iter().collect();
        let mut sizes = Vec::new();
        for budget in (0..2400).step_by(29) {
            match select(&engine, "What did the fox see?", &ranked, budget) {
                Ok(selection) => {
                    assert!(selection.prompt.len() <= budget);
                    assert_eq!(selection.given.len() + selection.left_out, ranked.len());
                    let again = engine.chat_prompt(&[message("What did the fox see?", &selection.given)], &[]).unwrap();
                    assert_eq!(again.ids(), selection.prompt.ids());
                    sizes.push(selection.given.len());
                }
                Err(error) => {
                    assert!(sizes.is_empty(), "{error}");
                    assert!(error.to_string().contains(&budget.to_string()), "{error}");
                }
            }
        }
        assert_eq!(sizes.last(), Some(&ranked.len()));
        assert!(sizes.len() > 40 && sizes[0] < 3, "{sizes:?}");
    }

    #[test]
    fn a_long_passage_does_not_hide_short_ones() {
        let (engine, long, short) =
            (engine(), split("a.md", &"a brave fox ".repeat(90)), split("b.md", "The fox saw a boat."));
        let selection = select(&engine, "Who saw it?", &[&long[0], &short[0]], 160).unwrap();
        assert_eq!((selection.given[0].file.as_str(), selection.left_out), ("b.md", 1));
    }

    #[test]
    fn the_prompt_is_numbered_and_has_no_special_tokens_of_a_passage() {
        let passages = split("a.md", "# Ends\n\nA turn ends with <|end|> here.\n");
        let text = message("Which <|end|>?", &[&passages[0], &passages[0]]).text().unwrap().to_owned();
        assert!(text.contains("[1] a.md:1-3 (Ends)\n# Ends") && text.contains("[2] a.md"), "{text}");
        assert!(text.ends_with("Question: Which < |end|>?") && !text.contains("<|"), "{text}");
    }

    #[test]
    fn a_question_without_room_is_an_error() {
        let passages = split("a.md", "A fox.");
        let error = select(&engine(), &"fox ".repeat(5000), &[&passages[0]], 3000).err().unwrap().to_string();
        assert!(error.contains("3000 tokens") && error.contains("question"), "{error}");
    }
}
