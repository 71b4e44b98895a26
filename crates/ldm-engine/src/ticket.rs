//! The receiving end of a job's events. Letting go of it cancels the job. [`Watch`] looks on, and holds nothing up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use ldm_core::{Ending, Event, Failure, FailureKind, JobId, Progress, Request};
use tokio::sync::{oneshot, watch};

use crate::permits::Permit;
use crate::pool::Pool;
use crate::reporter::Reporter;
use crate::service::Submission;

/// A job that was accepted. Dropping it before the ending cancels the job, at the next step at the latest.
pub struct Ticket {
    id: JobId,
    request: Arc<Request>,
    pool: Arc<Pool>,
    progress: watch::Receiver<Progress>,
    ending: oneshot::Receiver<Ending>,
    /// The ending was handed out.
    ended: bool,
    cancelled: Arc<AtomicBool>,
}

/// The two ends of a new job's events; `position` is its first place in the queue.
pub(crate) fn issue(submission: Submission, permit: Permit, position: usize, pool: Arc<Pool>) -> (Reporter, Ticket) {
    let Submission { request, terms, id, keeper, .. } = submission;
    let id = id.unwrap_or_else(JobId::new);
    let (progress, mut watcher) = watch::channel(Progress::Queued { position });
    watcher.mark_changed();
    let (sender, ending) = oneshot::channel();
    let cancelled = Arc::new(AtomicBool::new(false));
    let reporter = Reporter {
        id,
        request: Arc::clone(&request),
        terms,
        submitted: Instant::now(),
        progress,
        cancelled: Arc::clone(&cancelled),
        keeper,
        open: Some((sender, permit)),
    };
    (reporter, Ticket { id, request, pool, progress: watcher, ending, ended: false, cancelled })
}

impl Ticket {
    /// The job's name.
    pub fn id(&self) -> JobId {
        self.id
    }

    /// What was asked for.
    pub fn request(&self) -> &Arc<Request> {
        &self.request
    }

    /// A look at the job for others.
    pub fn watch(&self) -> Watch {
        let Self { id, request, pool, progress, cancelled, .. } = self;
        let (request, pool) = (Arc::clone(request), Arc::downgrade(pool));
        Watch { id: *id, request, pool, progress: progress.clone(), cancelled: Arc::clone(cancelled) }
    }

    /// The next event: the newest progress that was not told yet, at the end the ending, then `None`.
    ///
    /// Cancel-safe: an event that was not returned is returned by the next call.
    pub async fn next(&mut self) -> Option<Event> {
        if self.ended {
            return None;
        }
        let ending = tokio::select! {
            biased;
            Ok(()) = self.progress.changed() => return Some(Event::Progress(self.progress.borrow().clone())),
            ending = &mut self.ending => ending,
        };
        self.ended = true;
        Some(Event::Ended(told(ending)))
    }

    /// Waits for the ending.
    ///
    /// After [`next`](Self::next) has handed the ending out there is none left, and this says that the worker ended.
    pub async fn finished(mut self) -> Ending {
        if self.ended {
            return told(Err(()));
        }
        let ending = (&mut self.ending).await;
        self.ended = true;
        told(ending)
    }

    /// Cancels the job; it ends as cancelled, unless it ends otherwise before the next step.
    pub fn cancel(&self) {
        if !self.cancelled.swap(true, Ordering::Relaxed) {
            self.pool.cancel(self.id);
        }
    }
}

/// Somebody else's look at a job: where it is, and how to stop it. It keeps neither the job nor the service alive.
#[derive(Clone)]
pub struct Watch {
    id: JobId,
    request: Arc<Request>,
    pool: Weak<Pool>,
    progress: watch::Receiver<Progress>,
    cancelled: Arc<AtomicBool>,
}

impl Watch {
    /// The job's name.
    pub fn id(&self) -> JobId {
        self.id
    }

    /// What was asked for.
    pub fn request(&self) -> &Arc<Request> {
        &self.request
    }

    /// Where the job is, or was when it ended.
    pub fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// Waits for progress that was not seen by this watch yet; `false` when the job has ended.
    ///
    /// Cancel-safe.
    pub async fn changed(&mut self) -> bool {
        self.progress.changed().await.is_ok()
    }

    /// As [`Ticket::cancel`].
    pub fn cancel(&self) {
        if !self.cancelled.swap(true, Ordering::Relaxed)
            && let Some(pool) = self.pool.upgrade()
        {
            pool.cancel(self.id);
        }
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("id", &self.id).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").field("id", &self.id).field("ended", &self.ended).finish_non_exhaustive()
    }
}

// A reporter cannot be dropped without telling the ending, so the error has never been seen.
fn told<E>(ending: Result<Ending, E>) -> Ending {
    ending.unwrap_or_else(|_| Ending::Failed(Failure::new(FailureKind::Device, "the worker ended before the job did")))
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.ended {
            self.cancel();
        }
    }
}
