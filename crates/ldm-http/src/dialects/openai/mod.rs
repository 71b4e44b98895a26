//! OpenAI's Images API, as its Python and JavaScript clients speak it, with the extensions that SGLang and vLLM-Omni have.

mod answer;
mod ask;
mod check;
pub(crate) mod docs;
mod edits;
mod events;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod generations;
mod parts;
#[cfg(test)]
mod tests;
mod wire;

use axum::Router;
use axum::routing::post;

use crate::App;

/// The dialect's routes. `/v1/models` is the native dialect's, whose answer is OpenAI's too.
pub(crate) fn routes() -> Router<App> {
    Router::new().route("/v1/images/generations", post(generations::generations)).route("/v1/images/edits", post(edits::edits))
}
