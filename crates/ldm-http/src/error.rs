//! The one shape in which anything that went wrong leaves the service.

use std::any::Any;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ldm_core::{Ending, Failure, FailureKind, Violation, Violations};
use ldm_engine::{Readiness, Refused};
use serde::Serialize;
use utoipa::ToSchema;

/// Loading models takes about this long, as far as clients are concerned.
const LOADING: Duration = Duration::from_secs(5);
/// Another process should have taken over by then.
const ELSEWHERE: Duration = Duration::from_secs(10);

/// All that is said of a device that is out of service.
pub(crate) const OUT_OF_SERVICE: &str = "out of service; the log says why";

/// What went wrong. The access record, which knows the request's id, writes the body.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    /// A word on which programs choose.
    pub(crate) code: &'static str,
    /// A sentence for a person.
    pub(crate) message: String,
    pub(crate) violations: Vec<Violation>,
    pub(crate) retry_after: Option<Duration>,
    /// A device has worked on it, so that clients shall not try again by themselves.
    pub(crate) worked: bool,
}

/// The body: `{"error": {...}}`.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub(crate) struct Body<'a> {
    error: Inner<'a>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ErrorDetails)]
struct Inner<'a> {
    code: &'a str,
    message: &'a str,
    /// The kind of error, by OpenAI's names.
    r#type: &'static str,
    /// The first field at fault, as OpenAI's clients look for it.
    param: Option<&'a str>,
    request_id: &'a str,
    violations: Vec<WireViolation<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Violation)]
struct WireViolation<'a> {
    field: &'a str,
    message: &'a str,
    limit: Option<&'a str>,
    value: Option<&'a str>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), violations: Vec::new(), retry_after: None, worked: false }
    }

    pub(crate) fn later(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// Trying again gives the same.
    pub(crate) fn never_again(self) -> Self {
        Self { worked: true, ..self }
    }

    /// Jobs are not taken now.
    pub(crate) fn unready(readiness: &Readiness) -> Self {
        let (code, message, after) = match readiness {
            Readiness::Loading => ("loading", "the models are being loaded".to_owned(), LOADING),
            Readiness::WarmingUp => ("warming_up", "a first picture is being made".to_owned(), LOADING),
            Readiness::Draining => ("draining", "the service is shutting down".to_owned(), ELSEWHERE),
            Readiness::Failed(_) => ("failed", format!("every device is {OUT_OF_SERVICE}"), ELSEWHERE),
            Readiness::Ready => ("loading", "the catalogue is not known yet".to_owned(), LOADING),
        };
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message).later(after)
    }

    /// All places are taken.
    pub(crate) fn full(limit: usize, retry_after: Duration) -> Self {
        let message = format!("all {limit} places are taken");
        Self::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", message).later(retry_after)
    }

    /// A body that does not say that it is JSON.
    pub(crate) fn not_json() -> Self {
        let message = "send the header `content-type: application/json`";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
    }

    /// A body that is no JSON.
    pub(crate) fn malformed(error: &serde_json::Error) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed_json", format!("the body is no JSON: {error}"))
    }

    /// A body of more bytes than are taken.
    pub(crate) fn body_too_large(limit: usize) -> Self {
        let message = format!("the body is larger than {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    }

    /// No model of that name, by OpenAI's word.
    pub(crate) fn unknown_model(name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "model_not_found", format!("there is no model {name:?} here"))
    }

    /// Who asks has not shown that they may.
    pub(crate) fn unauthorized(message: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    /// Something broke that should not.
    pub(crate) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "something broke here; the log says more")
    }

    /// The body for the request of that id.
    pub(crate) fn body<'a>(&'a self, request_id: &'a str) -> Body<'a> {
        let violations = self.violations.iter().map(|violation| WireViolation {
            field: &violation.field,
            message: &violation.message,
            limit: violation.limit.as_deref(),
            value: violation.value.as_deref(),
        });
        let retry_after_ms = self.retry_after.map(|after| u64::try_from(after.as_micros().div_ceil(1000)).unwrap_or(u64::MAX));
        let violations = violations.collect();
        let (r#type, param) = (self.kind(), self.violations.first().map(|violation| violation.field.as_str()));
        Body { error: Inner { code: self.code, message: &self.message, r#type, param, request_id, violations, retry_after_ms } }
    }

    /// The kind of error, by OpenAI's names.
    fn kind(&self) -> &'static str {
        match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            429 => "rate_limit_error",
            400..=499 => "invalid_request_error",
            _ => "server_error",
        }
    }
}

impl From<Violations> for ApiError {
    fn from(violations: Violations) -> Self {
        let mut error = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_request", violations.to_string());
        error.violations = violations.0;
        error
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        let message = refused.to_string();
        match refused {
            Refused::NotReady => Self::unready(&Readiness::Loading),
            Refused::Draining => Self::unready(&Readiness::Draining),
            Refused::Failed(reason) => Self::unready(&Readiness::Failed(reason)),
            Refused::Full { limit, retry_after } => Self::full(limit, retry_after),
            Refused::TenantFull { retry_after, .. } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_jobs", message).later(retry_after)
            }
            Refused::NoRoom { limit, needed, .. } if needed > limit => {
                let message = format!("the request needs {needed} bytes of memory, and all requests together may hold {limit}");
                Violations(vec![Violation::new("body", message, format!("at most {limit} bytes"), needed)]).into()
            }
            Refused::NoRoom { retry_after, .. } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "no_memory_for_pictures", message).later(retry_after)
            }
            Refused::Deadline { retry_after: Some(after), .. } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "deadline_unreachable", message).later(after)
            }
            Refused::Deadline { deadline, needed, retry_after: None } => {
                let limit = format!("at least {}", needed.as_millis());
                Violations(vec![Violation::new("deadline_ms", message, limit, deadline.as_millis())]).into()
            }
            Refused::TooMany { asked, limit } => {
                Violations(vec![Violation::new("images", message, format!("1..={limit}"), asked)]).into()
            }
            Refused::Unsupported(failure) => failure.into(),
        }
    }
}

/// What a client is told of a failure. What a device or a panic says is for the log: it names files, lines and addresses.
pub(crate) fn told(kind: FailureKind, message: String) -> String {
    let said = match kind {
        FailureKind::Device => "the device failed at this picture; the log says why",
        FailureKind::Panicked => "something broke while this picture was made; the log says why",
        FailureKind::OutOfMemory => "the device has too little memory for this picture",
        _ => return message,
    };
    said.to_owned()
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        let code = failure.kind.name();
        let failure = Failure { message: told(failure.kind, failure.message), ..failure };
        match failure.kind {
            FailureKind::Unsupported => Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, failure.message),
            FailureKind::ShuttingDown => Self::new(StatusCode::SERVICE_UNAVAILABLE, code, failure.message).later(ELSEWHERE),
            FailureKind::DeadlineExceeded => Self::new(StatusCode::GATEWAY_TIMEOUT, code, failure.message),
            FailureKind::WorkerLost => Self::new(StatusCode::SERVICE_UNAVAILABLE, code, failure.message).later(ELSEWHERE),
            FailureKind::NotFinite | FailureKind::OutOfMemory | FailureKind::Panicked | FailureKind::Device => {
                Self { worked: true, ..Self::new(StatusCode::INTERNAL_SERVER_ERROR, code, failure.message) }
            }
        }
    }
}

/// The picture of a job that ended well.
pub(crate) fn finished(ending: Ending) -> Result<ldm_core::Output, ApiError> {
    match ending {
        Ending::Finished(output) => Ok(output),
        Ending::Failed(failure) => Err(failure.into()),
        Ending::Cancelled => {
            Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "cancelled", "the job was cancelled").later(ELSEWHERE))
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        if let Some(after) = self.retry_after {
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.worked {
            let never = HeaderValue::from_static("false");
            response.headers_mut().insert(HeaderName::from_static("x-should-retry"), never);
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// No such path.
pub(crate) async fn not_found() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path")
}

/// No such method; axum adds `Allow`.
pub(crate) async fn method_not_allowed() -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path does not take this method; see `Allow`")
}

/// A handler panicked.
pub(crate) fn panicked(payload: Box<dyn Any + Send + 'static>) -> Response {
    let said = payload.downcast_ref::<String>().map(String::as_str).or_else(|| payload.downcast_ref::<&str>().copied());
    tracing::error!(panic = said.unwrap_or("not a text"), "a handler panicked");
    ApiError::internal().into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_library_says_stays_here() {
        let said = "Exception raised from launch at /build/aten/Kernel.cpp:12 (most recent call first): frame #0: 0x7f";
        for kind in [FailureKind::Device, FailureKind::Panicked, FailureKind::OutOfMemory] {
            let message = ApiError::from(Failure::new(kind, said)).message;
            assert!(!message.contains('/') && !message.contains("frame") && !message.is_empty(), "{kind:?}: {message}");
        }
        let unready = ApiError::unready(&Readiness::Failed(said.to_owned()));
        assert_eq!(unready.message, "every device is out of service; the log says why");
        let own = Failure::new(FailureKind::Unsupported, "the model has no inpainting");
        assert_eq!(ApiError::from(own).message, "the model has no inpainting");
    }
}
