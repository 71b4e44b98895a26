//! `GET /v1/models` and `GET /v1/samplers`: what may be asked for. The list of models is OpenAI's, too.

use std::time::UNIX_EPOCH;

use axum::Json;
use axum::extract::{Path, State};

use super::wire::{Models, Named, Samplers};
use crate::App;
use crate::caller::Caller;
use crate::error::ApiError;

/// When this process began to serve, in seconds since 1970.
fn began(app: &App) -> u64 {
    app.began.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

pub(super) async fn models(State(app): State<App>, caller: Caller) -> Result<Json<Models>, ApiError> {
    Ok(Json(Models::of(&*app.catalogue()?, |model| caller.may_use(model), began(&app))))
}

pub(super) async fn model(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Json<Named>, ApiError> {
    let catalogue = app.catalogue()?;
    let known = catalogue.models.iter().any(|model| model.id == id && caller.may_use(&id));
    if known { Ok(Json(Named::new(&id, began(&app)))) } else { Err(ApiError::unknown_model(&id)) }
}

pub(super) async fn samplers(State(app): State<App>) -> Result<Json<Samplers>, ApiError> {
    Ok(Json(Samplers::of(&*app.catalogue()?)))
}
