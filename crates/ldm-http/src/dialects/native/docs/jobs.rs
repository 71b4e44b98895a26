//! Named jobs, described.

use serde_json::json;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::HttpMethod;
use utoipa::openapi::schema::Schema;
use utoipa::openapi::{RefOr, Response, ResponseBuilder};

use super::super::jobs::wire::{Job, Jobs};
use super::binary;
use crate::openapi::{Document, JOBS, Op, header};

/// How handing one in may fail.
const HANDING: [u16; 11] = [400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 503];
/// How a look at one may.
const LOOKING: [u16; 7] = [400, 401, 403, 404, 410, 429, 503];

pub(super) fn describe(document: &mut Document, any: RefOr<Schema>) {
    let job = document.refer::<Job>();
    let example = json!({ "task": "txt2img", "prompt": "a lighthouse", "seed": 7 });
    let op = Op::post(document, JOBS, "/v1/jobs", "Hand a job in")
        .note("With `idempotency-key` the same key and body is the same job.");
    op.header::<String>("idempotency-key", "1 to 128 letters, digits and `. _ - :`.")
        .takes("application/json", any.clone(), Some(example.clone()))
        .answer(202, accepted("It waits or runs.", &job))
        .answer(200, accepted("It has ended already.", &job))
        .errors(&HANDING)
        .done();
    let op = Op::new(document, HttpMethod::Put, JOBS, "/v1/jobs/{job}", "Hand a job in under a name of yours");
    op.part("job", "1 to 128 letters, digits and `. _ - :`.")
        .takes("application/json", any, Some(example))
        .answer(202, accepted("It waits or runs.", &job))
        .answer(200, accepted("It has ended already.", &job))
        .errors(&HANDING)
        .done();
    let op = Op::get(document, JOBS, "/v1/jobs", "Your jobs, the newest first");
    op.query::<String>("before", "A job's id: jobs that came before it. `next` of an answer goes on.")
        .query::<u32>("limit", "Jobs of a page: 1 to 50, which is the default.")
        .query::<String>("state", "Only jobs in that state; several with commas.")
        .answers::<Jobs>(200, "A page.")
        .errors(&[400, 401, 403, 422, 429, 503])
        .done();
    let named = "Its id, or the name that it was given.";
    let op = Op::get(document, JOBS, "/v1/jobs/{job}", "How far a job is").part("job", named);
    op.answers::<Job>(200, "The job.").errors(&LOOKING).done();
    let op = Op::post(document, JOBS, "/v1/jobs/{job}/cancel", "Stop a job").part("job", named);
    let op = op.note("It ends at its next step at the latest; one that has ended stays as it is.");
    op.answers::<Job>(200, "The job.").errors(&LOOKING).done();
    let op = Op::get(document, JOBS, "/v1/jobs/{job}/events", "What happens to a job").part("job", named);
    let events = ContentBuilder::new().example(Some(EVENTS.into())).build();
    let events = ResponseBuilder::new().description("Until its end.").content("text/event-stream", events).build();
    op.note("Events have an `id`; with `last-event-id` the stream goes on behind that one. Going away stops nothing.")
        .header::<String>("last-event-id", "The id of the last event that was seen.")
        .answer(200, events)
        .answer(
            204,
            ResponseBuilder::new().description("It has ended, and that was seen: there is nothing more to come.").build(),
        )
        .errors(&LOOKING)
        .done();
    let op = Op::get(document, JOBS, "/v1/jobs/{job}/images/{image}", "A picture of a job that succeeded").part("job", named);
    let mut picture = ResponseBuilder::new().description("The picture, as `accept` or the job's `format` says.");
    for kind in ["image/png", "image/jpeg", "image/webp"] {
        picture = picture.content(kind, ContentBuilder::new().schema(Some(binary())).build());
    }
    let picture = picture.header("etag", header("Names the file: send it as `if-none-match`.")).build();
    op.number("image", "Which one, counted from 0.")
        .header::<String>("if-none-match", "An `etag`: 304 when the file is still that one.")
        .answer(200, picture)
        .answer(304, ResponseBuilder::new().description("It is the file that the client has.").build())
        .errors(&[400, 401, 403, 404, 406, 409, 410, 429, 500, 503])
        .done();
}

const EVENTS: &str = "id: 3\nevent: progress\ndata: {\"image\": 0, \"stage\": \"step\", \"step\": 1, \"steps\": 20}\n\n";

fn accepted(about: &str, job: &RefOr<Schema>) -> Response {
    let content = ContentBuilder::new().schema(Some(job.clone())).build();
    ResponseBuilder::new()
        .description(about)
        .content("application/json", content)
        .header("location", header("Where the job is."))
        .header("retry-after", header("Seconds after which it is worth a look; absent when it has ended."))
        .build()
}
