//! The sending end of a job's events: progress, of which some may be lost, and exactly one ending, which may not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ldm_core::{Checkpoint, Ending, Failure, FailureKind, JobId, Progress, Request, Terms};
use tokio::sync::{oneshot, watch};

use crate::permits::Permit;

/// Who keeps a job's checkpoints for a later process. Called on device threads: must not block.
pub trait Keeper: Send + Sync + 'static {
    /// The job can go on from here.
    fn keep(&self, checkpoint: Checkpoint);
}

/// What the device holds of a job's watcher. Dropped without an ending, it says that the worker ended, so every accepted job
/// ends exactly once, whatever happens to the thread.
pub(crate) struct Reporter {
    pub(crate) id: JobId,
    pub(crate) request: Arc<Request>,
    pub(crate) terms: Terms,
    pub(crate) submitted: Instant,
    pub(crate) progress: watch::Sender<Progress>,
    /// Set by the ticket, wherever the job is.
    pub(crate) cancelled: Arc<AtomicBool>,
    pub(crate) keeper: Option<Arc<dyn Keeper>>,
    /// Taken by the ending.
    pub(crate) open: Option<(oneshot::Sender<Ending>, Permit)>,
}

impl Reporter {
    /// The job goes from the queue to the device, or goes on there.
    pub(crate) fn start(&mut self) {
        if let Some((_, permit)) = &mut self.open {
            permit.start();
        }
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Tells where the job is, unless that is where it was.
    pub(crate) fn progress(&self, progress: Progress) {
        self.progress.send_if_modified(|now| {
            let moves = *now != progress;
            if moves {
                *now = progress;
            }
            moves
        });
    }

    /// Tells how the job ended.
    pub(crate) fn end(mut self, ending: Ending) {
        self.close(ending);
    }

    // The permit and the monitor come first, so that whoever has seen the ending finds the place free and the metrics true.
    fn close(&mut self, ending: Ending) {
        let Some((sender, permit)) = self.open.take() else { return };
        let permits = Arc::clone(permit.permits());
        drop(permit);
        permits.monitor().ended(&self.request, &self.terms, &ending);
        let after_ms = self.submitted.elapsed().as_millis() as u64;
        match &ending {
            Ending::Failed(failure) => tracing::debug!(job = %self.id, ending = ending.reason(), after_ms, %failure, "job ended"),
            _ => tracing::debug!(job = %self.id, ending = ending.reason(), after_ms, "job ended"),
        }
        // Nobody listens when the ticket was dropped.
        let _ = sender.send(ending);
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        let kind = if std::thread::panicking() { FailureKind::Panicked } else { FailureKind::Device };
        self.close(Ending::Failed(Failure::new(kind, "the worker ended before the job did")));
    }
}
