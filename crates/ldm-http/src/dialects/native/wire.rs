//! What the dialect's answers look like as JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use ldm_core::{Catalogue, Request, Timings};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::conditions::Conditions;
use super::settings::Settings;
use crate::codec::Encoding;
use crate::error::Body;
use crate::metadata::{Found, Infotext};
use crate::provenance::Provenance;

/// The answer to a request for pictures.
#[derive(Serialize, ToSchema)]
#[schema(as = Pictures)]
pub(super) struct Answer {
    /// The jobs, one per picture.
    pub(super) ids: Vec<String>,
    pub(super) model: String,
    /// What made the pictures, beside the parameters.
    pub(super) engine: Provenance,
    pub(super) images: Vec<Picture>,
    pub(super) parameters: Parameters,
    /// From the request's arrival to this answer.
    pub(super) total_ms: f64,
    /// As the header of that name has it, where the headers are gone already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) server_timing: Option<String>,
}

/// Event `error`.
#[derive(Serialize, ToSchema)]
#[schema(as = ErrorEvent)]
pub(super) struct LastError<'a> {
    #[serde(flatten)]
    pub(super) error: Body<'a>,
    pub(super) server_timing: String,
}

/// The answer of `POST /v1/estimate`: what the request would take now, all its pictures together.
#[derive(Serialize, ToSchema)]
pub(super) struct Estimate {
    pub(super) task: &'static str,
    pub(super) model: String,
    pub(super) images: usize,
    /// Until the first picture begins.
    pub(super) queue_ms: f64,
    /// Until the last picture is there.
    pub(super) time_ms: Quantiles,
    /// Rows that each picture adds to a network call.
    pub(super) rows: u32,
    /// Network calls, of all pictures.
    pub(super) network_calls: u64,
    /// Bytes of the device's memory at the most: weights and what one picture needs besides, about; `null` where that is not known.
    pub(super) peak_bytes: Option<u64>,
    /// Bytes that the request holds while it is unfinished: texts and pictures.
    pub(super) held_bytes: usize,
}

/// Half of such requests, and nineteen of twenty, take less.
#[derive(Serialize, ToSchema)]
#[schema(as = EstimateQuantiles)]
pub(super) struct Quantiles {
    pub(super) p50: f64,
    pub(super) p95: f64,
}

/// One picture.
#[derive(Serialize, ToSchema)]
pub(super) struct Picture {
    pub(super) id: String,
    pub(super) b64: String,
    pub(super) mime: &'static str,
    pub(super) seed: u64,
    pub(super) width: u32,
    pub(super) height: u32,
    /// Of the pixels: 8-bit RGB, row by row.
    pub(super) sha256: String,
    pub(super) timings: PictureTimings,
}

/// Where a picture's time went.
#[derive(Serialize, ToSchema)]
pub(super) struct PictureTimings {
    queued_ms: f64,
    prepare_ms: f64,
    steps_ms: f64,
    decode_ms: f64,
    encode_ms: f64,
}

impl PictureTimings {
    pub(super) fn of(timings: Timings, encode: Duration) -> Self {
        Self {
            queued_ms: ms(timings.queued),
            prepare_ms: ms(timings.prepare),
            steps_ms: ms(timings.steps),
            decode_ms: ms(timings.decode),
            encode_ms: ms(encode),
        }
    }
}

/// Milliseconds, to the microsecond.
pub(super) fn ms(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}

/// What made the pictures, spelled as requests are: posted back it makes them again. Pictures, maps and embeddings are not
/// repeated.
#[derive(Serialize, ToSchema)]
pub(super) struct Parameters {
    pub(super) model: String,
    prompt: String,
    negative_prompt: String,
    width: u32,
    height: u32,
    steps: u32,
    sampler: String,
    schedule: String,
    guidance: f64,
    eta: f64,
    seed: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    loras: Vec<Lora>,
    images: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    preview_every: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strength: Option<f64>,
    #[serde(flatten)]
    settings: Settings,
    format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    quality: Option<u8>,
}

/// An adapter that a picture was drawn with.
#[derive(Serialize, ToSchema)]
#[schema(as = LoraUse)]
struct Lora {
    name: String,
    strength: f64,
}

impl Parameters {
    /// Of the first of `images` requests.
    pub(super) fn of(request: &Request, images: usize, encoding: Encoding) -> Self {
        Self {
            model: request.model.clone(),
            prompt: request.prompt.clone(),
            negative_prompt: request.negative_prompt.clone(),
            width: request.width,
            height: request.height,
            steps: request.steps,
            sampler: request.sampler.clone(),
            schedule: request.schedule.clone(),
            guidance: request.guidance,
            eta: request.eta,
            seed: request.seed,
            loras: request.loras.iter().map(|lora| Lora { name: lora.name.clone(), strength: lora.strength }).collect(),
            images,
            preview_every: request.preview_every,
            strength: request.work.strength(),
            settings: Settings::of(request),
            format: encoding.format.name(),
            quality: encoding.resolved_quality(),
        }
    }
}

/// Event `queued`.
#[derive(Serialize, ToSchema)]
#[schema(as = QueuedEvent)]
pub(super) struct Queued {
    pub(super) image: usize,
    /// Jobs that start before it.
    pub(super) position: usize,
}

/// Event `progress`.
#[derive(Serialize, ToSchema)]
#[schema(as = ProgressEvent)]
pub(super) struct Progress {
    pub(super) image: usize,
    /// `prepare`, `step` or `decode`.
    pub(super) stage: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) step: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) steps: Option<u32>,
}

/// Event `preview`.
#[derive(Serialize, ToSchema)]
#[schema(as = PreviewEvent)]
pub(super) struct Preview {
    pub(super) image: usize,
    pub(super) step: u32,
    pub(super) b64: String,
    pub(super) mime: &'static str,
    pub(super) width: u32,
    pub(super) height: u32,
}

/// The answer of `POST /v1/png-info`. What a file does not say is null.
#[derive(Serialize, ToSchema)]
pub(super) struct PngInfo {
    format: &'static str,
    width: u32,
    height: u32,
    /// The infotext as it stands there.
    parameters: Option<String>,
    /// The same, read.
    infotext: Option<InfotextParts>,
    /// What can be posted back.
    #[schema(value_type = Option<Object>)]
    latentd: Option<Map<String, Value>>,
    /// What made the picture beside that.
    #[schema(value_type = Option<Object>)]
    engine: Option<Map<String, Value>>,
    /// Every other text by its name.
    items: BTreeMap<String, String>,
}

#[derive(Serialize, ToSchema)]
struct InfotextParts {
    prompt: String,
    negative_prompt: String,
    settings: BTreeMap<String, String>,
}

impl PngInfo {
    pub(super) fn of(found: Found) -> Self {
        let Found { format, width, height, parameters, latentd, made, items } = found;
        let infotext = parameters.as_deref().map(|text| {
            let Infotext { prompt, negative_prompt, settings } = Infotext::parse(text);
            InfotextParts { prompt, negative_prompt, settings: settings.into_iter().collect() }
        });
        Self { format: format.name(), width, height, parameters, infotext, latentd, engine: made, items }
    }
}

/// The answer of `GET /v1/models`.
#[derive(Serialize, ToSchema)]
pub(super) struct Models {
    /// `list`, as OpenAI's clients expect it.
    object: &'static str,
    data: Vec<Named>,
    models: Vec<Model>,
    bounds: Bounds,
}

/// A model by its name alone, as OpenAI's clients list it.
#[derive(Serialize, ToSchema)]
#[schema(as = ModelName)]
pub(super) struct Named {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
}

impl Named {
    /// `created`: seconds since 1970.
    pub(super) fn new(id: &str, created: u64) -> Self {
        Self { id: id.to_owned(), object: "model", created, owned_by: "latentd" }
    }
}

#[derive(Serialize, ToSchema)]
struct Model {
    id: String,
    default: bool,
    family: String,
    tasks: Vec<&'static str>,
    parameters: u64,
    dtype: String,
    device: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    weights: String,
    determinism: &'static str,
    sizes: Sizes,
    defaults: Defaults,
    prompt_tokens: u32,
    loras: Vec<String>,
    conditions: Conditions,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ModelSizes)]
struct Sizes {
    min: u32,
    max: u32,
    multiple: u32,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ModelDefaults)]
struct Defaults {
    width: u32,
    height: u32,
    sampler: String,
    schedule: String,
    steps: u32,
    guidance: f64,
    strength: f64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = RequestBounds)]
struct Bounds {
    steps: u32,
    guidance: f64,
    images: u32,
    prompt_chars: u32,
}

impl Models {
    /// Those that `may` be used; the first of all is the default. `began`: seconds since 1970.
    pub(super) fn of(catalogue: &Catalogue, may: impl Fn(&str) -> bool, began: u64) -> Self {
        let seen = || catalogue.models.iter().enumerate().filter(|(_, model)| may(&model.id));
        let model = |(i, model): (usize, &ldm_core::Model)| Model {
            id: model.id.clone(),
            default: i == 0,
            family: model.family.clone(),
            tasks: model.tasks.iter().map(|task| task.name()).collect(),
            parameters: model.parameters,
            dtype: model.dtype.clone(),
            device: model.device.clone(),
            weights: model.weights.clone(),
            determinism: model.mode.name(),
            sizes: Sizes { min: model.sizes.min, max: model.sizes.max, multiple: model.sizes.multiple },
            defaults: Defaults {
                width: model.sizes.default.0,
                height: model.sizes.default.1,
                sampler: model.defaults.sampler.clone(),
                schedule: model.defaults.schedule.clone(),
                steps: model.defaults.steps,
                guidance: model.defaults.guidance,
                strength: model.defaults.strength,
            },
            prompt_tokens: model.prompt_tokens,
            loras: model.loras.clone(),
            conditions: (&model.conditions).into(),
        };
        let ldm_core::Bounds { steps, guidance, images, prompt_chars } = catalogue.bounds;
        Self {
            object: "list",
            data: seen().map(|(_, model)| Named::new(&model.id, began)).collect(),
            models: seen().map(model).collect(),
            bounds: Bounds { steps, guidance, images, prompt_chars },
        }
    }
}

/// The answer of `GET /v1/samplers`.
#[derive(Serialize, ToSchema)]
pub(super) struct Samplers {
    samplers: Vec<Sampler>,
}

#[derive(Serialize, ToSchema)]
struct Sampler {
    name: String,
    label: String,
    aliases: Vec<Alias>,
    order: u32,
    stochastic: bool,
    takes_eta: bool,
    schedules: Vec<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = SamplerAlias)]
struct Alias {
    name: String,
    schedule: Option<String>,
}

impl Samplers {
    pub(super) fn of(catalogue: &Catalogue) -> Self {
        let alias = |alias: &ldm_core::Alias| Alias { name: alias.name.clone(), schedule: alias.schedule.clone() };
        let sampler = |sampler: &ldm_core::Sampler| Sampler {
            name: sampler.name.clone(),
            label: sampler.label.clone(),
            aliases: sampler.aliases.iter().map(alias).collect(),
            order: sampler.order,
            stochastic: sampler.stochastic,
            takes_eta: sampler.takes_eta,
            schedules: sampler.schedules.clone(),
        };
        Self { samplers: catalogue.samplers.iter().map(sampler).collect() }
    }
}
