//! How operations fail: one answer for each status and dialect, which operations refer to.

use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::{Ref, RefOr, Response, ResponseBuilder};

use super::Document;
use super::op::header;
use crate::dialects::a1111;
use crate::error::Body;

/// Statuses, the names of their answers, and the codes that come with them.
const ALL: [(u16, &str, &str); 15] = [
    (
        400,
        "BadRequest",
        "`malformed_json`, `malformed_multipart`, `incomplete_body`, `malformed_request`; of OpenAI's routes also `invalid_request`",
    ),
    (401, "Unauthorized", "`unauthorized`: there are keys, and none that is known was shown"),
    (403, "Forbidden", "`forbidden`, `model_forbidden`, `admin_off`: whoever asks may not"),
    (
        404,
        "NotFound",
        "`not_found`, `model_not_found`, `unknown_model`, `no_such_job`, `no_such_image`; of the web UI's routes `HTTPException`",
    ),
    (406, "NotAcceptable", "`not_acceptable`: the header `accept` names no form of an answer"),
    (408, "TooSlow", "`body_too_slow`: the body did not come in time"),
    (
        409,
        "Conflict",
        "`conflict`: the name or key is taken by a job that was asked for something else; `not_finished`: the picture is not there yet",
    ),
    (410, "Gone", "`gone`: there was such a job, and it is not kept any more"),
    (413, "TooLarge", "`body_too_large`, `picture_too_large`"),
    (415, "UnsupportedMediaType", "`unsupported_media_type`: the header `content-type` names none that is read"),
    (422, "Invalid", "`invalid_request`: every violation is listed; `unsupported`: the model cannot do this"),
    (
        429,
        "TooMany",
        "`queue_full`, `too_many_jobs`, `no_memory_for_pictures`, `deadline_unreachable`, `rate_limited`, `too_many_streams`: later it may be taken",
    ),
    (500, "Broken", "`not_finite`, `out_of_memory`, `panicked`, `device`: the job failed; `internal`: something else broke"),
    (503, "Unready", "`loading`, `warming_up`, `draining`, `failed`, `shutting_down`, `worker_lost`, `cancelled`"),
    (504, "TooLate", "`deadline_exceeded`: the deadline passed before the picture was there"),
];

/// What errors look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `{"error": {…}}`, as OpenAI's clients expect it, too.
    Native,
    /// As the web UI and FastAPI write them.
    WebUi,
}

impl Shape {
    fn prefix(self) -> &'static str {
        match self {
            Self::Native => "",
            Self::WebUi => "WebUi",
        }
    }

    /// The answer of that status.
    pub(super) fn refer(self, status: u16) -> RefOr<Response> {
        let name = ALL.iter().find(|(other, ..)| *other == status).map_or("Broken", |(_, name, _)| name);
        RefOr::Ref(Ref::from_response_name(format!("{}{name}", self.prefix())))
    }
}

pub(super) fn describe(document: &mut Document) {
    let shapes = [(Shape::Native, document.refer::<Body<'_>>()), (Shape::WebUi, document.refer::<a1111::docs::Error>())];
    for (shape, schema) in shapes {
        for (status, name, codes) in ALL {
            let content = ContentBuilder::new().schema(Some(schema.clone())).build();
            let mut response = ResponseBuilder::new().description(codes).content("application/json", content);
            if [429, 503].contains(&status) {
                response = response.header("retry-after", header("Seconds after which it is worth another try."));
            }
            if status == 401 {
                response = response.header("www-authenticate", header("How to show a key."));
            }
            document.responses.insert(format!("{}{name}", shape.prefix()), RefOr::T(response.build()));
        }
    }
}
