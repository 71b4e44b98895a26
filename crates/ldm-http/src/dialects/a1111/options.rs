//! `/sdapi/v1/options`: the one setting that means something is the checkpoint, and everybody has their own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::extract::State;
use ldm_core::{Catalogue, Draft, Model, Tenant, Terms};
use serde_json::{Map, Value, json};

use super::check::not_found;
use super::fields::Body;
use super::names;
use crate::App;
use crate::caller::Caller;
use crate::calls::{Call, Guest, Submission};
use crate::error::ApiError;

/// Callers whose choice is remembered at most.
const MOST: usize = 4096;

/// The checkpoint that each caller has set. A clone is the same book.
#[derive(Clone, Default)]
pub(crate) struct Options(Arc<Mutex<HashMap<Tenant, String>>>);

impl Options {
    /// The id of the model that the caller has set.
    pub(super) fn chosen(&self, caller: &Caller) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(caller.tenant()).cloned()
    }

    fn choose(&self, caller: &Caller, model: &str) {
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Callers are as many as keys; the bound is for a file that changes a lot.
        if book.len() >= MOST {
            book.clear();
        }
        book.insert(caller.tenant().clone(), model.to_owned());
    }
}

/// The model that the caller works with, as long as it is served.
pub(super) fn current<'a>(app: &App, caller: &Caller, catalogue: &'a Catalogue) -> Option<&'a Model> {
    let chosen = app.options.chosen(caller);
    let chosen = chosen.and_then(|id| catalogue.model(Some(&id)));
    chosen.or_else(|| catalogue.models.iter().find(|model| caller.may_use(&model.id)))
}

/// What clients look for; the web UI has hundreds more.
pub(super) async fn get(State(app): State<App>, caller: Caller) -> Result<Json<Value>, ApiError> {
    let catalogue = app.catalogue()?;
    let model = current(&app, &caller, &catalogue);
    Ok(Json(json!({
        "sd_model_checkpoint": model.map(names::title).unwrap_or_default(),
        "sd_checkpoint_hash": model.and_then(names::hash).unwrap_or_default(),
        "sd_vae": "Automatic",
        "samples_format": "png",
        "samples_save": false,
        "grid_save": false,
        "return_grid": false,
        "CLIP_stop_at_last_layers": 1,
        "randn_source": "CPU",
        "eta_noise_seed_delta": 0,
        "show_progress_every_n_steps": 10,
        "enable_pnginfo": true,
        "interrogate_clip_num_beams": 1,
    })))
}

/// Takes the checkpoint and leaves the rest alone. The answer comes when the model is loaded.
pub(super) async fn set(State(app): State<App>, guest: Guest, body: Body) -> Result<Json<Value>, ApiError> {
    let (said, _): (Map<String, Value>, Value) = body.read()?;
    if let Some(name) = said.get("sd_model_checkpoint").and_then(Value::as_str) {
        let catalogue = app.open()?;
        let model = names::model(&catalogue, name).ok_or_else(|| not_found("checkpoint", name))?;
        load(&app, &guest, &catalogue, model).await?;
        app.options.choose(&guest.caller, &model.id);
    }
    // FastAPI's answer to a handler that returns nothing.
    Ok(Json(Value::Null))
}

/// Has a model loaded that is served lazily: the smallest picture that it draws.
async fn load(app: &App, guest: &Guest, catalogue: &Catalogue, model: &Model) -> Result<(), ApiError> {
    let loaded = |worker: ldm_engine::WorkerStatus| worker.residents.into_iter().any(|it| it.id == model.id && it.loaded);
    let away = app.service.workers().into_iter().all(|worker| !loaded(worker));
    if away {
        let draft = Draft { steps: Some(1), ..Draft::smallest(model) };
        let submission = Submission::new(draft.check(catalogue)?, Terms::default());
        Call::start(app, &guest.access, &guest.caller, submission).await?.finished().await?;
    }
    Ok(())
}
