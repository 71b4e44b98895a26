//! Endpoints for those who run the service: alive, ready, metrics. None of them touches a device.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde_json::{Value, json};

use crate::App;
use crate::error::ApiError;

/// The process answers.
pub(crate) async fn livez() -> Json<Value> {
    Json(json!({ "status": "alive" }))
}

/// Jobs are taken: models are loaded and a first picture was made. A full queue is still ready.
pub(crate) async fn readyz(State(app): State<App>) -> Result<Json<Value>, ApiError> {
    app.open().map(|_| Json(json!({ "status": "ready" })))
}

/// Everything that is counted and measured, in Prometheus' text format.
pub(crate) async fn metrics(State(app): State<App>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.metrics.scrape(&app.service))
}
