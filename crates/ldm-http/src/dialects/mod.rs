//! The ways to speak to the service. A dialect has a folder and a line here; it calls the service and the codec, nothing else.

pub(crate) mod a1111;
pub(crate) mod kserve;
pub(crate) mod native;
pub(crate) mod openai;

use axum::Router;
use axum::http::HeaderValue;

use crate::App;
use crate::error::ApiError;
use crate::openapi::Document;

/// The routes of every dialect.
pub(crate) fn routes() -> Router<App> {
    native::routes().merge(openai::routes()).merge(a1111::routes()).merge(kserve::routes())
}

/// How else than by a bearer token clients of the path's dialect may say who they are.
pub(crate) fn challenge(path: &str) -> Option<HeaderValue> {
    a1111::speaks(path).then_some(HeaderValue::from_static("Basic realm=\"latentd\", charset=\"UTF-8\""))
}

/// The routes of every dialect, described.
pub(crate) fn describe(document: &mut Document) {
    native::docs::describe(document);
    openai::docs::describe(document);
    a1111::docs::describe(document);
    kserve::docs::describe(document);
}

/// An error at that path, as clients of its dialect expect it. OpenAI's errors are the native ones.
pub(crate) fn error_body(path: &str, error: &ApiError, request_id: &str) -> Vec<u8> {
    let body = match a1111::speaks(path) {
        true => serde_json::to_vec(&a1111::error_body(error, request_id)),
        false => serde_json::to_vec(&error.body(request_id)),
    };
    // A struct of strings always becomes JSON.
    body.unwrap_or_default()
}
