//! The dialect's routes, described.

mod jobs;
mod requests;
#[cfg(test)]
mod tests;

use serde_json::json;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::openapi::{RefOr, Response, ResponseBuilder};

use super::wire::{Answer, Estimate, LastError, Models, Named, PngInfo, Preview, Progress, Queued, Samplers};
use crate::openapi::{CATALOGUE, Document, Op, PICTURES, PIXEL, header, text};

/// How a request for pictures may fail.
const DRAWING: [u16; 13] = [400, 401, 403, 406, 408, 409, 413, 415, 422, 429, 500, 503, 504];
/// How a question may.
const ASKING: [u16; 5] = [400, 401, 403, 429, 503];

const FORMS: &str = "The header `accept` chooses the answer's form: JSON, the picture itself, or `text/event-stream`. Events are \
`queued` (`QueuedEvent`), `progress` (`ProgressEvent`), `preview` (`PreviewEvent`), and the last one `result` (`Pictures`) or `error` \
(`ErrorEvent`). Going away cancels, unless the header `x-on-disconnect: continue` is sent: then the pictures wait under the job's id.";

pub(crate) fn describe(document: &mut Document) {
    document.refer::<Queued>();
    document.refer::<Progress>();
    document.refer::<Preview>();
    document.refer::<LastError<'_>>();
    let pictures = document.refer::<Answer>();
    let tasks = requests::tasks(document);
    for task in &tasks {
        let op = Op::post(document, PICTURES, task.path, task.summary).note(FORMS);
        op.fields(task.schema, task.fields.clone(), task.files, task.example.clone())
            .header::<String>("x-on-disconnect", "`cancel` (default) or `continue`.")
            .answer(200, drawn(&pictures))
            .errors(&DRAWING)
            .done();
    }
    let any = any(document, &tasks);
    let op = Op::post(document, PICTURES, "/v1/estimate", "What a request would take").note("Nothing is run.");
    op.takes("application/json", any.clone(), Some(json!({ "task": "txt2img", "prompt": "a lighthouse", "steps": 20 })))
        .answers::<Estimate>(200, "Until the first picture begins and the last is there.")
        .errors(&[400, 401, 403, 408, 413, 415, 422, 429, 503])
        .done();
    let op = Op::post(document, PICTURES, "/v1/png-info", "What a picture's file says of how it was made");
    op.fields("PngInfoOrder", requests::png_info(), &["image"], json!({ "image": PIXEL }))
        .takes("image/png", binary(), None)
        .takes("image/jpeg", binary(), None)
        .takes("image/webp", binary(), None)
        .answers::<PngInfo>(200, "What the file does not say is null.")
        .errors(&[400, 401, 403, 408, 413, 415, 422, 429])
        .done();
    let op = Op::get(document, CATALOGUE, "/v1/models", "Models, and bounds for all");
    op.answers::<Models>(200, "`data` is OpenAI's list, `models` says more.").errors(&ASKING).done();
    let op = Op::get(document, CATALOGUE, "/v1/models/{id}", "A model by its name");
    let op = op.part("id", "The model's id; a `/` in it may be written as it is.");
    op.answers::<Named>(200, "The model.").errors(&ASKING).errors(&[404]).done();
    let op = Op::get(document, CATALOGUE, "/v1/samplers", "Samplers: labels, aliases, schedules");
    op.answers::<Samplers>(200, "All samplers.").errors(&ASKING).done();
    jobs::describe(document, any);
}

/// The pictures in every form.
fn drawn(pictures: &RefOr<Schema>) -> Response {
    let content = |schema: RefOr<Schema>| ContentBuilder::new().schema(Some(schema)).build();
    let events = "event: progress\ndata: {\"image\": 0, \"stage\": \"step\", \"step\": 1, \"steps\": 20}\n\n";
    let events = ContentBuilder::new().schema(Some(text())).example(Some(events.into())).build();
    ResponseBuilder::new()
        .description("The pictures.")
        .content("application/json", content(pictures.clone()))
        .content("image/png", content(binary()))
        .content("image/jpeg", content(binary()))
        .content("image/webp", content(binary()))
        .content("text/event-stream", events)
        .header("x-job-id", header("The jobs that the request became, separated by commas."))
        .build()
}

/// Bytes of a picture's file.
fn binary() -> RefOr<Schema> {
    let kind = "application/octet-stream";
    RefOr::T(ObjectBuilder::new().schema_type(Type::String).content_media_type(kind).into())
}

/// The body of any task, which says which.
fn any(document: &mut Document, tasks: &[requests::Task]) -> RefOr<Schema> {
    let mut all = OneOfBuilder::new().description(Some("The fields of a task, and its name as `task`."));
    for task in tasks {
        let said = requests::said(document, task);
        all = all.item(document.name(&format!("{}Task", task.schema), Schema::Object(said)));
    }
    document.name("AnyTask", Schema::OneOf(all.build()))
}
