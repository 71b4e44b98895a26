//! `/openapi.json` and `/docs`: the document, and a page that shows it and lets operations be tried.

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;

use super::openapi;
use crate::App;

/// One file without parts elsewhere: it works offline.
const PAGE: &str = include_str!("../../assets/docs.html");
/// The page speaks to this service alone, whatever is put into it.
const POLICY: &str = "default-src 'none'; connect-src 'self'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(crate) fn routes() -> Router<App> {
    Router::new().route("/openapi.json", get(document)).route("/docs", get(page))
}

async fn document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], openapi())
}

async fn page() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, POLICY)], PAGE)
}
