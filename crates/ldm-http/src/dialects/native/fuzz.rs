//! The dialect's readers, for `fuzz/`.

use std::sync::Arc;

use axum::body::Bytes;
use ldm_core::Catalogue;

use super::body::Body;
use super::order::{Order, Reader};
use super::png_info::Upload;
use crate::codec::Format;
use crate::error::ApiError;
use crate::multipart::Part;
use crate::negotiate::Form;

/// A JSON body, as every route reads it.
pub(crate) fn json(body: &Bytes, catalogue: &Arc<Catalogue>, pixels: u64) -> Vec<Result<(), ApiError>> {
    read(&Body::Json(body.clone()), catalogue, pixels)
}

/// A form, as every route reads it.
pub(crate) fn form(parts: &[Part], catalogue: &Arc<Catalogue>, pixels: u64) -> Vec<Result<(), ApiError>> {
    read(&Body::Form(parts.to_vec()), catalogue, pixels)
}

fn read(body: &Body, catalogue: &Arc<Catalogue>, pixels: u64) -> Vec<Result<(), ApiError>> {
    assert_eq!(body.fingerprint(), body.clone().fingerprint(), "what says the same has the same fingerprint");
    let order = |task, form| {
        let order = Order::parse(body.clone(), Reader { task, form, catalogue: Arc::clone(catalogue), pixels, webhooks: None })?;
        assert!(!order.requests.is_empty(), "an order is for pictures");
        Ok(())
    };
    let info = Upload::Field(body.clone()).look().map(drop);
    let tasks = ldm_core::Task::ALL.into_iter().map(|task| order(Some(task), Form::Picture(Some(Format::WebP))));
    tasks.chain([order(None, Form::Json), info]).collect()
}
