//! What a body says, with the defaults of `modules/processing.py`.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use ldm_core::{Violation, Violations};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::App;
use crate::error::ApiError;

/// A JSON body, whatever its content type says; an empty one is an empty object.
pub(super) struct Body(pub(super) Bytes);

impl FromRequest<App> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let read = Bytes::from_request(request, app).await.map_err(|rejection| match rejection.into_response().status() {
            StatusCode::PAYLOAD_TOO_LARGE => ApiError::body_too_large(app.limits.body_bytes),
            _ => ApiError::new(StatusCode::BAD_REQUEST, "incomplete_body", "the body could not be read to its end"),
        });
        read.map(Self).inspect_err(|error| app.metrics.rejected(error.code))
    }
}

impl Body {
    /// The body as an object, and as what it says.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<(Map<String, Value>, T), ApiError> {
        let body: &[u8] = if self.0.is_empty() { b"{}" } else { &self.0 };
        let said: Map<String, Value> = serde_json::from_slice(body).map_err(|error| ApiError::malformed(&error))?;
        // A field that is null is not said.
        let kept: Map<_, _> =
            said.iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.clone(), value.clone())).collect();
        let read = serde_path_to_error::deserialize(Value::Object(kept)).map_err(|error| {
            let field = error.path().to_string();
            let message = format!("`{field}`: {}", error.inner());
            ApiError::from(Violations(vec![Violation::new(&field, message, "see the reference", "")]))
        })?;
        Ok((said, read))
    }
}

/// The fields of txt2img and img2img.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[schema(as = WebUiFields)]
#[serde(default)]
pub(super) struct Fields {
    /// What to show; `<lora:name:strength>` is taken out of it.
    pub(super) prompt: String,
    /// What not to show.
    pub(super) negative_prompt: String,
    /// Left alone.
    pub(super) styles: Vec<String>,
    /// -1 draws one.
    pub(super) seed: i64,
    /// -1 draws one.
    pub(super) subseed: i64,
    /// How much of the noise is that of `subseed`.
    pub(super) subseed_strength: f64,
    /// A label or name; old ones such as `DPM++ 2M Karras` are a sampler and a scheduler.
    pub(super) sampler_name: Option<String>,
    /// The sampler where `sampler_name` is absent.
    pub(super) sampler_index: String,
    /// A label or name; `Automatic` leaves the choice to the sampler.
    pub(super) scheduler: Option<String>,
    /// Pictures, times `n_iter`: 64 at most.
    pub(super) batch_size: i64,
    /// Pictures, times `batch_size`: 64 at most.
    pub(super) n_iter: i64,
    /// Steps of the sampler.
    pub(super) steps: i64,
    /// Guidance scale.
    pub(super) cfg_scale: f64,
    /// Pixels, brought down to the model's multiple.
    pub(super) width: i64,
    /// Pixels, brought down to the model's multiple.
    pub(super) height: i64,
    /// For samplers that take it.
    pub(super) eta: Option<f64>,
    /// `sd_model_checkpoint`, `CLIP_stop_at_last_layers`, `randn_source` for this call.
    #[schema(value_type = Object)]
    pub(super) override_settings: Map<String, Value>,
    /// Whether the answer has the pictures.
    pub(super) send_images: bool,
    /// A word under which `progress` and `interrupt` find the call.
    pub(super) force_task_id: Option<String>,
    /// How much of the schedule the second pass, or img2img, runs.
    pub(super) denoising_strength: f64,
    // txt2img alone.
    /// Whether there is a second pass.
    pub(super) enable_hr: bool,
    /// How much larger it is.
    pub(super) hr_scale: f64,
    /// `Latent`, `Latent (nearest)`, `None` or `Lanczos`.
    pub(super) hr_upscaler: Option<String>,
    /// Its steps; 0 is as many as the first.
    pub(super) hr_second_pass_steps: i64,
    /// Its width, instead of `hr_scale`.
    pub(super) hr_resize_x: i64,
    /// Its height, instead of `hr_scale`.
    pub(super) hr_resize_y: i64,
    // img2img alone.
    /// Pictures in base64; URLs are refused.
    pub(super) init_images: Vec<String>,
    /// A picture in base64; white is painted.
    pub(super) mask: Option<String>,
    /// 0 and 3 stretch, 1 crops, 2 fills.
    pub(super) resize_mode: i64,
    /// Standard deviation of the mask's blur, pixels; in place of the two below.
    pub(super) mask_blur: Option<f64>,
    /// Across.
    pub(super) mask_blur_x: f64,
    /// Down.
    pub(super) mask_blur_y: f64,
    /// What lies under the mask: 0 colours from around it, 1 the picture, 2 noise, 3 nothing.
    pub(super) inpainting_fill: i64,
    /// Whether only the masked area is drawn, at the request's size.
    #[schema(value_type = bool)]
    pub(super) inpaint_full_res: Value,
    /// Pixels around that area.
    pub(super) inpaint_full_res_padding: i64,
    /// Whether black is painted instead.
    #[schema(value_type = i64)]
    pub(super) inpainting_mask_invert: Value,
    /// Whether `parameters` repeat the pictures.
    pub(super) include_init_images: bool,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            prompt: String::new(),
            negative_prompt: String::new(),
            styles: Vec::new(),
            seed: -1,
            subseed: -1,
            subseed_strength: 0.0,
            sampler_name: None,
            sampler_index: "Euler".to_owned(),
            scheduler: None,
            batch_size: 1,
            n_iter: 1,
            steps: 50,
            cfg_scale: 7.0,
            width: 512,
            height: 512,
            eta: None,
            override_settings: Map::new(),
            send_images: true,
            force_task_id: None,
            denoising_strength: 0.75,
            enable_hr: false,
            hr_scale: 2.0,
            hr_upscaler: None,
            hr_second_pass_steps: 0,
            hr_resize_x: 0,
            hr_resize_y: 0,
            init_images: Vec::new(),
            mask: None,
            resize_mode: 0,
            mask_blur: None,
            mask_blur_x: 4.0,
            mask_blur_y: 4.0,
            inpainting_fill: 0,
            inpaint_full_res: Value::Bool(true),
            inpaint_full_res_padding: 0,
            inpainting_mask_invert: Value::from(0),
            include_init_images: false,
        }
    }
}

impl Fields {
    /// `true`, `1` and `"true"` are all in use.
    pub(super) fn truth(value: &Value) -> bool {
        match value {
            Value::Bool(truth) => *truth,
            Value::Number(number) => number.as_f64().is_some_and(|number| number != 0.0),
            Value::String(text) => matches!(text.to_ascii_lowercase().as_str(), "true" | "1" | "yes"),
            _ => false,
        }
    }

    /// The setting, where this request overrides it.
    pub(super) fn setting(&self, name: &str) -> Option<&Value> {
        self.override_settings.get(name).filter(|value| !value.is_null())
    }
}
