//! The dialect's answers as JSON.

use ldm_core::{Catalogue, Request};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::names;
use crate::error::ApiError;

/// The answer of txt2img and img2img.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebUiImages)]
pub(super) struct Images {
    /// Base64, without `data:`.
    pub(super) images: Vec<String>,
    /// What was said, with the defaults of what was not.
    #[schema(value_type = Object)]
    pub(super) parameters: Map<String, Value>,
    /// [`info`] as a text.
    pub(super) info: String,
}

/// What made the pictures, everything resolved (`Processed.js` of `modules/processing.py`).
pub(super) fn info(requests: &[&Request], infotexts: &[String], catalogue: &Catalogue, batch: i64, at: &str) -> Value {
    let Some(first) = requests.first() else {
        // Interrupted before anything was done; clients look for these keys all the same.
        return json!({ "all_prompts": [], "all_seeds": [], "infotexts": [], "seed": -1, "prompt": "", "images": 0 });
    };
    let all = |text: fn(&Request) -> &str| requests.iter().map(|request| text(request).to_owned()).collect::<Vec<_>>();
    let variation = first.tuning.variation;
    let subseed = variation.map_or(first.seed, |variation| variation.seed);
    let label = catalogue.sampler(&first.sampler).map_or(first.sampler.as_str(), |(sampler, _)| &sampler.label);
    let model = catalogue.model(Some(&first.model));
    json!({
        "prompt": first.prompt,
        "all_prompts": all(|request| &request.prompt),
        "negative_prompt": first.negative_prompt,
        "all_negative_prompts": all(|request| &request.negative_prompt),
        "seed": first.seed,
        "all_seeds": requests.iter().map(|request| request.seed).collect::<Vec<_>>(),
        "subseed": subseed,
        "all_subseeds": vec![subseed; requests.len()],
        "subseed_strength": variation.map_or(0.0, |variation| variation.strength),
        "width": first.width,
        "height": first.height,
        "sampler_name": label,
        "cfg_scale": first.guidance,
        "steps": first.steps,
        "batch_size": batch,
        "restore_faces": false,
        "face_restoration_model": null,
        "sd_model_name": first.model,
        "sd_model_hash": model.and_then(names::hash),
        "sd_vae_name": null,
        "sd_vae_hash": null,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": first.hires().map(|hires| hires.strength).or(first.work.strength()),
        "extra_generation_params": { "Schedule type": first.schedule },
        "index_of_first_image": 0,
        "infotexts": infotexts,
        "styles": [],
        "job_timestamp": at,
        "clip_skip": first.tuning.clip_skip + 1,
        "is_using_inpainting_conditioning": false,
        "version": concat!("latentd ", env!("CARGO_PKG_VERSION")),
    })
}

/// An error as the web UI's handler writes it (`api_middleware`), with what FastAPI says of wrong fields.
pub(crate) fn error_body(error: &ApiError, request_id: &str) -> Value {
    let said = |field: &str, message: &str| json!({ "loc": ["body", field], "msg": message, "type": "value_error" });
    let detail = match error.violations.as_slice() {
        [] => Value::from(error.message.as_str()),
        violations => violations.iter().map(|violation| said(&violation.field, &violation.message)).collect(),
    };
    json!({ "error": error.code, "detail": detail, "body": "", "errors": error.message, "request_id": request_id })
}
