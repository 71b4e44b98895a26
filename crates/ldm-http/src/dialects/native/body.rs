//! A request's body as it came: JSON, or a form with pictures as files.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use sha2::{Digest, Sha256};

use crate::App;
use crate::error::ApiError;
use crate::multipart::{self, Part};
use crate::negotiate::is_json;

/// A body that says what it is.
#[derive(Clone, Debug)]
pub(super) enum Body {
    /// `application/json`.
    Json(Bytes),
    /// `multipart/form-data`.
    Form(Vec<Part>),
}

impl Body {
    /// Bytes of what was said.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Json(bytes) => bytes.len(),
            Self::Form(parts) => parts.iter().map(|part| part.name.len() + part.bytes.len()).sum(),
        }
    }

    /// The same for bodies that say the same: a form's boundary says nothing.
    pub(super) fn fingerprint(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        match self {
            Self::Json(bytes) => digest.update(bytes),
            Self::Form(parts) => {
                for Part { name, filename, bytes, .. } in parts {
                    digest.update(format!("{}:{name}{}{}:", name.len(), u8::from(filename.is_some()), bytes.len()));
                    digest.update(bytes);
                }
            }
        }
        digest.finalize().into()
    }
}

impl FromRequest<App> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        read(request, app).await.inspect_err(|error| app.metrics.rejected(error.code))
    }
}

async fn read(request: Request, app: &App) -> Result<Body, ApiError> {
    if multipart::is_multipart(request.headers()) {
        return multipart::read(request, app).await.map(Body::Form);
    }
    if !is_json(request.headers()) {
        let message = "send the header `content-type: application/json`, or a form as `multipart/form-data`";
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message));
    }
    bytes(request, app).await.map(Body::Json)
}

/// A body as it comes, whole.
pub(super) async fn bytes(request: Request, app: &App) -> Result<Bytes, ApiError> {
    Bytes::from_request(request, app).await.map_err(|rejection| match rejection.into_response().status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::body_too_large(app.limits.body_bytes),
        _ => ApiError::new(StatusCode::BAD_REQUEST, "incomplete_body", "the body could not be read to its end"),
    })
}
