//! Server-sent events.

use crate::answers::Answers;
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use phi3_runner::Event;
use serde_json::Value;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

/// Silence after which a comment is sent, so that proxies and clients do not take the stream for dead.
const SILENCE: Duration = Duration::from_secs(15);

/// The form in which events are sent.
pub(crate) trait Chunks: Send + 'static {
    /// Chunks before all events.
    fn begin(&mut self) -> Vec<Value>;
    /// Chunks of an event of an answer.
    fn event(&mut self, number: usize, event: Event) -> Vec<Value>;
    /// Chunks after all events.
    fn end(&mut self) -> Vec<Value>;
}

/// A response that streams answers. It always ends with `[DONE]`, after an error too.
pub(crate) fn stream(answers: Answers, mut chunks: impl Chunks) -> Response {
    let lines = chunks.begin().iter().map(Value::to_string).collect();
    let state = State { lines, answers: Some(answers), chunks };
    let events = futures_util::stream::unfold(state, |mut state| async move {
        let line = state.next().await?;
        Some((Ok::<_, Infallible>(SseEvent::default().data(line)), state))
    });
    let stream = Sse::new(events).keep_alive(KeepAlive::new().interval(SILENCE).text("keep-alive"));
    // proxies such as nginx hold events back otherwise
    ([("x-accel-buffering", "no")], stream).into_response()
}

struct State<C> {
    lines: VecDeque<String>,
    /// `None` after the end.
    answers: Option<Answers>,
    chunks: C,
}

impl<C: Chunks> State<C> {
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(line);
            }
            let (chunks, is_end) = match self.answers.as_mut()?.next().await {
                Ok(Some((number, event))) => (self.chunks.event(number, event), false),
                Ok(None) => (self.chunks.end(), true),
                Err(error) => (vec![error.body()], true),
            };
            self.lines.extend(chunks.iter().map(Value::to_string));
            if is_end {
                self.answers = None;
                self.lines.push_back("[DONE]".into());
            }
        }
    }
}
