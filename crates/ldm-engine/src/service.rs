//! The handle in front of the device thread: admission, readiness, shutdown.

use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ldm_core::{Catalogue, Failure, FailureKind, Request};

use crate::device::Command;
use crate::guard::lock;
use crate::permits::{Load, Permits};
use crate::state::{Readiness, State};
use crate::ticket::{Ticket, issue};
use crate::{Executor, Monitor, worker};

/// How much is taken on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Jobs that may be unfinished at once, waiting and running together.
    pub queue: usize,
    /// Jobs that may be on the device at once, at least 1.
    pub running: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { queue: 64, running: 16 }
    }
}

/// Why jobs were not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The models are still being loaded or warmed up.
    #[error("the models are not loaded yet")]
    NotReady,
    /// The service is shutting down.
    #[error("the service is shutting down")]
    Draining,
    /// The models could not be loaded, or the device was retired.
    #[error("the device is out of service: {0}")]
    Failed(String),
    /// There is no place now.
    #[error("all {limit} places are taken; try again in {} s", .retry_after.as_secs())]
    Full {
        /// Jobs that may be unfinished at once.
        limit: usize,
        /// When a place should be free, from measured job times; at least one second.
        retry_after: Duration,
    },
    /// More at once than there are places: waiting does not help.
    #[error("{asked} pictures were asked for at once; there are {limit} places")]
    TooMany {
        /// Jobs that were submitted together.
        asked: usize,
        /// Jobs that may be unfinished at once.
        limit: usize,
    },
    /// The model that a request names is not served here.
    #[error("{0}")]
    Unsupported(Failure),
}

/// A cheap handle to a device and its queue. The device thread ends when all handles and tickets are gone, or by
/// [`drain`](Self::drain).
#[derive(Clone)]
pub struct Service {
    state: Arc<State>,
    door: Arc<Door>,
}

/// The way in. Admissions and the order to stop pass one at a time, so none comes behind the order to stop.
struct Door {
    inbox: Mutex<mpsc::Sender<Command>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    running: usize,
}

impl Service {
    /// Starts the device thread; on it `load` makes the executor, which then makes one tiny picture to warm up.
    ///
    /// `load` failing, or the warm-up, shows as [`Readiness::Failed`].
    pub fn start<E, F>(limits: Limits, monitor: Arc<dyn Monitor>, load: F) -> Service
    where
        E: Executor + 'static,
        F: FnOnce() -> Result<E, Failure> + Send + 'static,
    {
        let running = limits.running.max(1);
        let state = State::new(Permits::new(limits.queue, monitor));
        let (inbox, commands) = mpsc::channel();
        let thread = worker::spawn(Arc::clone(&state), commands, running, load);
        Self { state, door: Arc::new(Door { inbox: Mutex::new(inbox), thread: Mutex::new(thread), running }) }
    }

    /// Whether jobs are taken.
    pub fn readiness(&self) -> Readiness {
        self.state.readiness()
    }

    /// Waits until jobs are taken, or until it is clear that they will not be; then the error says why.
    pub async fn wait_ready(&self) -> Result<Arc<Catalogue>, String> {
        let mut readiness = self.state.readiness.subscribe();
        let settled = readiness.wait_for(|now| !matches!(now, Readiness::Loading | Readiness::WarmingUp)).await;
        match settled.as_deref() {
            Ok(Readiness::Ready) => self.catalogue().ok_or_else(|| "there is no catalogue".to_owned()),
            Ok(Readiness::Failed(reason)) => Err(reason.clone()),
            _ => Err(Refused::Draining.to_string()),
        }
    }

    /// Waits until the device thread has ended, and with it every job: after a drain, a failed load, or when the device was
    /// retired; [`readiness`](Self::readiness) says which.
    pub async fn ended(&self) {
        // The sender lives in the state that this handle holds, so there is no error.
        let _ = self.state.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// What may be asked for; known once the models are loaded.
    pub fn catalogue(&self) -> Option<Arc<Catalogue>> {
        self.state.catalogue.get().cloned()
    }

    /// How much there is to do.
    pub fn load(&self) -> Load {
        self.state.permits.load()
    }

    /// Accepts all requests, each with a ticket, or none of them.
    pub fn submit(&self, requests: Vec<Request>) -> Result<Vec<Ticket>, Refused> {
        let inbox = lock(&self.door.inbox);
        match self.readiness() {
            Readiness::Ready => {}
            Readiness::Loading | Readiness::WarmingUp => return Err(Refused::NotReady),
            Readiness::Draining => return Err(Refused::Draining),
            Readiness::Failed(reason) => return Err(Refused::Failed(reason)),
        }
        self.check_models(&requests)?;
        let count = requests.len();
        let limit = self.load().limit;
        if count > limit {
            return Err(Refused::TooMany { asked: count, limit });
        }
        let permits = self.state.permits.take(count).map_err(|load| self.full(count, load))?;
        let ahead = self.load().queued.saturating_sub(count);
        let jobs = requests.into_iter().zip(permits).enumerate();
        let (reporters, tickets): (Vec<_>, Vec<_>) =
            jobs.map(|(i, (request, permit))| issue(request, permit, ahead + i, inbox.clone())).unzip();
        for reporter in &reporters {
            self.state.permits.monitor().accepted(&reporter.request);
        }
        match inbox.send(Command::Admit(reporters)) {
            Ok(()) => Ok(tickets),
            Err(_) => Err(Refused::Failed("the device thread has ended".to_owned())),
        }
    }

    fn check_models(&self, requests: &[Request]) -> Result<(), Refused> {
        let catalogue = self.catalogue();
        let served = |id: &str| catalogue.as_deref().is_some_and(|catalogue| catalogue.model(Some(id)).is_some());
        match requests.iter().find(|request| !served(&request.model)) {
            None => Ok(()),
            Some(request) => {
                let message = format!("model {:?} is not served here", request.model);
                Err(Refused::Unsupported(Failure::new(FailureKind::Unsupported, message)))
            }
        }
    }

    fn full(&self, count: usize, load: Load) -> Refused {
        let unfinished = load.queued + load.running;
        let missing = (unfinished + count).saturating_sub(load.limit);
        let abreast = unfinished.min(self.door.running);
        Refused::Full { limit: load.limit, retry_after: lock(&self.state.pace).wait(missing, abreast) }
    }

    /// Takes no more jobs, lets the accepted ones finish within `grace`, fails the rest with
    /// [`FailureKind::ShuttingDown`], and returns when the device thread has ended.
    ///
    /// A load or a step that is under way is not interrupted: who cannot wait for it puts a timeout around this.
    pub async fn drain(&self, grace: Duration) {
        {
            let inbox = lock(&self.door.inbox);
            self.state.becomes(Readiness::Draining);
            let now = Instant::now();
            // A grace beyond the clock's end is none at all to worry about: a year.
            let deadline = now.checked_add(grace).unwrap_or_else(|| now + Duration::from_secs(365 * 24 * 3600));
            // When the thread is gone, it is as stopped as it can be.
            let _ = inbox.send(Command::Stop(deadline));
        }
        self.ended().await;
        let thread = lock(&self.door.thread).take();
        if let Some(thread) = thread {
            // It has said that it ended, so this does not block; its panics are caught within.
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("readiness", &self.readiness()).field("load", &self.load()).finish_non_exhaustive()
    }
}
