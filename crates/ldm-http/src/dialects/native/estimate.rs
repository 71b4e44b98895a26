//! `POST /v1/estimate`: what a request would take, without running it.

use axum::Json;
use axum::extract::State;

use super::body::Body;
use super::order::Order;
use super::wire::{self, Estimate, Quantiles};
use crate::App;
use crate::caller::Caller;
use crate::error::ApiError;

pub(super) async fn estimate(State(app): State<App>, caller: Caller, body: Body) -> Result<Json<Estimate>, ApiError> {
    let Order { requests, terms, .. } = Order::read_any(&app, body).await?;
    caller.check(&requests)?;
    let terms = caller.sign(terms);
    let Some(first) = requests.first() else { return Err(ApiError::internal()) };
    let one = app.service.estimate(first, &terms).map_err(ApiError::from)?;
    // The pictures of one request differ in their seeds alone. Each is taken to need the device for itself, as admission does when
    // it holds a deadline against them.
    let others = one.p50.saturating_sub(one.queue) * (requests.len() as u32 - 1);
    Ok(Json(Estimate {
        task: first.work.task().name(),
        model: first.model.clone(),
        images: requests.len(),
        queue_ms: wire::ms(one.queue),
        time_ms: Quantiles { p50: wire::ms(one.p50 + others), p95: wire::ms(one.p95 + others) },
        rows: one.rows,
        network_calls: u64::from(one.evaluations) * requests.len() as u64,
        peak_bytes: one.peak_bytes,
        held_bytes: requests.iter().map(ldm_core::Request::bytes).sum(),
    }))
}
