//! The bodies of a connection: what comes may not trickle, and what goes tells the pulse whether somebody takes it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body as Answered, Bytes};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use super::pulse::Pulse;

/// Bytes of a body that win it another second.
const BYTES_PER_SECOND: f64 = 16.0 * 1024.0;

/// Whether a request's body came too slowly. A clone is the same mark.
#[derive(Clone, Debug, Default)]
pub(crate) struct Late(Arc<AtomicBool>);

impl Late {
    /// Whether it did.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A body that comes. It may pause for so long, and in all for as long and what its bytes have won it.
pub(super) struct Upload {
    inner: Incoming,
    patience: Duration,
    late: Late,
    received: u64,
    /// How long it was waited for in all, before the wait that is under way.
    waited: Duration,
    /// The wait that is under way: since when, and until when it may go on.
    wait: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Upload {
    pub(super) fn new(inner: Incoming, patience: Duration, late: Late) -> Self {
        Self { inner, patience, late, received: 0, waited: Duration::ZERO, wait: None }
    }

    /// How long it may be waited for now.
    fn left(&self) -> Duration {
        let won = Duration::from_secs_f64(self.received as f64 / BYTES_PER_SECOND);
        (self.patience + won).saturating_sub(self.waited).min(self.patience)
    }
}

/// A body that came too slowly.
#[derive(Debug)]
pub(super) struct TooSlow;

impl fmt::Display for TooSlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body came too slowly")
    }
}

impl std::error::Error for TooSlow {}

impl Body for Upload {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        match frame {
            Poll::Ready(frame) => {
                if let Some((since, _)) = self.wait.take() {
                    self.waited += since.elapsed();
                }
                let bytes = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref().map(Bytes::len));
                self.received += bytes.unwrap_or_default() as u64;
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => {
                let left = self.left();
                let (_, until) = self.wait.get_or_insert_with(|| (Instant::now(), Box::pin(sleep(left))));
                match until.as_mut().poll(cx) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(()) => {
                        self.late.0.store(true, Ordering::Relaxed);
                        Poll::Ready(Some(Err(TooSlow.into())))
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// One request of a connection, from its head to the end of its answer.
pub(super) struct Exchange(Arc<Pulse>);

impl Exchange {
    pub(super) fn begin(pulse: &Arc<Pulse>, shared: bool) -> Self {
        pulse.begins(shared);
        Self(Arc::clone(pulse))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.ends();
    }
}

/// A body that goes.
pub(super) struct Download {
    inner: Answered,
    answer: u64,
    exchange: Exchange,
}

impl Download {
    pub(super) fn new(inner: Answered, exchange: Exchange) -> Self {
        Self { inner, answer: exchange.0.answer(), exchange }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.exchange.0.fetched(self.answer);
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        if matches!(frame, Poll::Ready(Some(Ok(_)))) && !self.inner.is_end_stream() {
            self.exchange.0.handed_out(self.answer);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.exchange.0.fetched(self.answer);
    }
}
