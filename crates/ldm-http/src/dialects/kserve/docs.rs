//! The dialect's routes, described.
#![expect(dead_code, reason = "these types only say what is written")]

use utoipa::ToSchema;

use crate::openapi::{Document, KSERVE, Op};

/// The process answers.
#[derive(ToSchema)]
struct ServerLive {
    live: bool,
}

/// Jobs are taken.
#[derive(ToSchema)]
struct ServerReady {
    ready: bool,
}

/// The program.
#[derive(ToSchema)]
struct ServerMetadata {
    name: String,
    version: String,
    extensions: Vec<String>,
}

/// A model. It has no tensors here: there is no inference by this protocol.
#[derive(ToSchema)]
struct ModelMetadata {
    name: String,
    /// The SHA-256 of its weights, or `1`.
    versions: Vec<String>,
    platform: String,
    inputs: Vec<Object>,
    outputs: Vec<Object>,
}

/// A model, and that it can be asked for.
#[derive(ToSchema)]
struct ModelReady {
    name: String,
    ready: bool,
}

/// Any object.
#[derive(ToSchema)]
#[schema(as = Tensor)]
struct Object {}

pub(crate) fn describe(document: &mut Document) {
    let op = Op::get(document, KSERVE, "/v2/health/live", "Whether the process answers");
    op.open().answers::<ServerLive>(200, "It does.").done();
    let op = Op::get(document, KSERVE, "/v2/health/ready", "Whether jobs are taken");
    op.open().answers::<ServerReady>(200, "They are.").errors(&[503]).done();
    Op::get(document, KSERVE, "/v2", "The program").answers::<ServerMetadata>(200, "Name and version.").done();
    let named = "A model's id.";
    let op = Op::get(document, KSERVE, "/v2/models/{model}", "A model").part("model", named);
    op.answers::<ModelMetadata>(200, "Its name and version.").errors(&[400, 401, 403, 404, 429, 503]).done();
    let op = Op::get(document, KSERVE, "/v2/models/{model}/ready", "Whether a model can be asked for").part("model", named);
    op.answers::<ModelReady>(200, "It can.").errors(&[400, 401, 403, 404, 429, 503]).done();
}
