//! Streams of server-sent events: several jobs' events in one stream, and the response around it.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::{HeaderName, header};
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, BoxStream, SelectAll, Stream, StreamExt};
use ldm_core::Event;
use ldm_engine::Ticket;

/// Proxies cut connections that say nothing for long.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The events of all jobs as they come, each with its job's index. Dropping the stream drops the tickets.
pub(crate) type Events = SelectAll<BoxStream<'static, (usize, Event)>>;

/// Merges the tickets' events.
pub(crate) fn merged(tickets: Vec<Ticket>) -> Events {
    stream::select_all(tickets.into_iter().enumerate().map(|(index, ticket)| {
        stream::unfold(ticket, move |mut ticket| async move { ticket.next().await.map(|event| ((index, event), ticket)) }).boxed()
    }))
}

/// The response that sends `events`, with what keeps proxies from holding them back.
pub(crate) fn response(events: impl Stream<Item = Sent> + Send + 'static) -> Response {
    let headers = [(header::CACHE_CONTROL, "no-cache"), (HeaderName::from_static("x-accel-buffering"), "no")];
    let events = Sse::new(events.map(Ok::<_, Infallible>)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    (headers, events).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stream_with_nothing_to_tell_stays_alive() {
        let started = tokio::time::Instant::now();
        let response = response(stream::pending());
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        let mut body = response.into_body().into_data_stream();
        for beats in 1..=3 {
            assert_eq!(&body.next().await.unwrap().unwrap()[..], b":\n\n");
            assert_eq!(started.elapsed().as_secs(), beats * KEEP_ALIVE.as_secs());
        }
    }
}
