//! The list of models.

use crate::error::ApiResult;
use crate::state::{App, Loaded};
use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

/// `GET /v1/models`
pub(super) async fn list(State(app): State<App>) -> ApiResult<Json<Value>> {
    let loaded = app.ready()?;
    let models: Vec<Value> = loaded.names.iter().map(|name| model(&app, loaded, name)).collect();
    Ok(Json(json!({"object": "list", "data": models})))
}

/// `GET /v1/models/NAME`
pub(super) async fn one(State(app): State<App>, Path(name): Path<String>) -> ApiResult<Json<Value>> {
    let loaded = app.ready()?;
    loaded.check_name(Some(&name))?;
    Ok(Json(model(&app, loaded, &name)))
}

fn model(app: &App, loaded: &Loaded, name: &str) -> Value {
    json!({
        "id": name, "object": "model", "created": app.started(), "owned_by": "phi3-run", "root": loaded.name(), "parent": null,
        "max_model_len": loaded.context(),
    })
}
