//! What a named job tells while it runs here, and how it is stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ldm_core::Progress;
use tokio::sync::{Notify, watch};

/// Where a job of one or more pictures is.
#[derive(Clone, Debug, Default)]
pub struct Sight {
    /// Each picture's progress; `None` once it is finished, or before anything is known.
    pub parts: Vec<Option<Progress>>,
    /// Pictures that are finished.
    pub done: usize,
    /// It runs here no longer: the ledger knows how it ended, or who holds it.
    pub over: bool,
}

/// The newest sight, and all that follow. Some may be missed, the last is not.
pub type Sightings = watch::Receiver<Sight>;

/// A job that runs here.
pub(super) struct Watched {
    sight: watch::Sender<Sight>,
    cancelled: AtomicBool,
    lost: AtomicBool,
    stop: Arc<Notify>,
}

impl Watched {
    pub(super) fn new() -> Self {
        let (cancelled, lost) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { sight: watch::Sender::new(Sight::default()), cancelled, lost, stop: Arc::default() }
    }

    pub(super) fn subscribe(&self) -> Sightings {
        self.sight.subscribe()
    }

    pub(super) fn tell(&self, change: impl FnOnce(&mut Sight)) {
        self.sight.send_modify(change);
    }

    pub(super) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
        self.stop.notify_one();
    }

    /// Another node has it: it ends here without a word.
    pub(super) fn lose(&self) {
        self.lost.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Waits until it is to stop.
    pub(super) async fn stopped(&self) {
        while !self.cancelled.load(Ordering::Relaxed) {
            self.stop.notified().await;
        }
    }
}
