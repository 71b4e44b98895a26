//! `POST /v1/images/generations`: pictures from a prompt.

use axum::extract::State;
use axum::response::Response;

use super::answer;
use super::ask::Ask;
use super::check::Order;
use crate::App;
use crate::calls::Guest;
use crate::error::ApiError;

pub(super) async fn generations(State(app): State<App>, guest: Guest, ask: Ask) -> Result<Response, ApiError> {
    let order = app.open().and_then(|catalogue| Order::generation(ask, catalogue));
    let order = order.inspect_err(|error| app.metrics.rejected(error.code))?;
    answer::answer(app, guest, "image_generation", order).await
}
