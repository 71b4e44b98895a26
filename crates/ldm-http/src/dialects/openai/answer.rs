//! From an order to its answer: JSON, or a stream of events.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::response::{IntoResponse, Response};
use ldm_core::{Priority, Terms};

use super::check::{Order, Reply};
use super::{events, wire};
use crate::App;
use crate::calls::{Call, Guest, Press, Submission, Written};
use crate::codec::base64;
use crate::error::ApiError;

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Submits the order and answers; `family` begins the names of its events.
pub(super) async fn answer(app: App, guest: Guest, family: &'static str, order: Order) -> Result<Response, ApiError> {
    let Guest { access, caller, leaving } = guest;
    let Order { requests, encoding, reply, partial, catalogue } = order;
    let terms = Terms { priority: Priority::Interactive, ..Terms::default() };
    let submission = Submission { leaving, encoding, ..Submission::new(requests, terms) };
    let call = Call::start(&app, &access, &caller, submission).await?;
    let press = Press::new(app, access, catalogue, encoding, &call);
    match partial {
        Some(partial) => Ok(events::response(press, call, family, partial)),
        None => Ok(Json(json(press, call, reply).await?).into_response()),
    }
}

/// All pictures in one answer; the first failure is the answer and cancels the other jobs.
async fn json(press: Press, mut call: Call, reply: Reply) -> Result<wire::Images, ApiError> {
    let first = call.requests().first().map(Arc::clone).ok_or_else(ApiError::internal)?;
    let mut data: Vec<Option<wire::Image>> = call.requests().iter().map(|_| None).collect();
    let (mut width, mut height) = (first.width, first.height);
    while let Some((index, ending)) = call.next_ending().await {
        let Written { output, body, .. } = press.written(index, ending, base64).await?;
        (width, height) = (output.image.width(), output.image.height());
        let seed = output.request.seed;
        data[index] = Some(match reply {
            Reply::Base64 => wire::Image { b64_json: Some(body), seed, ..wire::Image::default() },
            Reply::Url => {
                let url = format!("data:{};base64,{body}", press.encoding.format.mime());
                wire::Image { url: Some(url), seed, ..wire::Image::default() }
            }
        });
    }
    let data: Vec<_> = data.into_iter().flatten().collect();
    let usage = wire::Usage::of(&first, data.len(), width, height);
    Ok(wire::Images { created: now(), data, look: wire::Look::new(press.encoding, width, height), usage })
}
