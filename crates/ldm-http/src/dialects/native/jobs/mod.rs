//! Named jobs: handed in, looked at, fetched and stopped by name, whatever becomes of the connection or of the process.

#[cfg(test)]
mod tests;
pub(super) mod wire;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query as Asked, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use ldm_core::{JobId, Violation, Violations};
use ldm_engine::Service;
use ldm_engine::ledger::{JobState, JobView, Outcome, Query, Submitted};
use ldm_engine::node::{Encode, Encoded, Named, Node, NodeError};
use serde::Deserialize;

use super::body::Body;
use super::order::Order;
use crate::caller::Caller;
use crate::calls::Entry;
use crate::codec::{Encoding, Format, write_picture};
use crate::error::ApiError;
use crate::{App, dialects};

/// Jobs of a page, unless fewer are asked for.
const PAGE: u32 = 50;
/// Letters of a client's name or key at most.
const MOST_LETTERS: usize = 128;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/v1/jobs", post(create).get(list))
        .route("/v1/jobs/{job}", get(show).put(put))
        .route("/v1/jobs/{job}/cancel", post(cancel))
        .route("/v1/jobs/{job}/images/{image}", get(image))
}

fn node(app: &App) -> Result<&Node, ApiError> {
    app.node.as_ref().ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, "not_found", "named jobs are not kept here"))
}

/// Makes the pictures of named jobs: PNGs that say how they were made.
pub fn keeper(service: Service) -> Encode {
    Arc::new(move |output| {
        let catalogue = service.catalogue().ok_or("the models are gone")?;
        let encoding = Encoding { format: Format::Png, quality: None };
        let bytes = write_picture(output, &catalogue, encoding).map_err(|error| error.to_string())?;
        Ok(Encoded { bytes, detail: dialects::native::parameters(&output.request, encoding) })
    })
}

/// A word that a client chose.
fn word(field: &str, text: &str) -> Result<String, ApiError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-:".contains(c);
    if (1..=MOST_LETTERS).contains(&text.len()) && text.chars().all(plain) {
        return Ok(text.to_owned());
    }
    let limit = format!("1 to {MOST_LETTERS} letters, digits and . _ - :");
    let message = format!("`{field}` must be {limit}");
    Err(Violations(vec![Violation::new(field, message, limit, text)]).into())
}

async fn create(State(app): State<App>, caller: Caller, headers: HeaderMap, body: Body) -> Result<Response, ApiError> {
    let key = match headers.get("idempotency-key") {
        None => None,
        Some(key) => Some(word("idempotency-key", key.to_str().unwrap_or_default())?),
    };
    submit(app, caller, body, key, None).await
}

async fn put(State(app): State<App>, caller: Caller, Path(name): Path<String>, body: Body) -> Result<Response, ApiError> {
    let name = word("job", &name)?;
    submit(app, caller, body, None, Some(name)).await
}

async fn submit(app: App, caller: Caller, body: Body, key: Option<String>, name: Option<String>) -> Result<Response, ApiError> {
    let node = node(&app)?.clone();
    let fingerprint = body.fingerprint();
    let Order { mut requests, terms, encoding, .. } = Order::read_any(&app, body).await?;
    if encoding.format != Format::Png {
        let message = "`format` must be png: pictures of named jobs are kept without loss";
        return Err(Violations(vec![Violation::new("format", message, "png", encoding.format.name())]).into());
    }
    caller.check(&requests)?;
    let terms = caller.sign(terms);
    let images = requests.len() as u32;
    if requests.is_empty() {
        return Err(ApiError::internal());
    }
    let request = requests.swap_remove(0);
    let after = app.service.estimate(&request, &terms).map_or(Duration::from_secs(1), |estimate| estimate.p50 * images);
    let named = Named { id: JobId::new(), terms, request, images, fingerprint, key, name };
    match node.submit(named).await? {
        Submitted::New(view) => Ok(accepted(StatusCode::ACCEPTED, &view, after)),
        Submitted::Existing(view) if view.state.is_terminal() => Ok(accepted(StatusCode::OK, &view, after)),
        Submitted::Existing(view) => Ok(accepted(StatusCode::ACCEPTED, &view, after)),
        Submitted::Conflict(id) => {
            let message = format!("the name or the key is taken by job {id}, which was asked for something else");
            Err(ApiError::new(StatusCode::CONFLICT, "conflict", message).never_again())
        }
        Submitted::Full(full) => {
            let message = format!("all {} places of named jobs are taken", full.limit);
            Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", message).later(full.retry_after))
        }
    }
}

fn accepted(status: StatusCode, view: &JobView, after: Duration) -> Response {
    let location = format!("/v1/jobs/{}", view.id);
    let mut response = (status, Json(wire::Job::of(view))).into_response();
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::from_str(&location) {
        headers.insert(header::LOCATION, location);
    }
    if let Ok(id) = HeaderValue::from_str(&view.id.to_string()) {
        headers.insert(HeaderName::from_static("x-job-id"), id);
    }
    if !view.state.is_terminal() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from((after.as_secs_f64().ceil() as u64).max(1)));
    }
    response
}

/// A job that can be looked at.
enum Found {
    /// It outlives its connection.
    Named(Box<JobView>),
    /// It runs for a connection, or did.
    Passing(Arc<Entry>),
}

/// The caller's job of that id or name. Another tenant's job is none of theirs: it is not there.
async fn find(app: &App, caller: &Caller, job: &str) -> Result<Found, ApiError> {
    let (id, tenant) = (job.parse::<JobId>().ok(), caller.tenant());
    if let Some(entry) = id.and_then(|id| app.roll.find(tenant, id)) {
        return Ok(Found::Passing(entry));
    }
    let view = match (&app.node, id) {
        (None, _) => None,
        (Some(node), Some(id)) => node.ledger().get(&[id]).await.map_err(NodeError::from)?.pop(),
        (Some(node), None) => node.ledger().named(tenant, job).await.map_err(NodeError::from)?,
    };
    let view = view.filter(|view| view.tenant == *tenant);
    let absent = || ApiError::new(StatusCode::NOT_FOUND, "no_such_job", format!("there is no job {job:?}, or none any more"));
    view.map(|view| Found::Named(Box::new(view))).ok_or_else(absent)
}

async fn show(State(app): State<App>, caller: Caller, Path(job): Path<String>) -> Result<Json<wire::Job>, ApiError> {
    Ok(Json(match find(&app, &caller, &job).await? {
        Found::Named(view) => wire::Job::of(&view),
        Found::Passing(entry) => wire::Job::passing(&entry),
    }))
}

/// Stops the job; one that has ended stays as it is.
async fn cancel(State(app): State<App>, caller: Caller, Path(job): Path<String>) -> Result<Json<wire::Job>, ApiError> {
    match find(&app, &caller, &job).await? {
        Found::Passing(entry) => {
            entry.cancel();
            Ok(Json(wire::Job::passing(&entry)))
        }
        Found::Named(view) => {
            let now = node(&app)?.cancel(view.id).await.map_err(NodeError::from)?;
            Ok(Json(wire::Job::of(&now.unwrap_or(*view))))
        }
    }
}

/// A finished picture, as it was kept.
async fn image(State(app): State<App>, caller: Caller, Path((job, image)): Path<(String, usize)>) -> Result<Response, ApiError> {
    let absent = |message: String| ApiError::new(StatusCode::NOT_FOUND, "no_such_image", message);
    let Found::Named(view) = find(&app, &caller, &job).await? else {
        return Err(absent("the pictures of this job go to the connection that asked for them alone".to_owned()));
    };
    let JobState::Ended(Outcome::Succeeded { outputs, .. }) = &view.state else {
        return Err(absent(format!("the job has no pictures: it is {}", view.state.name())));
    };
    let last = outputs.len().saturating_sub(1);
    let output = outputs.get(image).ok_or_else(|| absent(format!("the job has pictures 0 to {last}, not {image}")))?;
    let bytes = node(&app)?.objects().get(output).await.map_err(NodeError::from)?;
    let digest = HeaderValue::from_str(&format!("\"{}\"", output.digest)).unwrap_or(HeaderValue::from_static("\"\""));
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("image/png")), (header::ETAG, digest)], bytes).into_response())
}

/// Which page.
#[derive(Debug, Deserialize)]
struct Page {
    before: Option<String>,
    limit: Option<u32>,
}

async fn list(State(app): State<App>, caller: Caller, Asked(page): Asked<Page>) -> Result<Json<wire::Jobs>, ApiError> {
    let before = match &page.before {
        None => None,
        Some(before) => {
            let wrong = || Violations(vec![Violation::new("before", "`before` must be a job's id", "a job's id", before)]);
            Some(before.parse().map_err(|_| wrong())?)
        }
    };
    let limit = page.limit.unwrap_or(PAGE).clamp(1, PAGE);
    let named = match &app.node {
        None => Vec::new(),
        Some(node) => {
            let query = Query { tenant: caller.tenant().clone(), before, limit };
            node.ledger().list(&query).await.map_err(NodeError::from)?.jobs
        }
    };
    let passing = app.roll.list(caller.tenant(), before, limit as usize);
    let named = named.iter().map(|view| (view.id, wire::Job::of(view)));
    let mut jobs: Vec<_> = named.chain(passing.iter().map(|entry| (entry.id(), wire::Job::passing(entry)))).collect();
    jobs.sort_unstable_by_key(|(id, _)| std::cmp::Reverse(*id));
    let full = jobs.len() >= limit as usize;
    jobs.truncate(limit as usize);
    let next = jobs.last().filter(|_| full).map(|(id, _)| id.to_string());
    Ok(Json(wire::Jobs { jobs: jobs.into_iter().map(|(_, job)| job).collect(), next }))
}

impl From<NodeError> for ApiError {
    fn from(error: NodeError) -> Self {
        tracing::error!(%error, "the keeping of named jobs failed");
        let message = "named jobs cannot be kept just now; the log says more";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ledger", message).later(Duration::from_secs(1))
    }
}
