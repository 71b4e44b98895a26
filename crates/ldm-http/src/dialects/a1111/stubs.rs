//! Lists of what the web UI has and this server has not: clients ask for them before they do anything else.

use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::App;

/// Lists with nothing in them.
pub(super) const EMPTY: [&str; 8] = [
    "/sdapi/v1/sd-vae",
    "/sdapi/v1/sd-modules",
    "/sdapi/v1/hypernetworks",
    "/sdapi/v1/face-restorers",
    "/sdapi/v1/realesrgan-models",
    "/sdapi/v1/prompt-styles",
    "/sdapi/v1/script-info",
    "/sdapi/v1/extensions",
];
/// What is always up to date.
pub(super) const REFRESH: [&str; 4] =
    ["/sdapi/v1/refresh-checkpoints", "/sdapi/v1/refresh-loras", "/sdapi/v1/refresh-vae", "/sdapi/v1/refresh-embeddings"];

pub(super) fn routes() -> Router<App> {
    let lists = EMPTY.iter().fold(Router::new(), |routes, path| routes.route(path, get(async || Json(json!([])))));
    let routes = REFRESH.iter().fold(lists, |routes, path| routes.route(path, post(async || Json(Value::Null))));
    routes
        .route("/sdapi/v1/embeddings", get(async || Json(json!({ "loaded": {}, "skipped": {} }))))
        .route("/sdapi/v1/scripts", get(async || Json(json!({ "txt2img": [], "img2img": [] }))))
        .route("/sdapi/v1/cmd-flags", get(async || Json(json!({}))))
        .route("/sdapi/v1/memory", get(async || Json(json!({ "ram": {}, "cuda": {} }))))
}
