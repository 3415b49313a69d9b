//! State of the server.

use super::json_text;
use crate::openapi;
use crate::state::App;
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// `GET /health`: 200 if requests are taken.
pub(super) async fn health(State(app): State<App>) -> Response {
    match app.ready() {
        Ok(_) => Json(json!({"status": "ok"})).into_response(),
        Err(error) => {
            let status = error.code.unwrap_or("unavailable");
            let mut body = error.body();
            body["status"] = status.into();
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
    }
}

/// `GET /version`
pub(super) async fn version() -> Json<serde_json::Value> {
    Json(json!({"version": env!("CARGO_PKG_VERSION")}))
}

/// `GET /metrics`
pub(super) async fn metrics(State(app): State<App>) -> Response {
    let text = app.metrics().text(app.engine().map(|loaded| (loaded.name(), loaded.engine.stats())));
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// `GET /openapi.json`
pub(super) async fn openapi() -> Response {
    json_text(openapi::document().to_string())
}
