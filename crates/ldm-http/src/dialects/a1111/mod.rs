//! stable-diffusion-webui's API (`modules/api/api.py` of AUTOMATIC1111), as its clients rely on it.
//!
//! Fields that mean nothing here are left alone.

mod answer;
mod canvas;
mod catalogue;
mod check;
pub(crate) mod docs;
mod extras;
mod fields;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
#[cfg(test)]
mod mask_tests;
mod names;
mod options;
mod pictures;
mod png_info;
mod progress;
mod stubs;
#[cfg(test)]
mod tests;
mod wire;

pub(crate) use options::Options;
pub(crate) use wire::error_body;

use axum::Router;
use axum::routing::{get, post};

use crate::App;

/// The dialect's routes.
pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/sdapi/v1/txt2img", post(pictures::txt2img))
        .route("/sdapi/v1/img2img", post(pictures::img2img))
        .route("/sdapi/v1/options", get(options::get).post(options::set))
        .route("/sdapi/v1/progress", get(progress::progress))
        .route("/sdapi/v1/interrupt", post(progress::interrupt))
        .route("/sdapi/v1/skip", post(progress::skip))
        .route("/internal/progress", post(progress::internal))
        .route("/internal/ping", get(progress::ping))
        .route("/sdapi/v1/extra-single-image", post(extras::single))
        .route("/sdapi/v1/extra-batch-images", post(extras::batch))
        .route("/sdapi/v1/png-info", post(png_info::png_info))
        .merge(catalogue::routes())
        .merge(stubs::routes())
}

/// Whether a path is of this dialect, and errors look as its clients expect them.
pub(crate) fn speaks(path: &str) -> bool {
    path.starts_with("/sdapi/") || path.starts_with("/internal/")
}
