//! The receiving end of a job's events. Letting go of it cancels the job.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use ldm_core::{Ending, Event, Failure, FailureKind, JobId, Progress, Request};
use tokio::sync::{oneshot, watch};

use crate::device::Command;
use crate::permits::Permit;
use crate::reporter::Reporter;

/// A job that was accepted. Dropping it before the ending cancels the job, at the next step at the latest.
#[derive(Debug)]
pub struct Ticket {
    id: JobId,
    request: Arc<Request>,
    inbox: mpsc::Sender<Command>,
    progress: watch::Receiver<Progress>,
    ending: oneshot::Receiver<Ending>,
    /// The ending was handed out.
    ended: bool,
    cancelled: AtomicBool,
}

/// The two ends of a new job's events; `position` is its first place in the queue.
pub(crate) fn issue(request: Request, permit: Permit, position: usize, inbox: mpsc::Sender<Command>) -> (Reporter, Ticket) {
    let (id, request) = (JobId::new(), Arc::new(request));
    let (progress, mut watcher) = watch::channel(Progress::Queued { position });
    watcher.mark_changed();
    let (sender, ending) = oneshot::channel();
    let reporter =
        Reporter { id, request: Arc::clone(&request), submitted: Instant::now(), progress, open: Some((sender, permit)) };
    let cancelled = AtomicBool::new(false);
    (reporter, Ticket { id, request, inbox, progress: watcher, ending, ended: false, cancelled })
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
            // When the device thread is gone, the job has ended already.
            let _ = self.inbox.send(Command::Cancel(self.id));
        }
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
