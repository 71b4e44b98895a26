//! Answers whose headers go out before the pictures are there, so that a client that is cut off has the job's id.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;

use super::wire;
use crate::error::ApiError;

/// A blank goes out so often, which JSON allows before its value and proxies take for life.
const ALIVE: Duration = Duration::from_secs(10);

/// A `200` at once, with the JSON when it is there. What fails by then is an error in the body.
pub(super) fn response(
    request_id: String,
    answer: impl Future<Output = Result<wire::Answer, ApiError>> + Send + 'static,
) -> Response {
    // Pinned on the heap, so that each turn of the stream may wait for it a while longer.
    let waiting = Some((request_id, Box::pin(answer)));
    let body = stream::unfold(waiting, |waiting| async move {
        let (request_id, mut answer) = waiting?;
        match tokio::time::timeout(ALIVE, &mut answer).await {
            Err(_) => Some((Ok::<_, Infallible>(Bytes::from_static(b" ")), Some((request_id, answer)))),
            Ok(answer) => {
                // A struct of strings and numbers always becomes JSON.
                let json = match answer {
                    Ok(answer) => serde_json::to_vec(&answer),
                    Err(error) => serde_json::to_vec(&error.body(&request_id)),
                };
                Some((Ok(json.unwrap_or_default().into()), None))
            }
        }
    });
    let unbuffered = (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    ([kind, unbuffered], Body::from_stream(body)).into_response()
}
