//! KServe's V2 protocol as far as it is about health and metadata, and the health paths of other servers. Pictures are not tensors:
//! inference by this protocol there is none.

pub(crate) mod docs;
#[cfg(test)]
mod tests;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use ldm_core::Model;
use serde_json::{Value, json};

use crate::App;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::ops;

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/healthz", get(ops::livez))
        .route("/v2/health/live", get(live))
        .route("/health", get(ops::readyz))
        .route("/ping", get(ops::readyz))
        .route("/v2/health/ready", get(ready))
        .route("/v2", get(server))
        .route("/v2/models/{model}", get(model))
        .route("/v2/models/{model}/ready", get(model_ready))
}

async fn live() -> Json<Value> {
    Json(json!({ "live": true }))
}

async fn ready(State(app): State<App>) -> Result<Json<Value>, ApiError> {
    app.open().map(|_| Json(json!({ "ready": true })))
}

async fn server() -> Json<Value> {
    Json(json!({ "name": "latentd", "version": env!("CARGO_PKG_VERSION"), "extensions": [] }))
}

/// The model of that name, if it is the caller's to use.
fn find<T>(app: &App, caller: &Caller, name: &str, see: impl FnOnce(&Model) -> T) -> Result<T, ApiError> {
    let catalogue = app.catalogue()?;
    catalogue
        .models
        .iter()
        .find(|model| model.id == name && caller.may_use(name))
        .map(see)
        .ok_or_else(|| ApiError::unknown_model(name))
}

async fn model(State(app): State<App>, caller: Caller, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    let seen = |model: &Model| {
        json!({
            "name": model.id,
            "versions": [Some(&model.weights).filter(|weights| !weights.is_empty()).map_or("1", String::as_str)],
            "platform": "latentd",
            "inputs": [],
            "outputs": [],
        })
    };
    find(&app, &caller, &name, seen).map(Json)
}

/// A model that is served lazily is ready: it is loaded for whoever asks for a picture.
async fn model_ready(State(app): State<App>, caller: Caller, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    app.open()?;
    find(&app, &caller, &name, |model| json!({ "name": model.id, "ready": true })).map(Json)
}
