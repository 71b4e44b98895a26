//! One record per request: its id, its jobs, its place in a trace, how it was answered, where the time went. Whoever lets go of
//! it last has it written.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::body::Body;
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ldm_core::{JobId, Tenant, Timings};
use tracing::{Instrument, Span};

use crate::error::ApiError;
use crate::timing::Stages;
use crate::trace::{self, Parent};
use crate::{App, Metrics, dialects, request_id};

/// What stands for an answer that the client did not wait for, as in nginx.
const CLIENT_GONE: u16 = 499;
/// The header that names the jobs.
const JOB_HEADER: HeaderName = HeaderName::from_static("x-job-id");
/// The header that says where the time went.
const TIMING_HEADER: HeaderName = HeaderName::from_static("server-timing");

/// A handle to the record. An event stream holds one, so that the record covers the whole stream.
#[derive(Clone)]
pub(crate) struct Access(Arc<Record>);

struct Record {
    request_id: String,
    method: Method,
    route: String,
    path: String,
    started: Instant,
    at: SystemTime,
    metrics: Arc<Metrics>,
    span: Span,
    /// The answer's `traceparent`.
    trace: Option<String>,
    told: Mutex<Told>,
    /// Bytes of a body at most.
    body_bytes: usize,
}

#[derive(Default)]
struct Told {
    status: Option<StatusCode>,
    jobs: Vec<JobId>,
    stages: Stages,
    tenant: Option<Tenant>,
}

impl Access {
    fn begin(request: &Request, app: &App) -> Self {
        let matched = request.extensions().get::<MatchedPath>();
        let route = matched.map_or("unmatched", MatchedPath::as_str).to_owned();
        let request_id = request_id::of(request.headers());
        let span =
            tracing::info_span!("request", request_id, method = %request.method(), route, trace_id = tracing::field::Empty);
        let parent = Parent::of(request.headers());
        if let Some(parent) = &parent {
            app.spans.adopt(&span, parent);
            span.record("trace_id", parent.trace());
        }
        let trace = app.spans.name(&span).or_else(|| parent.map(|parent| parent.text().to_owned()));
        let path = request.uri().path().to_owned();
        let (method, metrics) = (request.method().clone(), Arc::clone(&app.metrics));
        let (started, at, told) = (Instant::now(), SystemTime::now(), Mutex::default());
        let body_bytes = app.limits.body_bytes;
        Self(Arc::new(Record { request_id, method, route, path, started, at, metrics, span, trace, told, body_bytes }))
    }

    /// The request's id.
    pub(crate) fn request_id(&self) -> &str {
        &self.0.request_id
    }

    /// When the request came.
    pub(crate) fn started(&self) -> Instant {
        self.0.started
    }

    /// The same as a date, in the web UI's digits.
    pub(crate) fn time(&self) -> String {
        stamp(self.0.at)
    }

    /// The request's span.
    pub(crate) fn span(&self) -> &Span {
        &self.0.span
    }

    /// It is on behalf of that tenant.
    pub(crate) fn tenant(&self, tenant: &Tenant) {
        self.tell(|told| told.tenant = Some(tenant.clone()));
    }

    /// These jobs came out of it.
    pub(crate) fn jobs(&self, jobs: impl IntoIterator<Item = JobId>) {
        self.tell(|told| told.jobs = jobs.into_iter().collect());
    }

    /// One of its pictures took that long.
    pub(crate) fn picture(&self, job: Timings, image: Duration) {
        self.tell(|told| told.stages.add(job, image));
    }

    /// Where the time went so far, as `Server-Timing` says it.
    pub(crate) fn timing(&self) -> String {
        self.tell(|told| told.stages).header(self.0.started.elapsed())
    }

    fn tell<T>(&self, tell: impl FnOnce(&mut Told) -> T) -> T {
        tell(&mut self.0.told.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The answer with the headers that every answer has, and with its error written out.
    fn finish(&self, response: Response) -> Response {
        let mut response = refused(response, self.0.body_bytes);
        let jobs = self.tell(|told| {
            told.status = Some(response.status());
            names(&told.jobs)
        });
        if let Some(error) = response.extensions_mut().remove::<ApiError>() {
            let body = dialects::error_body(&self.0.path, &error, self.request_id());
            *response.body_mut() = Body::from(body);
            if let Some(challenge) = dialects::challenge(&self.0.path).filter(|_| error.status == StatusCode::UNAUTHORIZED) {
                response.headers_mut().append(header::WWW_AUTHENTICATE, challenge);
            }
            response.headers_mut().remove(header::CONTENT_LENGTH);
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let trace = self.0.trace.clone().unwrap_or_default();
        let named = [
            (request_id::HEADER, self.request_id()),
            (JOB_HEADER, jobs.as_str()),
            (TIMING_HEADER, &self.timing()),
            (trace::HEADER, &trace),
        ];
        for (name, value) in named {
            if let Ok(value) = HeaderValue::from_str(value)
                && !value.is_empty()
            {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

/// What the framework refuses by itself, in a plain text, as an error like the others: a part of a path or a query that is none, a body
/// beyond the limit.
fn refused(response: Response, body_bytes: usize) -> Response {
    let kind = response.headers().get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    if !response.status().is_client_error() || !kind.starts_with(b"text/plain") {
        return response;
    }
    let error = match response.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::body_too_large(body_bytes),
        status => ApiError::new(status, "malformed_request", "the path or the query cannot be read as it must be here"),
    };
    error.into_response()
}

/// Year, month, day, hour, minute and second, in UTC, without anything between them.
pub(crate) fn stamp(at: SystemTime) -> String {
    chrono::DateTime::<chrono::Utc>::from(at).format("%Y%m%d%H%M%S").to_string()
}

fn names(jobs: &[JobId]) -> String {
    jobs.iter().map(JobId::to_string).collect::<Vec<_>>().join(",")
}

impl Drop for Record {
    fn drop(&mut self) {
        let told = self.told.get_mut().unwrap_or_else(PoisonError::into_inner);
        let status = told.status.map_or(CLIENT_GONE, |status| status.as_u16());
        let took = self.started.elapsed();
        self.metrics.answered(&self.route, status, took);
        tracing::info!(
            method = %self.method,
            route = self.route,
            status,
            duration_ms = took.as_millis() as u64,
            request_id = self.request_id,
            trace = self.trace,
            jobs = names(&told.jobs),
            tenant = told.tenant.as_ref().map(Tenant::name),
            "request"
        );
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Access {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<Access>().cloned().ok_or_else(ApiError::internal)
    }
}

/// Keeps the record of a request.
pub(crate) async fn track(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let access = Access::begin(&request, &app);
    request.extensions_mut().insert(access.clone());
    let response = next.run(request).instrument(access.span().clone()).await;
    access.finish(response)
}

#[cfg(test)]
mod tests {
    use crate::testing::{get, house};

    #[tokio::test]
    async fn what_the_framework_refuses_is_an_error_like_others() {
        let (router, _) = house().await;
        for path in ["/v1/jobs/%FF", "/v1/jobs/%FF/events", "/v1/models/%FF"] {
            let answer = get(&router, path).await;
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "malformed_request"), "{path}");
            assert_eq!(answer.header("content-type"), "application/json", "{path}");
        }
        let answer = get(&router, "/sdapi/v1/progress?skip_current_image=perhaps").await;
        assert_eq!((answer.status.as_u16(), &answer.json()["error"]), (400, &serde_json::json!("malformed_request")));
    }
}
