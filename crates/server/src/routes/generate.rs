//! Requests for answers.

use super::json_text;
use crate::answers::Answers;
use crate::body::Fields;
use crate::error::ApiResult;
use crate::events;
use crate::guard::Caller;
use crate::protocol::chat::{self, ChatChunks};
use crate::protocol::completion::{self, CompletionChunks};
use crate::protocol::sampling::Common;
use crate::state::{App, Loaded};
use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use std::time::Instant;

/// Names of fields in a request that were ignored.
const IGNORED: HeaderName = HeaderName::from_static("x-ignored-fields");

/// `POST /v1/chat/completions`
pub(super) async fn chat(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    mut fields: Fields,
) -> ApiResult<Response> {
    let (arrived, open) = (Instant::now(), app.open());
    let loaded = app.ready()?;
    let request = chat::Request::read(&mut fields, app.options().max_answers)?;
    admit(&app, loaded, &request.common)?;
    let (n, stream, logprobs) = (request.common.n, request.common.stream, request.logprobs);
    let chunks = ChatChunks::new(&app, loaded.name(), &request);
    let generations = app.prepare(move |loaded| request.start(caller.key(), loaded)).await?;
    let answers = Answers::new(&app, loaded.name(), arrived, open, generations);
    let response = match stream {
        true => events::stream(answers, chunks),
        false => json_text(chat::whole(answers, loaded, n, logprobs).await?.to_string()),
    };
    Ok(with_ignored(response, &fields))
}

/// `POST /v1/completions`
pub(super) async fn completions(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    mut fields: Fields,
) -> ApiResult<Response> {
    let (arrived, open) = (Instant::now(), app.open());
    let loaded = app.ready()?;
    let request = completion::Request::read(&mut fields, app.options().max_answers)?;
    admit(&app, loaded, &request.common)?;
    let (view, stream) = (request.view(), request.common.stream);
    let started = app.prepare(move |loaded| request.start(caller.key(), loaded)).await?;
    let answers = Answers::new(&app, loaded.name(), arrived, open, started.generations);
    let response = match stream {
        true => events::stream(answers, CompletionChunks::new(&app, loaded.name(), started.echoes, view)),
        false => json_text(completion::whole(answers, loaded, &started.echoes, view).await?.to_string()),
    };
    Ok(with_ignored(response, &fields))
}

/// Checks the model's name, and records how many tokens are asked for.
fn admit(app: &App, loaded: &Loaded, common: &Common) -> ApiResult<()> {
    loaded.check_name(common.model.as_deref())?;
    if let Some(most) = common.options.max_tokens {
        app.metrics().asked_for(loaded.name(), most);
    }
    Ok(())
}

/// Adds the names of fields that the server does not know.
fn with_ignored(mut response: Response, fields: &Fields) -> Response {
    const MOST: usize = 32;
    let is_name =
        |name: &&str| name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let names: Vec<&str> = fields.unread().filter(is_name).take(MOST).collect();
    if let Ok(value) = HeaderValue::from_str(&names.join(", "))
        && !names.is_empty()
    {
        response.headers_mut().insert(IGNORED, value);
    }
    response
}
