//! What a load is sent to: one request in, one outcome out. Letting go of a request's future is going away.

mod counters;
mod http;
mod service;

pub use counters::Counters;
pub use http::{HttpTarget, UrlError};
pub use service::ServiceTarget;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::Kind;

/// One request to send.
#[derive(Clone, Debug)]
pub struct Shot {
    /// What is asked for.
    pub kind: Arc<Kind>,
    /// Which of the kind's prompts; beyond the last one the count starts again.
    pub prompt: usize,
    /// The seed, at most 2^53 − 1.
    pub seed: u64,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// With pictures.
    Done {
        /// How many.
        images: u32,
        /// Where the slowest one's time went; `None` where the answer does not tell.
        stages: Option<Stages>,
    },
    /// It was not accepted.
    Rejected {
        /// 429 or 503.
        status: u16,
        /// When it may be tried again.
        retry_after: Option<Duration>,
    },
    /// Anything else.
    Failed {
        /// In a few words, the same for the same cause.
        reason: String,
    },
}

/// Where a picture's time went, as the server tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages {
    /// From submission to the start of its preparation.
    pub queue: Duration,
    /// Encoding prompts and pictures.
    pub prepare: Duration,
    /// From the end of preparation to the last step.
    pub steps: Duration,
    /// Latents to pixels.
    pub decode: Duration,
    /// Pixels to a file.
    pub encode: Duration,
}

impl Stages {
    /// All of it.
    pub fn total(&self) -> Duration {
        self.queue + self.prepare + self.steps + self.decode + self.encode
    }
}

/// Something that makes pictures.
pub trait Target: Send + Sync + 'static {
    /// Sends one request as that tenant and waits for its outcome. Dropping the future cancels it.
    fn send(&self, shot: &Shot) -> impl Future<Output = Outcome> + Send;

    /// What the server has counted since it started.
    ///
    /// # Errors
    /// A sentence that says why the counters cannot be read.
    fn counters(&self) -> impl Future<Output = Result<Counters, String>> + Send;
}

/// So that who loads a target still has it afterwards.
impl<T: Target> Target for Arc<T> {
    fn send(&self, shot: &Shot) -> impl Future<Output = Outcome> + Send {
        T::send(self, shot)
    }

    fn counters(&self) -> impl Future<Output = Result<Counters, String>> + Send {
        T::counters(self)
    }
}
