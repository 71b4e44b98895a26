//! What the device threads and the service's handles both see.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use ldm_core::{Catalogue, JobId, Priority};
use tokio::sync::watch;

use crate::cost::Costs;
use crate::guard::lock;
use crate::pace::Pace;
use crate::permits::Permits;
use crate::quotes::Quotes;
use crate::scheduler::Scheduler;
use crate::{Monitor, Resident};

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
    /// The models could not be loaded, or every device is out of service; the text says why.
    Failed(String),
}

/// What all devices share.
pub(crate) struct State {
    pub(crate) permits: Arc<Permits>,
    pub(crate) pace: Mutex<Pace>,
    pub(crate) catalogue: watch::Sender<Option<Arc<Catalogue>>>,
    pub(crate) readiness: watch::Sender<Readiness>,
    /// Every device thread has ended, and every job with them.
    pub(crate) ended: watch::Sender<bool>,
    began: Instant,
    workers: Mutex<Vec<(Readiness, bool)>>,
}

impl State {
    pub(crate) fn new(permits: Arc<Permits>, workers: usize) -> Arc<Self> {
        Arc::new(Self {
            permits,
            pace: Mutex::default(),
            catalogue: watch::Sender::new(None),
            readiness: watch::Sender::new(Readiness::Loading),
            ended: watch::Sender::new(false),
            began: Instant::now(),
            workers: Mutex::new(vec![(Readiness::Loading, false); workers]),
        })
    }

    pub(crate) fn readiness(&self) -> Readiness {
        self.readiness.borrow().clone()
    }

    /// Takes no more jobs; for good.
    pub(crate) fn drains(&self) {
        self.readiness.send_replace(Readiness::Draining);
    }

    /// The clock of all schedulers.
    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn worker(&self, index: usize, change: impl FnOnce(&mut (Readiness, bool))) {
        let mut workers = lock(&self.workers);
        change(&mut workers[index]);
        let together = together(workers.iter().map(|(readiness, _)| readiness));
        self.readiness.send_if_modified(|now| {
            let moves = *now != Readiness::Draining && *now != together;
            if moves {
                *now = together;
            }
            moves
        });
        if workers.iter().all(|(_, ended)| *ended) {
            self.ended.send_replace(true);
        }
    }
}

/// The best of all workers: one that is ready is enough.
fn together<'a>(workers: impl Iterator<Item = &'a Readiness> + Clone) -> Readiness {
    for wanted in [Readiness::Ready, Readiness::WarmingUp, Readiness::Loading] {
        if workers.clone().any(|readiness| *readiness == wanted) {
            return wanted;
        }
    }
    let mut reasons: Vec<&str> = workers
        .filter_map(|readiness| match readiness {
            Readiness::Failed(reason) => Some(reason.as_str()),
            _ => None,
        })
        .collect();
    reasons.dedup();
    Readiness::Failed(if reasons.is_empty() { "no device is left".to_owned() } else { reasons.join("; ") })
}

/// What one device and the service's handles both see.
pub(crate) struct Desk {
    pub(crate) name: String,
    pub(crate) state: Arc<State>,
    index: usize,
    book: Mutex<Book>,
}

/// A device's queue, and what it knows of costs. Locked for microseconds.
pub(crate) struct Book {
    pub(crate) scheduler: Scheduler<JobId>,
    pub(crate) costs: Costs,
    pub(crate) quotes: Quotes,
    pub(crate) residents: Vec<Resident>,
    /// How long models took to load.
    pub(crate) loads: HashMap<String, Duration>,
    /// Jobs in the inbox, and those that wait for their model.
    pub(crate) coming: HashMap<JobId, Coming>,
}

/// A job that has not come to the scheduler yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Coming {
    pub(crate) priority: Priority,
    pub(crate) since: Instant,
    /// What it takes by itself.
    pub(crate) cost: Duration,
}

impl Book {
    /// What the jobs that have not come to the scheduler take.
    pub(crate) fn on_the_way(&self) -> Duration {
        self.coming.values().map(|coming| coming.cost).sum()
    }

    /// Every job has gone.
    pub(crate) fn clear(&mut self) {
        self.scheduler.clear();
        self.residents.clear();
        self.coming.clear();
    }
}

impl Desk {
    pub(crate) fn new(name: String, index: usize, state: Arc<State>, scheduler: Scheduler<JobId>, costs: Costs) -> Arc<Self> {
        let book = Book {
            scheduler,
            costs,
            quotes: Quotes::default(),
            residents: Vec::new(),
            loads: HashMap::new(),
            coming: HashMap::new(),
        };
        Arc::new(Self { name, state, index, book: Mutex::new(book) })
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.book)
    }

    pub(crate) fn now(&self) -> Duration {
        self.state.now()
    }

    /// That moment on the clock of all schedulers.
    pub(crate) fn at(&self, moment: Instant) -> Duration {
        moment.saturating_duration_since(self.state.began)
    }

    /// The job has come to the scheduler, or has ended.
    pub(crate) fn arrived(&self, id: JobId) {
        self.book().coming.remove(&id);
    }

    pub(crate) fn offers(&self, catalogue: Catalogue) {
        self.state.catalogue.send_replace(Some(Arc::new(catalogue)));
    }

    pub(crate) fn readiness(&self) -> Readiness {
        lock(&self.state.workers)[self.index].0.clone()
    }

    pub(crate) fn becomes(&self, next: Readiness) {
        self.state.worker(self.index, |(now, _)| *now = next);
    }

    pub(crate) fn ends(&self) {
        self.state.worker(self.index, |(now, ended)| {
            if !matches!(now, Readiness::Failed(_)) {
                *now = Readiness::Failed("the device thread has ended".to_owned());
            }
            *ended = true;
        });
    }

    /// A job has a picture.
    pub(crate) fn finished_one(&self) {
        lock(&self.state.pace).record(self.now());
    }

    pub(crate) fn monitor(&self) -> &dyn Monitor {
        self.state.permits.monitor()
    }
}
