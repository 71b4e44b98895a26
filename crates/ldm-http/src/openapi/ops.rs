//! The routes that watch the service, described.

use utoipa::ToSchema;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::{Response, ResponseBuilder};

use super::{Document, OPERATIONS, Op, text};

/// The process answers.
#[derive(ToSchema)]
#[expect(dead_code, reason = "says what is written")]
struct Alive {
    #[schema(example = "alive")]
    status: String,
}

/// Jobs are taken.
#[derive(ToSchema)]
#[expect(dead_code, reason = "says what is written")]
struct Ready {
    #[schema(example = "ready")]
    status: String,
    workers: Vec<WorkerState>,
}

/// A worker, and whether it takes jobs.
#[derive(ToSchema)]
#[expect(dead_code, reason = "says what is written")]
struct WorkerState {
    name: String,
    /// `loading`, `warming_up`, `ready` or `failed`.
    state: String,
    /// Why it failed.
    #[schema(required = false, value_type = String)]
    reason: Option<String>,
}

fn plain(kind: &str, about: &str) -> Response {
    ResponseBuilder::new().description(about).content(kind, ContentBuilder::new().schema(Some(text())).build()).build()
}

pub(super) fn describe(document: &mut Document) {
    for path in ["/livez", "/healthz"] {
        Op::get(document, OPERATIONS, path, "Whether the process answers").open().answers::<Alive>(200, "It does.").done();
    }
    for path in ["/readyz", "/health", "/ping"] {
        let op = Op::get(document, OPERATIONS, path, "Whether jobs are taken").note("A full queue is ready: it answers `429`.");
        op.open().answers::<Ready>(200, "They are.").errors(&[503]).done();
    }
    let op = Op::get(document, OPERATIONS, "/metrics", "What is counted and measured");
    op.answer(200, plain("text/plain", "Prometheus' text format.")).errors(&[401, 403]).done();
    let op = Op::get(document, OPERATIONS, "/openapi.json", "This document");
    let any = ContentBuilder::new().schema(Some(utoipa::openapi::schema::Object::new())).build();
    op.answer(200, ResponseBuilder::new().description("OpenAPI 3.1.").content("application/json", any).build()).done();
    let op = Op::get(document, OPERATIONS, "/docs", "The reference as a page");
    op.answer(200, plain("text/html", "One page that loads nothing but `/openapi.json`.")).done();
}
