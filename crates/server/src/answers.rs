//! The answers to one request while they are computed.

use crate::error::{ApiError, ApiResult, Kind};
use crate::metrics::Recorder;
use crate::state::{App, OpenRequest};
use axum::http::StatusCode;
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, SelectAll, select_all};
use phi3_runner::{Event, Generation, Usage};
use phi3_tensor::Logprobs;
use std::time::{Duration, Instant};

/// Answers of one request, in the order of their numbers. Dropping them ends those that are not complete.
pub(crate) struct Answers {
    events: SelectAll<BoxStream<'static, (usize, phi3_runner::Result<Event>)>>,
    recorders: Vec<Recorder>,
    limit: Duration,
    deadline: tokio::time::Instant,
    _open: OpenRequest,
}

impl Answers {
    pub(crate) fn new(app: &App, model: &str, arrived: Instant, open: OpenRequest, all: Vec<Generation>) -> Self {
        let recorders = all.iter().map(|_| app.metrics().recorder(model, arrived)).collect();
        let limit = app.options().request_time;
        let numbered = |(number, events)| StreamExt::map(events, move |event| (number, event)).boxed();
        let events = all.into_iter().enumerate().map(numbered);
        Self { events: select_all(events), recorders, limit, deadline: (arrived + limit).into(), _open: open }
    }

    /// The next event, with the number of its answer; `None` when all answers are complete.
    ///
    /// # Errors
    ///
    /// Those of the engine, and the end of the request's time. Nothing of use follows.
    pub(crate) async fn next(&mut self) -> ApiResult<Option<(usize, Event)>> {
        let next = tokio::time::timeout_at(self.deadline, self.events.next()).await;
        let Some((number, event)) = next.map_err(|_| self.late())? else { return Ok(None) };
        let event = event?;
        if let Some(recorder) = self.recorders.get_mut(number) {
            match &event {
                Event::Token { .. } => recorder.token(),
                Event::Done(summary) => recorder.done(summary),
                _ => {}
            }
        }
        Ok(Some((number, event)))
    }

    fn late(&self) -> ApiError {
        let message = format!("the answer was not complete within {:?}; hint: ask for fewer tokens", self.limit);
        ApiError::new(StatusCode::GATEWAY_TIMEOUT, Kind::Timeout, message).code("timeout")
    }
}

/// A token of an answer with its log-probabilities.
#[derive(Clone, Debug)]
pub(crate) struct ScoredToken {
    pub(crate) id: u32,
    pub(crate) logprobs: Logprobs,
}

/// Puts scored tokens in order, without the stop token that ends an answer: that is not part of its text.
#[derive(Debug, Default)]
pub(crate) struct ScoredTokens {
    /// A special token, until the next event tells whether the answer ends with it.
    held: Option<ScoredToken>,
}

impl ScoredTokens {
    /// Takes a token; gives those that are part of the answer.
    pub(crate) fn push(&mut self, token: ScoredToken, is_special: bool) -> Vec<ScoredToken> {
        let mut tokens: Vec<ScoredToken> = self.held.take().into_iter().collect();
        match is_special {
            true => self.held = Some(token),
            false => tokens.push(token),
        }
        tokens
    }

    /// The last token at the end of an answer, unless it is the stop token.
    pub(crate) fn finish(&mut self, reason: phi3_runner::FinishReason) -> Option<ScoredToken> {
        self.held.take().filter(|_| reason != phi3_runner::FinishReason::Stop)
    }
}

/// Sums the token counts of a request: prompts count once, however many answers they have.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct UsageSum(Usage);

impl UsageSum {
    /// Adds an answer; `is_first` for the first answer to its prompt.
    pub(crate) fn add(&mut self, usage: &Usage, is_first: bool) {
        if is_first {
            self.0.prompt_tokens += usage.prompt_tokens;
            self.0.cached_tokens += usage.cached_tokens;
        }
        self.0.completion_tokens += usage.completion_tokens;
    }

    pub(crate) fn to_json(self) -> serde_json::Value {
        let Usage { prompt_tokens, cached_tokens, completion_tokens, .. } = self.0;
        serde_json::json!({
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
            "prompt_tokens_details": {"cached_tokens": cached_tokens},
        })
    }
}
