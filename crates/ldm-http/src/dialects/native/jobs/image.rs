//! A named job's pictures: kept as PNGs without loss, written as whoever fetches them likes.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ldm_engine::ledger::{JobState, ObjectRef, Outcome, Phase};
use ldm_engine::node::NodeError;
use ldm_engine::objects::ObjectError;

use super::look::{Found, find};
use super::node;
use crate::App;
use crate::caller::Caller;
use crate::calls::Note;
use crate::codec::{self, Encoding, Format, read_picture};
use crate::error::ApiError;
use crate::metadata::{self, Notes};
use crate::negotiate;

/// Pictures are somebody's own, and a name may be another job's tomorrow: ask each time, which costs a few bytes.
const CACHE: HeaderValue = HeaderValue::from_static("private, no-cache");

/// A finished picture.
pub(super) async fn image(
    State(app): State<App>,
    caller: Caller,
    Path((job, image)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let absent = |message: String| ApiError::new(StatusCode::NOT_FOUND, "no_such_image", message);
    let Found::Named(view) = find(&app, &caller, &job).await? else {
        return Err(absent("the pictures of this job go to the connection that asked for them alone".to_owned()));
    };
    let note = Note::read(&view.note);
    let count = match &view.state {
        JobState::Ended(Outcome::Succeeded { outputs, .. }) => outputs.len(),
        _ => note.images,
    };
    let index = image.parse::<usize>().ok();
    if count > 0 && index.is_none_or(|index| index >= count) {
        return Err(absent(format!("the job has pictures 0 to {}, not {image:?}", count - 1)));
    }
    let outputs = match &view.state {
        JobState::Ended(Outcome::Succeeded { outputs, .. }) => outputs,
        state if matches!(state.phase(), Phase::Queued | Phase::Running) => {
            let message = format!("the picture is not there yet: the job is {}", state.name());
            let wait = std::time::Duration::from_secs(1);
            return Err(ApiError::new(StatusCode::CONFLICT, "not_finished", message).later(wait));
        }
        state => return Err(absent(format!("the job has no pictures: it is {}", state.name()))),
    };
    let output = index.and_then(|index| outputs.get(index)).ok_or_else(|| absent(format!("there is no picture {image:?}")))?;
    let encoding = chosen(&headers, note.encoding())?;
    let tag = tag(output, encoding);
    let common = [(header::ETAG, value(&tag)), (header::CACHE_CONTROL, CACHE), (header::VARY, value("accept"))];
    if has(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, common).into_response());
    }
    let file = match node(&app)?.objects().get(output).await {
        Ok(file) => file,
        Err(ObjectError::Missing(_)) => return Err(ApiError::gone()),
        Err(error) => return Err(NodeError::from(error).into()),
    };
    let file = match encoding.format {
        Format::Png => file,
        _ => app.codec.run(move || rewritten(&file, encoding)).await??.into(),
    };
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static(encoding.format.mime()));
    let name = (HeaderName::from_static("x-job-id"), value(&view.id.to_string()));
    Ok((common, [kind, name], file).into_response())
}

/// The format that is liked best; the job's own among equals. The job's quality goes with its own format.
fn chosen(headers: &HeaderMap, own: Encoding) -> Result<Encoding, ApiError> {
    let refused =
        || ApiError::new(StatusCode::NOT_ACCEPTABLE, "not_acceptable", "a picture can be image/png, image/jpeg or image/webp");
    let format = negotiate::picture(headers, own.format).ok_or_else(refused)?;
    Ok(if format == own.format { own } else { Encoding { format, quality: None } })
}

/// Names the file: that of the PNG by its digest, others by how they are made of it.
fn tag(output: &ObjectRef, encoding: Encoding) -> String {
    let quality = encoding.resolved_quality().map(|quality| format!("-{quality}")).unwrap_or_default();
    match encoding.format {
        Format::Png => format!("\"{}\"", output.digest),
        format => format!("\"{}-{}{quality}\"", output.digest, format.name()),
    }
}

/// Whether the client has the file of that tag (`If-None-Match`, compared weakly).
fn has(headers: &HeaderMap, tag: &str) -> bool {
    let said = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = said.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|said| said == "*" || said.strip_prefix("W/").unwrap_or(said) == tag)
}

fn value(text: &str) -> HeaderValue {
    // Digests and names of formats are plain.
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

/// The same picture in another format, which says of itself what the kept file says.
fn rewritten(file: &[u8], encoding: Encoding) -> Result<Vec<u8>, ApiError> {
    let broken = |error: String| {
        tracing::error!(error, "a kept picture could not be written in another format");
        ApiError::internal()
    };
    // It was made here: requests bound it, not what clients may send.
    let picture = read_picture(file, u64::from(u32::MAX)).map_err(|error| broken(error.to_string()))?;
    let said = metadata::read(file).map_err(|error| broken(error.to_string()))?;
    let notes = Notes::again(said, encoding.format.name(), encoding.resolved_quality());
    codec::encode(&picture, encoding, Some(&notes)).map_err(|error| broken(error.to_string()))
}
