//! The dialect's readers, for `fuzz/`.

use std::sync::Arc;

use axum::body::Bytes;
use ldm_core::Catalogue;

use super::ask::Ask;
use super::check::Order;
use super::parts;
use crate::error::ApiError;
use crate::multipart::Part;

/// A JSON body, as both routes read it.
pub(crate) fn json(body: &Bytes, catalogue: &Arc<Catalogue>, pixels: u64) -> Vec<Result<(), ApiError>> {
    let ask = match serde_json::from_slice(body).map_err(|error| ApiError::malformed(&error)).and_then(Ask::of) {
        Ok(ask) => ask,
        Err(error) => return vec![Err(error)],
    };
    let generation = Order::generation(ask.clone(), Arc::clone(catalogue));
    let edit = Order::edit(ask, Arc::clone(catalogue), pixels);
    [generation, edit].map(|order| order.map(|order| assert!(!order.requests.is_empty(), "an order is for pictures"))).into()
}

/// A form, as edits read it.
pub(crate) fn form(parts: Vec<Part>, catalogue: &Arc<Catalogue>, pixels: u64) -> Result<(), ApiError> {
    Order::edit(parts::read(parts)?, Arc::clone(catalogue), pixels).map(drop)
}
