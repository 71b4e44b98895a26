//! One request from its scheduled time to its end: sent, perhaps refused and sent again, perhaps left by its client.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use crate::targets::{Outcome, Shot, Stages, Target};

/// What one request is to do.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) shot: Shot,
    /// The kind's index in the mix.
    pub(crate) kind: usize,
    /// When it was to leave.
    pub(crate) scheduled: Instant,
    /// Whether it counts.
    pub(crate) measured: bool,
    /// How long after it was sent its client goes away.
    pub(crate) leave: Option<Duration>,
}

/// A refusal with a `Retry-After`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusal {
    /// When what was refused was sent.
    pub(crate) sent: Instant,
    pub(crate) told: Duration,
}

/// How a request ended.
#[derive(Debug, PartialEq)]
pub(crate) enum End {
    Done { images: u32, stages: Option<Stages> },
    Rejected { status: u16 },
    Failed { reason: String },
    Cancelled,
}

/// A request that has ended.
#[derive(Debug)]
pub(crate) struct Flown {
    pub(crate) order: Order,
    /// When it was sent for the first time.
    pub(crate) sent: Instant,
    /// When what ended it was sent: later than `sent` where it was sent again.
    pub(crate) sent_last: Instant,
    pub(crate) ended: Instant,
    pub(crate) end: End,
    pub(crate) refusals: Vec<Refusal>,
}

/// Sends the request, up to `retries` times more, each time after the told time; after `limit` it has failed.
pub(crate) async fn fly<T: Target>(target: &T, order: Order, retries: u32, limit: Duration) -> Flown {
    let sent = Instant::now();
    let (mut sent_last, mut refusals) = (sent, Vec::new());
    let attempts = async {
        loop {
            sent_last = Instant::now();
            let (status, told) = match target.send(&order.shot).await {
                Outcome::Done { images, stages } => return End::Done { images, stages },
                Outcome::Failed { reason } => return End::Failed { reason },
                Outcome::Rejected { status, retry_after } => (status, retry_after),
            };
            let Some(told) = told else { return End::Rejected { status } };
            refusals.push(Refusal { sent: sent_last, told });
            if refusals.len() > retries as usize {
                return End::Rejected { status };
            }
            sleep(told).await;
        }
    };
    let end = match order.leave {
        Some(leave) if leave < limit => timeout_at(sent + leave, attempts).await.unwrap_or(End::Cancelled),
        _ => timeout_at(sent + limit, attempts).await.unwrap_or(End::Failed { reason: format!("no answer within {limit:?}") }),
    };
    Flown { order, sent, sent_last, ended: Instant::now(), end, refusals }
}
