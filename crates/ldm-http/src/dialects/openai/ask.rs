//! What a body says, JSON or multipart, by OpenAI's names. Unknown fields are left alone, `null` is not said.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use ldm_core::{Violation, Violations};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::parts;
use crate::App;
use crate::error::ApiError;
use crate::multipart;
use crate::negotiate::is_json;

/// The fields of both routes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Ask {
    pub(super) model: Option<String>,
    pub(super) prompt: Option<String>,
    pub(super) n: Option<i64>,
    pub(super) size: Option<String>,
    pub(super) quality: Option<String>,
    pub(super) background: Option<String>,
    pub(super) output_format: Option<String>,
    pub(super) output_compression: Option<i64>,
    pub(super) response_format: Option<String>,
    pub(super) stream: Option<bool>,
    pub(super) partial_images: Option<i64>,
    /// Extensions, by the names of SGLang and vLLM-Omni.
    pub(super) seed: Option<i64>,
    pub(super) negative_prompt: Option<String>,
    pub(super) num_inference_steps: Option<i64>,
    pub(super) guidance_scale: Option<f64>,
    pub(super) width: Option<i64>,
    pub(super) height: Option<i64>,
    /// Our own.
    pub(super) strength: Option<f64>,
    pub(super) sampler: Option<String>,
    pub(super) scheduler: Option<String>,
    /// Of edits in JSON.
    images: Option<Vec<Reference>>,
    mask: Option<Reference>,
    /// Files, as they came.
    #[serde(skip)]
    pub(super) files: Files,
}

/// A picture in a JSON body.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Reference {
    image_url: Option<String>,
    file_id: Option<String>,
}

/// Pictures that came with a body.
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    pub(super) images: Vec<Source>,
    pub(super) mask: Option<Source>,
}

/// A picture as it came.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// A file's bytes.
    File(Bytes),
    /// A `data:` URL.
    Url(String),
}

impl FromRequest<App> for Ask {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let read = async {
            if multipart::is_multipart(request.headers()) {
                return parts::read(multipart::read(request, app).await?);
            }
            if !is_json(request.headers()) {
                let message = "send `content-type: application/json` or `multipart/form-data`";
                return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message));
            }
            let body = Bytes::from_request(request, app).await.map_err(|rejection| match rejection.into_response().status() {
                StatusCode::PAYLOAD_TOO_LARGE => ApiError::body_too_large(app.limits.body_bytes),
                _ => ApiError::new(StatusCode::BAD_REQUEST, "incomplete_body", "the body could not be read to its end"),
            })?;
            let fields = serde_json::from_slice(&body).map_err(|error| ApiError::malformed(&error))?;
            Self::of(fields)
        };
        read.await.inspect_err(|error| app.metrics.rejected(error.code))
    }
}

impl Ask {
    /// The fields of a JSON object.
    pub(super) fn of(fields: Map<String, Value>) -> Result<Self, ApiError> {
        let mut ask: Self = serde_path_to_error::deserialize(Value::Object(fields)).map_err(|error| {
            let field = error.path().to_string();
            let message = format!("`{field}`: {}", error.inner());
            super::check::refused(Violations(vec![Violation::new(&field, message, "see the reference", "")]))
        })?;
        let mut sources = Vec::new();
        for (index, image) in ask.images.take().unwrap_or_default().into_iter().enumerate() {
            sources.push(image.source(&format!("images[{index}]"))?);
        }
        ask.files.images = sources;
        ask.files.mask = ask.mask.take().map(|mask| mask.source("mask")).transpose()?;
        Ok(ask)
    }
}

impl Reference {
    /// Only what stands in the body itself: nothing is fetched for a client, and no files are kept for one.
    fn source(self, field: &str) -> Result<Source, ApiError> {
        let refused =
            |message: String| super::check::refused(Violations(vec![Violation::new(field, message, "a data: URL", "")]));
        match self {
            Self { image_url: Some(url), .. } if url.starts_with("data:") => Ok(Source::Url(url)),
            Self { image_url: Some(_), .. } => {
                Err(refused(format!("`{field}.image_url` must be a data: URL; the server fetches nothing for a client")))
            }
            Self { file_id: Some(_), .. } => Err(refused(format!("`{field}.file_id`: no files are kept here; send a data: URL"))),
            Self { .. } => Err(refused(format!("`{field}` needs `image_url`"))),
        }
    }
}
