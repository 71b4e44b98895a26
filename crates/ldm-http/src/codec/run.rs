//! Threads on which pictures are read and written, so that the runtime's are not held up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::Unwritable;
use crate::error::ApiError;
use crate::{HttpLimits, Metrics};

/// Pictures of so many pixels are written where they are.
const TINY: u64 = 16 * 16;

/// Runs what takes long on threads for that, a few at a time.
#[derive(Clone)]
pub(crate) struct Codec {
    permits: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl Codec {
    pub(crate) fn new(limits: &HttpLimits, metrics: Arc<Metrics>) -> Self {
        Self { permits: Arc::new(Semaphore::new(limits.encoders.clamp(1, Semaphore::MAX_PERMITS))), metrics }
    }

    /// Runs `work` on a thread that may block. The place is given back when the work is done, even if nobody waits for it.
    pub(crate) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| ApiError::internal())?;
        let worked = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        worked.await.map_err(|error| {
            tracing::error!(%error, "a picture could not be worked on");
            ApiError::internal()
        })
    }

    /// What `write` makes of a picture of so many pixels, and how long that took.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        pixels: u64,
        write: impl FnOnce() -> Result<T, Unwritable> + Send + 'static,
    ) -> Result<(T, Duration), ApiError> {
        let metrics = Arc::clone(&self.metrics);
        let timed = move || {
            let started = Instant::now();
            let written = write();
            let took = started.elapsed();
            metrics.encoded(took);
            written.map(|written| (written, took))
        };
        // What takes microseconds is not worth another thread.
        let written = if pixels <= TINY { timed() } else { self.run(timed).await? };
        written.map_err(|error| {
            tracing::error!(%error, "a picture could not be written");
            ApiError::internal()
        })
    }
}
