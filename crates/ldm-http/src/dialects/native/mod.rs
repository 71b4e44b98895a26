//! latentd's own dialect: every field by the name that the rest of the code has for it.

mod answer;
mod body;
mod catalogue;
mod conditions;
pub(crate) mod docs;
mod draft;
mod early;
mod estimate;
mod events;
mod fields;
#[cfg(test)]
mod form_tests;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
#[cfg(test)]
mod hostile;
mod img2img;
mod jobs;
mod members;
mod order;
mod png_info;
mod readers;
mod routes;
mod settings;
#[cfg(test)]
mod task_refusals;
#[cfg(test)]
mod task_tests;
mod terms;
#[cfg(test)]
mod tests;
mod txt2img;
mod wire;

pub(crate) use answer::{infotext, notes, parameters};
pub use jobs::keeper;
pub(crate) use jobs::{Replays, job_text};

use axum::Router;
use axum::routing::{get, post};

use crate::App;

/// The dialect's routes.
pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/v1/txt2img", post(txt2img::txt2img))
        .route("/v1/img2img", post(img2img::img2img))
        .route("/v1/inpaint", post(routes::inpaint))
        .route("/v1/super-resolution", post(routes::super_resolution))
        .route("/v1/depth", post(routes::depth))
        .route("/v1/unconditional", post(routes::unconditional))
        .route("/v1/class", post(routes::class))
        .route("/v1/layout", post(routes::layout))
        .route("/v1/semantic", post(routes::semantic))
        .route("/v1/retrieval", post(routes::retrieval))
        .route("/v1/png-info", post(png_info::png_info))
        .route("/v1/estimate", post(estimate::estimate))
        .route("/v1/models", get(catalogue::models))
        .route("/v1/models/{*id}", get(catalogue::model))
        .route("/v1/samplers", get(catalogue::samplers))
        .merge(jobs::routes())
}
