//! What the device thread and the service's handles both see.

use std::sync::{Arc, Mutex, OnceLock};

use ldm_core::Catalogue;
use tokio::sync::watch;

use crate::pace::Pace;
use crate::permits::Permits;

/// Whether jobs are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// The models are being loaded.
    Loading,
    /// A first picture is being made.
    WarmingUp,
    /// Jobs are taken.
    Ready,
    /// The service is shutting down; accepted jobs may still finish.
    Draining,
    /// The models could not be loaded, or the device was retired; the text says why.
    Failed(String),
}

/// What the device thread and the service's handles both see.
pub(crate) struct State {
    pub(crate) permits: Arc<Permits>,
    pub(crate) pace: Mutex<Pace>,
    pub(crate) catalogue: OnceLock<Arc<Catalogue>>,
    pub(crate) readiness: watch::Sender<Readiness>,
    /// The device thread has ended, and every job with it.
    pub(crate) ended: watch::Sender<bool>,
}

impl State {
    pub(crate) fn new(permits: Arc<Permits>) -> Arc<Self> {
        Arc::new(Self {
            permits,
            pace: Mutex::default(),
            catalogue: OnceLock::new(),
            readiness: watch::Sender::new(Readiness::Loading),
            ended: watch::Sender::new(false),
        })
    }

    pub(crate) fn readiness(&self) -> Readiness {
        self.readiness.borrow().clone()
    }

    /// Moves on to `next`. Draining and failing are for good.
    pub(crate) fn becomes(&self, next: Readiness) {
        self.readiness.send_if_modified(|now| {
            let moves = !matches!(now, Readiness::Draining | Readiness::Failed(_));
            if moves {
                *now = next;
            }
            moves
        });
    }
}
