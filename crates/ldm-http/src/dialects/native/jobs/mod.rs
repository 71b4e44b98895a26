//! Named jobs: handed in, looked at, fetched and stopped by name, whatever becomes of the connection or of the process.

mod events;
mod forecast;
mod hook;
mod image;
#[cfg(test)]
mod keeping;
mod look;
mod replay;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod watching;
pub(super) mod wire;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use ldm_core::{JobId, Violation, Violations};
use ldm_engine::Service;
use ldm_engine::ledger::{Bound, JobView, Phase, Submitted};
use ldm_engine::node::{Encode, Encoded, Named, Node, NodeError};

pub(super) use self::hook::read as hook;
pub(crate) use self::replay::Replays;
use super::body::Body;
use super::order::Order;
use crate::caller::Caller;
use crate::calls::Note;
use crate::codec::{Encoding, Format, write_picture};
use crate::error::ApiError;
use crate::keys::Places;
use crate::{App, dialects};

/// Letters of a client's name or key at most.
const MOST_LETTERS: usize = 128;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/v1/jobs", post(create).get(look::list))
        .route("/v1/jobs/{job}", get(look::show).put(put))
        .route("/v1/jobs/{job}/cancel", post(look::cancel))
        .route("/v1/jobs/{job}/events", get(events::events))
        .route("/v1/jobs/{job}/images/{image}", get(image::image))
}

/// A named job that has ended, as JSON.
pub(crate) fn job_text(node: &Node, view: &JobView) -> String {
    let share = if view.state.phase() == Phase::Succeeded { 1.0 } else { 0.0 };
    wire::Job::kept(view, Some(node.retention()), forecast::Live { share, ..Default::default() }).text()
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
    let Order { mut requests, terms, encoding, hook, .. } = Order::read_any(&app, body).await?;
    caller.check(&requests)?;
    let terms = caller.sign(terms);
    let images = requests.len() as u32;
    if requests.is_empty() {
        return Err(ApiError::internal());
    }
    let request = requests.swap_remove(0);
    let _entering = Places::enter(&app, &caller, 1).await?;
    let after = app.service.estimate(&request, &terms).map_or(Duration::from_secs(1), |estimate| estimate.p50 * images);
    let note = Note::new(images as usize, encoding).text();
    let named = Named { id: JobId::new(), terms, request, images, fingerprint, key, name, note, hook };
    match node.submit(named).await? {
        Submitted::New(view) => accepted(&app, StatusCode::ACCEPTED, &view, after).await,
        Submitted::Existing(view) if view.state.is_terminal() => accepted(&app, StatusCode::OK, &view, after).await,
        Submitted::Existing(view) => accepted(&app, StatusCode::ACCEPTED, &view, after).await,
        Submitted::Conflict(id) => {
            let message = format!("the name or the key is taken by job {id}, which was asked for something else");
            Err(ApiError::new(StatusCode::CONFLICT, "conflict", message).never_again())
        }
        Submitted::Full(full) if full.bound == Bound::Hooks => {
            let message = format!("{} webhooks wait for answers; hand the job in without one, or later", full.limit);
            Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", message).later(full.retry_after))
        }
        Submitted::Full(full) => {
            let message = format!("all {} places of named jobs are taken", full.limit);
            Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", message).later(full.retry_after))
        }
    }
}

async fn accepted(app: &App, status: StatusCode, view: &JobView, after: Duration) -> Result<Response, ApiError> {
    let location = format!("/v1/jobs/{}", view.id);
    let mut response = (status, Json(wire::Job::named(app, view, true).await?)).into_response();
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
    Ok(response)
}

impl From<NodeError> for ApiError {
    fn from(error: NodeError) -> Self {
        tracing::error!(%error, "the keeping of named jobs failed");
        let message = "named jobs cannot be kept just now; the log says more";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ledger", message).later(Duration::from_secs(1))
    }
}
