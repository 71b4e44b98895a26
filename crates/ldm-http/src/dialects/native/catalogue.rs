//! `GET /v1/models` and `GET /v1/samplers`: what may be asked for.

use axum::Json;
use axum::extract::State;

use super::wire::{Models, Samplers};
use crate::App;
use crate::error::ApiError;

pub(super) async fn models(State(app): State<App>) -> Result<Json<Models>, ApiError> {
    Ok(Json(Models::of(&*app.catalogue()?)))
}

pub(super) async fn samplers(State(app): State<App>) -> Result<Json<Samplers>, ApiError> {
    Ok(Json(Samplers::of(&*app.catalogue()?)))
}
