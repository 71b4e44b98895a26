//! The dialect's readers, for `fuzz/`.

use std::sync::Arc;

use axum::body::Bytes;
use ldm_core::{Catalogue, Task};
use serde_json::{Map, Value};

use super::fields::{Body, Fields};
use super::{check, extras};
use crate::error::ApiError;

/// A JSON body, as the routes that draw or enlarge read it.
pub(crate) fn json(body: &Bytes, catalogue: &Arc<Catalogue>, pixels: u64) -> Vec<Result<(), ApiError>> {
    let body = Body(body.clone());
    let draw = |task| {
        let (_, fields): (Map<String, Value>, Fields) = body.read()?;
        let requests = check::requests(&fields, None, task, catalogue, pixels)?;
        assert!(task == Task::Img2Img || !requests.is_empty(), "an order is for pictures");
        Ok(())
    };
    vec![draw(Task::Txt2Img), draw(Task::Img2Img), extras::fuzz(&body, pixels)]
}
