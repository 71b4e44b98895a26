//! The routes that change models, described.

use serde_json::json;
use utoipa::ToSchema;
use utoipa::openapi::path::HttpMethod;
use utoipa::openapi::schema::Schema;

use super::List;
use crate::openapi::{ADMIN, Document, Object, Op, object, strict};

/// A model, and where its files are.
#[derive(ToSchema)]
#[expect(dead_code, reason = "says what is read")]
struct ModelSource {
    /// The name that requests use: letters, digits and `. _ - / :`.
    #[schema(pattern = "^[A-Za-z0-9._/:-]+$", min_length = 1)]
    id: String,
    /// As the configuration has it.
    #[schema(min_length = 1)]
    path: String,
}

const ERRORS: [u16; 6] = [400, 401, 403, 429, 500, 503];

pub(crate) fn describe(document: &mut Document) {
    let path = "/v1/admin/models";
    let op = Op::get(document, ADMIN, path, "Every worker's models");
    op.answers::<List>(200, "Whether they are loaded, and their bytes.").errors(&ERRORS).done();
    let fields = strict(object::<ModelSource>(), Object::new());
    let body = document.name("ModelSource", Schema::Object(fields));
    let op = Op::post(document, ADMIN, path, "Add a model, or replace the one of that id");
    op.takes("application/json", body, Some(json!({ "id": "sd15", "path": "/models/sd15" })))
        .answers::<List>(200, "The models as they are then.")
        .errors(&ERRORS)
        .errors(&[408, 413, 415, 422])
        .done();
    let id = "The model's id; a `/` in it is written `%2F`.";
    let op = Op::new(document, HttpMethod::Delete, ADMIN, "/v1/admin/models/{id}", "Forget a model").part("id", id);
    op.answers::<List>(200, "The models as they are then.").errors(&ERRORS).errors(&[404, 422]).done();
    let op = Op::post(document, ADMIN, "/v1/admin/models/{id}/reload", "Read a model's files again").part("id", id);
    op.answers::<List>(200, "The models as they are then.").errors(&ERRORS).errors(&[404, 422]).done();
}
