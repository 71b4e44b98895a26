//! What is on offer, in the web UI's lists.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use ldm_core::{Catalogue, Model, Task};
use serde_json::{Value, json};

use super::{names, options};
use crate::App;
use crate::caller::Caller;
use crate::error::ApiError;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/sdapi/v1/sd-models", get(models))
        .route("/sdapi/v1/samplers", get(samplers))
        .route("/sdapi/v1/schedulers", get(schedulers))
        .route("/sdapi/v1/upscalers", get(upscalers))
        .route("/sdapi/v1/latent-upscale-modes", get(latent_upscalers))
        .route("/sdapi/v1/loras", get(loras))
}

/// Models that draw what is asked for by words, and that the caller may use.
async fn models(State(app): State<App>, caller: Caller) -> Result<Json<Value>, ApiError> {
    let catalogue = app.catalogue()?;
    let model = |model: &Model| {
        json!({
            "title": names::title(model),
            "model_name": model.id,
            "hash": names::hash(model),
            "sha256": Some(&model.weights).filter(|weights| !weights.is_empty()),
            "filename": names::filename(model),
            "config": null,
        })
    };
    let draws = |model: &&Model| model.tasks.iter().any(|task| [Task::Txt2Img, Task::Img2Img, Task::Inpaint].contains(task));
    Ok(Json(catalogue.models.iter().filter(draws).filter(|one| caller.may_use(&one.id)).map(model).collect()))
}

async fn samplers(State(app): State<App>) -> Result<Json<Value>, ApiError> {
    let catalogue = app.catalogue()?;
    let sampler = |sampler: &ldm_core::Sampler| {
        // "DPM++ 2M Karras" is a sampler and a schedule: an alias that implies one is no plain name.
        let aliases = sampler.aliases.iter().filter(|alias| alias.schedule.is_none()).map(|alias| alias.name.as_str());
        let aliases: Vec<_> = aliases.chain([sampler.name.as_str()]).collect();
        json!({ "name": sampler.label, "aliases": aliases, "options": {} })
    };
    Ok(Json(catalogue.samplers.iter().map(sampler).collect()))
}

async fn schedulers(State(app): State<App>) -> Result<Json<Value>, ApiError> {
    let catalogue = app.catalogue()?;
    Ok(Json(schedules(&catalogue)))
}

fn schedules(catalogue: &Catalogue) -> Value {
    let mut known: Vec<&str> = Vec::new();
    for schedule in catalogue.samplers.iter().flat_map(|sampler| &sampler.schedules) {
        if schedule != "default" && !known.contains(&schedule.as_str()) {
            known.push(schedule);
        }
    }
    let one = |name: &str, label: String| json!({ "name": name, "label": label, "aliases": null, "default_rho": if name == "karras" { 7.0 } else { -1.0 }, "need_inner_model": false });
    let capital = |name: &str| name[..1].to_uppercase() + &name[1..];
    let fixed = [one("automatic", "Automatic".to_owned()), one("uniform", "Uniform".to_owned())];
    fixed.into_iter().chain(known.into_iter().map(|name| one(name, capital(name)))).collect()
}

/// Ways to make a finished picture larger: the usual filters, and models for super-resolution.
async fn upscalers(State(app): State<App>, caller: Caller) -> Result<Json<Value>, ApiError> {
    let catalogue = app.catalogue()?;
    let one = |name: &str, scale: u32| json!({ "name": name, "model_name": null, "model_path": null, "model_url": null, "scale": scale });
    let filters = ["None", "Lanczos", "Nearest"].map(|name| one(name, 4));
    let enlarges = |model: &&Model| model.tasks.contains(&Task::SuperResolution) && caller.may_use(&model.id);
    let models = catalogue.models.iter().filter(enlarges).map(|model| one(&model.id, model.conditions.upscale.unwrap_or(1)));
    Ok(Json(filters.into_iter().chain(models).collect()))
}

async fn latent_upscalers() -> Json<Value> {
    Json(json!([{ "name": "Latent" }, { "name": "Latent (nearest)" }, { "name": "Latent (nearest-exact)" }]))
}

/// LoRAs of the model that the caller works with.
async fn loras(State(app): State<App>, caller: Caller) -> Result<Json<Value>, ApiError> {
    let catalogue = app.catalogue()?;
    let model = options::current(&app, &caller, &catalogue);
    let names = model.into_iter().flat_map(|model| &model.loras);
    Ok(Json(names.map(|name| json!({ "name": name, "alias": name, "path": "", "metadata": {} })).collect()))
}
