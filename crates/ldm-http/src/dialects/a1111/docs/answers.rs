//! What the web UI's answers look like.
#![expect(dead_code, reason = "these types only say what is written")]

use std::collections::BTreeMap;

use utoipa::ToSchema;

/// An error as the web UI and FastAPI write it.
#[derive(ToSchema)]
#[schema(as = WebUiError)]
pub(crate) struct Error {
    error: String,
    /// A text, or of a `422` every field at fault as FastAPI names it.
    #[schema(value_type = serde_json::Value)]
    detail: String,
    body: String,
    errors: String,
    request_id: String,
}

/// What clients look for; the web UI has hundreds more.
#[derive(ToSchema)]
#[schema(as = WebUiOptions)]
pub(super) struct Options {
    /// The title of the checkpoint that the caller works with.
    sd_model_checkpoint: String,
    sd_checkpoint_hash: String,
    sd_vae: String,
    samples_format: String,
    samples_save: bool,
    grid_save: bool,
    return_grid: bool,
    #[schema(rename = "CLIP_stop_at_last_layers")]
    clip_stop_at_last_layers: i64,
    randn_source: String,
    eta_noise_seed_delta: i64,
    show_progress_every_n_steps: i64,
    enable_pnginfo: bool,
    interrogate_clip_num_beams: i64,
}

/// What of the options may be set; the rest is left alone.
#[derive(ToSchema)]
#[schema(as = WebUiSetOptions)]
pub(super) struct SetOptions {
    /// A title, name, file name or hash. The answer comes when the model is loaded.
    sd_model_checkpoint: Option<String>,
}

/// How far the caller's pictures are.
#[derive(ToSchema)]
#[schema(as = WebUiProgress)]
pub(super) struct Progress {
    /// The share of the work that is done.
    #[schema(minimum = 0, maximum = 1)]
    progress: f64,
    /// Seconds that are left.
    eta_relative: f64,
    state: ProgressState,
    /// The newest preview, a PNG in base64.
    current_image: Option<String>,
    textinfo: Option<String>,
}

/// The work in numbers.
#[derive(ToSchema)]
#[schema(as = WebUiProgressState)]
struct ProgressState {
    skipped: bool,
    interrupted: bool,
    stopping_generation: bool,
    job: String,
    job_count: u64,
    job_timestamp: String,
    job_no: u64,
    sampling_step: u32,
    sampling_steps: u32,
}

/// How far one task is.
#[derive(ToSchema)]
#[schema(as = WebUiTaskProgress)]
pub(super) struct TaskProgress {
    active: bool,
    queued: bool,
    completed: bool,
    progress: Option<f64>,
    eta: Option<f64>,
    /// A `data:` URL.
    live_preview: Option<String>,
    id_live_preview: i64,
    textinfo: Option<String>,
}

/// An enlarged picture.
#[derive(ToSchema)]
#[schema(as = WebUiEnlarged)]
pub(super) struct Enlarged {
    html_info: String,
    /// A PNG in base64.
    image: String,
}

/// Enlarged pictures.
#[derive(ToSchema)]
#[schema(as = WebUiEnlargedBatch)]
pub(super) struct EnlargedBatch {
    html_info: String,
    images: Vec<String>,
}

/// What a picture's file says.
#[derive(ToSchema)]
#[schema(as = WebUiPngInfoAnswer)]
pub(super) struct PngInfo {
    /// The infotext.
    info: String,
    /// Every other text by its name.
    items: BTreeMap<String, String>,
    /// The infotext taken apart.
    parameters: BTreeMap<String, String>,
}

/// A checkpoint.
#[derive(ToSchema)]
#[schema(as = WebUiModel)]
pub(super) struct Model {
    title: String,
    model_name: String,
    hash: Option<String>,
    sha256: Option<String>,
    filename: String,
    config: Option<String>,
}

/// A sampler.
#[derive(ToSchema)]
#[schema(as = WebUiSampler)]
pub(super) struct Sampler {
    name: String,
    aliases: Vec<String>,
    options: BTreeMap<String, String>,
}

/// A schedule.
#[derive(ToSchema)]
#[schema(as = WebUiScheduler)]
pub(super) struct Scheduler {
    name: String,
    label: String,
    aliases: Option<Vec<String>>,
    default_rho: f64,
    need_inner_model: bool,
}

/// A way to make pictures larger.
#[derive(ToSchema)]
#[schema(as = WebUiUpscaler)]
pub(super) struct Upscaler {
    name: String,
    model_name: Option<String>,
    model_path: Option<String>,
    model_url: Option<String>,
    scale: f64,
}

/// A way to make latents larger.
#[derive(ToSchema)]
#[schema(as = WebUiLatentUpscaler)]
pub(super) struct LatentUpscaler {
    name: String,
}

/// A LoRA of the caller's model.
#[derive(ToSchema)]
#[schema(as = WebUiLora)]
pub(super) struct Lora {
    name: String,
    alias: String,
    path: String,
    metadata: BTreeMap<String, String>,
}
