//! What a body says, JSON or multipart, by OpenAI's names. Unknown fields are left alone, `null` is not said.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use ldm_core::{Violation, Violations};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::parts;
use crate::App;
use crate::error::ApiError;
use crate::multipart;
use crate::negotiate::is_json;

/// The fields of both routes.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub(super) struct Ask {
    /// A model's id; by default the first one.
    pub(super) model: Option<String>,
    /// What to show.
    #[schema(nullable = false)]
    pub(super) prompt: Option<String>,
    /// How many pictures.
    #[schema(minimum = 1, maximum = 10, default = 1)]
    pub(super) n: Option<i64>,
    /// `WxH`, or `auto`: the model's own; of an edit the picture's shape.
    #[schema(pattern = "^(auto|[0-9]+x[0-9]+)$", example = "512x512", default = "auto")]
    pub(super) size: Option<String>,
    /// `auto`, `standard`, `hd`, `low`, `medium` or `high`; it changes nothing.
    pub(super) quality: Option<String>,
    /// `auto` or `opaque`: pictures have no transparency.
    pub(super) background: Option<String>,
    /// `png`, `jpeg` or `webp`.
    #[schema(default = "png")]
    pub(super) output_format: Option<String>,
    /// The quality.
    #[schema(minimum = 0, maximum = 100, default = 100)]
    pub(super) output_compression: Option<i64>,
    /// `b64_json`, or `url`: a `data:` URL, since nothing is kept.
    #[schema(default = "b64_json")]
    pub(super) response_format: Option<String>,
    /// Whether the answer is a stream of events.
    #[schema(default = false)]
    pub(super) stream: Option<bool>,
    /// Pictures of each that are sent before it is finished, in a stream.
    #[schema(minimum = 0, maximum = 3, default = 0)]
    pub(super) partial_images: Option<i64>,
    // Extensions, by the names of SGLang and vLLM-Omni.
    /// Absent or -1 draws one; picture `i` of several has `seed + i`. Not OpenAI's.
    #[schema(minimum = -1, maximum = 9007199254740991_i64)]
    pub(super) seed: Option<i64>,
    /// What not to show. Not OpenAI's.
    pub(super) negative_prompt: Option<String>,
    /// Steps of the sampler. Not OpenAI's.
    #[schema(minimum = 1)]
    pub(super) num_inference_steps: Option<i64>,
    /// Guidance scale; 1 means none. Not OpenAI's.
    #[schema(minimum = 0)]
    pub(super) guidance_scale: Option<f64>,
    /// Pixels, instead of `size`. Not OpenAI's.
    #[schema(minimum = 1)]
    pub(super) width: Option<i64>,
    /// Pixels, instead of `size`. Not OpenAI's.
    #[schema(minimum = 1)]
    pub(super) height: Option<i64>,
    // Our own.
    /// Of edits: how much of the schedule is run. Not OpenAI's.
    #[schema(exclusive_minimum = 0, maximum = 1)]
    pub(super) strength: Option<f64>,
    /// A name from `GET /v1/samplers`. Not OpenAI's.
    pub(super) sampler: Option<String>,
    /// `default`, `karras` or `exponential`. Not OpenAI's.
    pub(super) scheduler: Option<String>,
    // Of edits in JSON.
    /// The picture that is edited: one.
    #[schema(max_items = 1)]
    images: Option<Vec<Reference>>,
    /// What is transparent here is painted.
    mask: Option<Reference>,
    /// Files, as they came.
    #[serde(skip)]
    #[schema(ignore)]
    pub(super) files: Files,
}

/// A picture in a JSON body.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[schema(as = OpenAiPicture)]
#[serde(default)]
struct Reference {
    /// A `data:` URL; the server fetches nothing for a client.
    image_url: Option<String>,
    /// Refused: no files are kept.
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
