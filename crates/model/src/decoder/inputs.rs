//! Inputs of a pass: tokens and rows of picture features.

use super::RowInput;
use crate::{Error, Features, Input, ModelSpec, Result};
use phi3_tensor::Batch;
use std::ops::Range;
use std::sync::Arc;

impl RowInput {
    /// The input, if it is known on the host.
    pub fn input(&self) -> Option<&Input> {
        match self {
            RowInput::Input(input) => Some(input),
            RowInput::Sampled(_) => None,
        }
    }

    /// The token in a batch; 0 for a row of features.
    pub(super) fn token(&self) -> u32 {
        match self {
            RowInput::Input(input) => input.token().unwrap_or(0),
            RowInput::Sampled(slot) => Batch::SAMPLED.saturating_add(*slot),
        }
    }
}

/// Consecutive rows of a pass, filled from consecutive rows of a picture's features.
pub(super) struct FeatureRows {
    /// First row, in the pass.
    pub(super) row: usize,
    pub(super) features: Arc<Features>,
    /// Rows of the features.
    pub(super) rows: Range<usize>,
}

impl FeatureRows {
    /// Records `row` if its input is a row of features; a token is ignored.
    pub(super) fn place(all: &mut Vec<Self>, row: usize, input: &Input) {
        let Input::Feature { features, row: of } = input else { return };
        match all.last_mut() {
            Some(last)
                if last.row + last.rows.len() == row
                    && last.rows.end == *of
                    && Arc::ptr_eq(&last.features, features) =>
            {
                last.rows.end += 1;
            }
            _ => all.push(Self { row, features: features.clone(), rows: *of..*of + 1 }),
        }
    }
}

/// Checks the length of a sequence, in tokens.
///
/// # Errors
///
/// [`Error::TooLong`] for more tokens than the model's context (`max_position_embeddings`).
pub fn check_length(spec: &ModelSpec, tokens: usize) -> Result<()> {
    if tokens <= spec.max_position_embeddings {
        return Ok(());
    }
    Err(Error::TooLong { tokens, limit: spec.max_position_embeddings })
}

/// Checks the inputs of a sequence.
///
/// # Errors
///
/// [`Error::Request`] for a token id outside the vocabulary, a row outside its features, or features of another width than the
/// model (`hidden_size`).
pub fn check_inputs<'a>(spec: &ModelSpec, inputs: impl IntoIterator<Item = &'a Input> + Clone) -> Result<()> {
    check_tokens(spec, inputs.clone().into_iter().filter_map(Input::token))?;
    let fits = |input: &Input| match input {
        Input::Token(_) => true,
        Input::Feature { features, row } => features.width() == spec.hidden_size && *row < features.tokens(),
    };
    match inputs.into_iter().all(fits) {
        true => Ok(()),
        false => Err(Error::Request {
            what: "row of a picture",
            found: "a row outside the features, or features of another width".into(),
            limit: format!("the model's rows are {} wide (hidden_size)", spec.hidden_size),
            hint: "feed the features that this model gave",
        }),
    }
}

fn check_tokens(spec: &ModelSpec, mut tokens: impl Iterator<Item = u32>) -> Result<()> {
    match tokens.find(|&token| token as usize >= spec.vocab_size) {
        None => Ok(()),
        Some(token) => Err(Error::Request {
            what: "unknown token id",
            found: token.to_string(),
            limit: format!("the model has ids 0 to {} (vocab_size)", spec.vocab_size - 1),
            hint: "the tokenizer may be another model's",
        }),
    }
}
