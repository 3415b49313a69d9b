//! The paths of the server.

mod generate;
mod health;
mod models;
mod tokens;

use crate::error::{ApiError, Kind};
use crate::guard;
use crate::state::App;
use axum::Router;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

/// All paths, with the checks in front of them.
pub(crate) fn router(app: &App) -> Router {
    let keyed = Router::new()
        .route("/v1/chat/completions", post(generate::chat))
        .route("/v1/completions", post(generate::completions))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*name}", get(models::one))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .route("/tokenizer_info", get(tokens::info))
        .route_layer(from_fn_with_state(app.clone(), guard::key));
    let open = Router::new()
        .route("/health", get(health::health))
        .route("/version", get(health::version))
        .route("/metrics", get(health::metrics))
        .route("/openapi.json", get(health::openapi));
    let mut all = keyed
        .merge(open)
        .fallback(unknown)
        .method_not_allowed_fallback(method)
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(app.clone());
    if !app.options().allowed_origins.is_empty() {
        all = all.layer(cors(&app.options().allowed_origins));
    }
    all.layer(from_fn_with_state(app.clone(), guard::place)).layer(from_fn_with_state(app.clone(), guard::log))
}

/// Answers to questions of browsers about pages of other origins.
fn cors(origins: &[String]) -> CorsLayer {
    let layer = CorsLayer::new().allow_methods([Method::GET, Method::POST]).allow_headers(Any);
    match origins.iter().any(|origin| origin == "*") {
        true => layer.allow_origin(Any),
        false => {
            let origins = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
            layer.allow_origin(AllowOrigin::list(origins))
        }
    }
}

async fn unknown(method: Method, uri: Uri) -> ApiError {
    let message = format!("{method} {}: there is no such path; hint: /openapi.json lists them", uri.path());
    ApiError::new(StatusCode::NOT_FOUND, Kind::NotFound, message).code("unknown_path")
}

async fn method(method: Method, uri: Uri) -> Response {
    let message = format!("{method} {}: the path has another method; hint: see the header allow", uri.path());
    let error = ApiError::new(StatusCode::METHOD_NOT_ALLOWED, Kind::InvalidRequest, message);
    error.code("method_not_allowed").into_response()
}

fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    ApiError::server("a defect of the server ended this request; hint: please report it").into_response()
}

/// A response of JSON text.
fn json_text(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}
