//! The handle in front of the devices: admission, estimates, readiness, shutdown.

use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use ldm_core::{Catalogue, Checkpoint, Failure, FailureKind, JobId, Request, Terms};

use crate::cost::Costs;
use crate::device::Habits;
use crate::executor::ModelChange;
use crate::guard::lock;
use crate::job::Parcel;
use crate::permits::{Bounds, Load, Permits, Short};
use crate::pool::{Offer, Pool, Seat};
use crate::scheduler::{self, Policy, Scheduler};
use crate::state::{Desk, Readiness, State};
use crate::ticket::{Ticket, issue};
use crate::worker::{Post, Worker, spawn};
use crate::{Executor, Keeper, Monitor, Resident};

/// How much is taken on.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Jobs that may be unfinished at once, waiting and running together.
    pub queue: usize,
    /// Jobs that may be on a device at once, at least 1.
    pub running: usize,
    /// Jobs of one tenant that may be unfinished at once.
    pub per_tenant: usize,
    /// Bytes that unfinished jobs may hold: requests and pictures.
    pub bytes: usize,
    /// Rows that a network call may have, at most.
    pub rows: u32,
    /// Bytes that a device's loaded models may take.
    pub model_memory: u64,
    /// How often a running job is checkpointed.
    pub checkpoint_every: Duration,
    /// For how long calls of a model are measured, by and large, while nothing else is to be done; zero: not at all.
    pub rehearsal: Duration,
    /// In which order work is done.
    pub policy: Policy,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue: 64,
            running: 16,
            per_tenant: usize::MAX,
            bytes: 1 << 30,
            rows: 16,
            model_memory: u64::MAX,
            checkpoint_every: Duration::from_secs(10),
            rehearsal: Duration::from_secs(10),
            policy: Policy::Steps,
        }
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
    /// The models could not be loaded, or every device is out of service.
    #[error("the device is out of service: {0}")]
    Failed(String),
    /// There is no place now.
    #[error("all {limit} places are taken; try again in {} s", whole(*.retry_after))]
    Full {
        /// Jobs that may be unfinished at once.
        limit: usize,
        /// When a place should be free.
        retry_after: Duration,
    },
    /// The tenant has no place now.
    #[error("{held} jobs of this client are unfinished, and {limit} may be; try again in {} s", whole(*.retry_after))]
    TenantFull {
        /// Jobs of the tenant that are unfinished.
        held: usize,
        /// How many may be.
        limit: usize,
        /// When a place should be free.
        retry_after: Duration,
    },
    /// There is no memory for the pictures of the request now.
    #[error("unfinished jobs hold {held} of {limit} bytes, and this one needs {needed}; try again in {} s", whole(*.retry_after))]
    NoRoom {
        /// Bytes that unfinished jobs hold.
        held: usize,
        /// What they may hold.
        limit: usize,
        /// What the request holds.
        needed: usize,
        /// When there should be room.
        retry_after: Duration,
    },
    /// The deadline can't be met.
    #[error("the deadline is in {} ms, and the picture would be there in about {} ms", .deadline.as_millis(), .needed.as_millis())]
    Deadline {
        /// The deadline, from now.
        deadline: Duration,
        /// When the picture would be there, from now.
        needed: Duration,
        /// When asking again should help; `None`: never, the job alone takes longer.
        retry_after: Option<Duration>,
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

/// Seconds as `Retry-After` has them.
fn whole(time: Duration) -> u64 {
    time.as_secs_f64().ceil() as u64
}

/// A picture that is asked for, and under which terms.
#[derive(Clone)]
pub struct Submission {
    /// What.
    pub request: Arc<Request>,
    /// On whose behalf, how urgently.
    pub terms: Terms,
    /// The job's name, if it has one already.
    pub id: Option<JobId>,
    /// Where an earlier process left off.
    pub checkpoint: Option<Checkpoint>,
    /// It may have broken a process: it shares no call.
    pub alone: bool,
    /// Who keeps its checkpoints.
    pub keeper: Option<Arc<dyn Keeper>>,
}

impl Submission {
    /// A new job.
    pub fn new(request: Request, terms: &Terms) -> Self {
        Self { request: Arc::new(request), terms: terms.clone(), id: None, checkpoint: None, alone: false, keeper: None }
    }
}

/// What a job would take, if it were submitted now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// Until it begins.
    pub queue: Duration,
    /// Until the picture is there: half of such jobs take less.
    pub p50: Duration,
    /// Until the picture is there: nineteen of twenty such jobs take less.
    pub p95: Duration,
    /// Rows that it adds to a network call.
    pub rows: u32,
    /// Network calls.
    pub evaluations: u32,
    /// Memory of the device at the most, about, in bytes: the model's weights and what the picture needs besides; `None` where the
    /// device does not know.
    pub peak_bytes: Option<u64>,
}

/// How a worker stands.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerStatus {
    /// Its name.
    pub name: String,
    /// Whether it takes jobs.
    pub readiness: Readiness,
    /// Jobs that wait for it, by priority.
    pub waiting: [usize; 2],
    /// How long the first of them has waited, by priority.
    pub oldest_wait: [Duration; 2],
    /// Device seconds of what is unfinished here.
    pub outstanding: f64,
    /// Its models.
    pub residents: Vec<Resident>,
}

/// A cheap handle to the devices and their queues. The device threads end when all handles and tickets are gone, or by
/// [`drain`](Self::drain).
#[derive(Clone)]
pub struct Service {
    pool: Arc<Pool>,
    /// Admissions and the order to stop pass one at a time, so none comes behind the order to stop.
    gate: Arc<Mutex<()>>,
}

impl Service {
    /// Starts one device thread; on it `load` makes the executor, which then makes one tiny picture to warm up.
    ///
    /// `load` failing, or the warm-up, shows as [`Readiness::Failed`].
    pub fn start<E, F>(limits: Limits, monitor: Arc<dyn Monitor>, load: F) -> Service
    where
        E: Executor + 'static,
        F: FnOnce() -> Result<E, Failure> + Send + 'static,
    {
        Self::pool(limits, monitor, vec![Worker::once("device", load)])
    }

    /// Starts a device thread for each worker.
    ///
    /// # Panics
    /// When there is none.
    pub fn pool<E: Executor + 'static>(limits: Limits, monitor: Arc<dyn Monitor>, workers: Vec<Worker<E>>) -> Service {
        assert!(!workers.is_empty(), "a service has workers");
        let bounds = Bounds { jobs: limits.queue, bytes: limits.bytes, per_tenant: limits.per_tenant };
        let state = State::new(Permits::new(bounds, monitor), workers.len());
        let (mut seats, mut inboxes) = (Vec::new(), Vec::new());
        for (index, worker) in workers.iter().enumerate() {
            let scheduler = Scheduler::new(scheduler::Bounds { running: limits.running.max(1) }, limits.policy);
            let costs = Costs::new(limits.rows.max(1));
            let (inbox, commands) = mpsc::channel();
            let desk = Desk::new(worker.name.clone(), index, Arc::clone(&state), scheduler, costs);
            seats.push(Seat { desk, inbox: Mutex::new(inbox), thread: Mutex::new(None) });
            inboxes.push(commands);
        }
        let Limits { checkpoint_every, model_memory: memory, rehearsal, .. } = limits;
        let habits = Habits { checkpoint_every, memory, rehearsal };
        let pool = Arc::new(Pool::new(seats, state));
        for ((seat, inbox), worker) in pool.seats.iter().zip(inboxes).zip(workers) {
            let post = Post { desk: Arc::clone(&seat.desk), inbox, habits, pool: Arc::downgrade(&pool) };
            *lock(&seat.thread) = spawn(post, worker);
        }
        Self { pool, gate: Arc::default() }
    }

    /// Whether jobs are taken.
    pub fn readiness(&self) -> Readiness {
        self.pool.state.readiness()
    }

    /// Waits until jobs are taken, or until it is clear that they will not be; then the error says why.
    pub async fn wait_ready(&self) -> Result<Arc<Catalogue>, String> {
        let mut readiness = self.pool.state.readiness.subscribe();
        let settled = readiness.wait_for(|now| !matches!(now, Readiness::Loading | Readiness::WarmingUp)).await;
        match settled.as_deref() {
            Ok(Readiness::Ready) => self.catalogue().ok_or_else(|| "there is no catalogue".to_owned()),
            Ok(Readiness::Failed(reason)) => Err(reason.clone()),
            _ => Err(Refused::Draining.to_string()),
        }
    }

    /// Waits until every device thread has ended, and with it every job: after a drain, a failed load, or when the devices were
    /// retired for good; [`readiness`](Self::readiness) says which.
    pub async fn ended(&self) {
        // The sender lives in the state that this handle holds, so there is no error.
        let _ = self.pool.state.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// What may be asked for; known once the models are loaded.
    pub fn catalogue(&self) -> Option<Arc<Catalogue>> {
        self.pool.state.catalogue.borrow().clone()
    }

    /// How much there is to do.
    pub fn load(&self) -> Load {
        self.pool.state.permits.load()
    }

    /// How the workers stand.
    pub fn workers(&self) -> Vec<WorkerStatus> {
        self.pool.seats.iter().map(|seat| status(&seat.desk)).collect()
    }

    /// Accepts all requests under the usual terms, each with a ticket, or none of them.
    pub fn submit(&self, requests: Vec<Request>) -> Result<Vec<Ticket>, Refused> {
        self.submit_under(requests, &Terms::default())
    }

    /// Accepts all requests, each with a ticket, or none of them.
    pub fn submit_under(&self, requests: Vec<Request>, terms: &Terms) -> Result<Vec<Ticket>, Refused> {
        self.accept(requests.into_iter().map(|request| Submission::new(request, terms)).collect())
    }

    /// Accepts all, each with a ticket, or none of them. All are on behalf of the tenant of the first.
    pub fn accept(&self, submissions: Vec<Submission>) -> Result<Vec<Ticket>, Refused> {
        let _one_at_a_time = lock(&self.gate);
        self.check_ready()?;
        let Some(first) = submissions.first() else { return Ok(Vec::new()) };
        let tenant = first.terms.tenant.clone();
        self.check_models(&submissions)?;
        let permits = &self.pool.state.permits;
        let load = permits.load();
        if submissions.len() > load.limit {
            return Err(Refused::TooMany { asked: submissions.len(), limit: load.limit });
        }
        let bytes: Vec<usize> = submissions.iter().map(|submission| submission.request.bytes()).collect();
        let held = permits.take(&tenant, &bytes).map_err(|short| self.short(short, &bytes))?;
        // Before anything is sent: all or none.
        let mut wait = Duration::ZERO;
        for submission in &submissions {
            wait = self.check_deadline(submission, wait)?;
        }
        let ahead = load.queued;
        let mut tickets = Vec::with_capacity(submissions.len());
        for (i, (submission, permit)) in submissions.into_iter().zip(held).enumerate() {
            tickets.push(self.send(submission, permit, ahead + i));
        }
        Ok(tickets)
    }

    fn send(&self, submission: Submission, permit: crate::permits::Permit, position: usize) -> Ticket {
        let (checkpoint, alone) = (submission.checkpoint.clone(), submission.alone);
        self.pool.state.permits.monitor().accepted(&submission.request, &submission.terms);
        let (reporter, ticket) = issue(submission, permit, position, Arc::clone(&self.pool));
        self.pool.adopt(vec![Parcel { checkpoint, alone, ..Parcel::new(reporter) }]);
        ticket
    }

    fn check_ready(&self) -> Result<(), Refused> {
        match self.readiness() {
            Readiness::Ready => Ok(()),
            Readiness::Loading | Readiness::WarmingUp => Err(Refused::NotReady),
            Readiness::Draining => Err(Refused::Draining),
            Readiness::Failed(reason) => Err(Refused::Failed(reason)),
        }
    }

    fn check_models(&self, submissions: &[Submission]) -> Result<(), Refused> {
        let catalogue = self.catalogue();
        let served = |id: &str| catalogue.as_deref().is_some_and(|catalogue| catalogue.model(Some(id)).is_some());
        match submissions.iter().find(|submission| !served(&submission.request.model)) {
            None => Ok(()),
            Some(submission) => {
                let message = format!("model {:?} is not served here", submission.request.model);
                Err(Refused::Unsupported(Failure::new(FailureKind::Unsupported, message)))
            }
        }
    }

    /// Whether the deadline can be met behind `wait` of the same request; says how long those behind it wait.
    fn check_deadline(&self, submission: &Submission, wait: Duration) -> Result<Duration, Refused> {
        let Some(deadline) = submission.terms.deadline else { return Ok(wait) };
        let Some(offer) = self.pool.best(&submission.request, &submission.terms) else { return Ok(wait) };
        let needed = offer.finish + wait;
        if needed > deadline {
            let late = needed - deadline;
            return Err(Refused::Deadline { deadline, needed, retry_after: (offer.solo <= deadline).then_some(late) });
        }
        Ok(wait + offer.solo)
    }

    fn short(&self, short: Short, bytes: &[usize]) -> Refused {
        let bounds = self.pool.state.permits.bounds();
        match short {
            Short::Jobs(load) => {
                let missing = (load.queued + load.running + bytes.len()).saturating_sub(load.limit);
                Refused::Full { limit: load.limit, retry_after: self.until_free(missing) }
            }
            Short::Bytes { held } => {
                let needed = bytes.iter().sum();
                Refused::NoRoom { held, limit: bounds.bytes, needed, retry_after: self.until_free(bytes.len()) }
            }
            Short::Tenant { held } => {
                let missing = (held + bytes.len()).saturating_sub(bounds.per_tenant);
                Refused::TenantFull { held, limit: bounds.per_tenant, retry_after: self.until_free(missing) }
            }
        }
    }

    /// How long until so many jobs have ended, as far as is known.
    pub fn until_free(&self, places: usize) -> Duration {
        let load = self.load();
        let ready = self.pool.seats.iter().map(|seat| &seat.desk).filter(|desk| desk.readiness() == Readiness::Ready);
        let mut workers = 0u32;
        let mut outstanding = Duration::ZERO;
        for desk in ready {
            let book = desk.book();
            outstanding += seconds(book.scheduler.outstanding(&book.costs)) + book.on_the_way();
            workers += 1;
        }
        let unfinished = (load.queued + load.running).max(1) as u32;
        let expected = outstanding / workers.max(1) * places as u32 / unfinished;
        lock(&self.pool.state.pace).wait(places, expected, self.pool.state.now())
    }

    /// With which others the job could share a call, as a text, and how long it would keep a device busy by itself.
    pub fn quote(&self, request: &Request) -> (String, Duration) {
        let desk = &self.pool.seats[0].desk;
        let book = desk.book();
        let price = book.quotes.quote(request);
        let [channels, height, width] = price.key.latent;
        (format!("{channels}x{height}x{width}"), seconds(book.costs.solo(&price)))
    }

    /// What the job would take.
    ///
    /// # Errors
    /// When no job is taken just now, or none of its model.
    pub fn estimate(&self, request: &Request, terms: &Terms) -> Result<Estimate, Refused> {
        self.check_ready()?;
        self.check_models(&[Submission::new(request.clone(), terms)])?;
        let gone = || Refused::Failed("no device is ready".to_owned());
        let offer @ Offer { start, finish, .. } = self.pool.best(request, terms).ok_or_else(gone)?;
        let book = self.pool.seats[offer.seat].desk.book();
        let price = book.quotes.quote(request);
        let spread = book.costs.spread(&price.key, price.rows);
        let p95 = finish.mul_f64(spread.map_or(1.0, |spread| spread.p95() / spread.mean()).clamp(1.0, 10.0));
        let weights = book.residents.iter().find(|resident| resident.id == request.model).map(|resident| resident.bytes);
        let peak_bytes = book.quotes.working(request).map(|working| working + weights.unwrap_or_default());
        Ok(Estimate { queue: start, p50: finish, p95, rows: price.rows, evaluations: price.evaluations, peak_bytes })
    }

    /// Changes the models of every worker, between two steps; jobs that run keep the weights that they began with.
    ///
    /// # Errors
    /// The first worker's that could not.
    pub async fn change_models(&self, change: ModelChange) -> Result<(), Failure> {
        let mut outcome = Ok(());
        for answer in self.pool.change(&change) {
            let answered = answer.await.unwrap_or_else(|_| Err(Failure::new(FailureKind::Device, "the worker has ended")));
            outcome = outcome.and(answered);
        }
        outcome
    }

    /// Takes no more jobs, lets the accepted ones finish within `grace`, fails the rest with
    /// [`FailureKind::ShuttingDown`], and returns when the device threads have ended.
    ///
    /// A load or a step that is under way is not interrupted: who cannot wait for it puts a timeout around this.
    pub async fn drain(&self, grace: Duration) {
        {
            let _one_at_a_time = lock(&self.gate);
            self.pool.state.drains();
            let now = Instant::now();
            // A grace beyond the clock's end is none at all to worry about: a year.
            self.pool.stop(now.checked_add(grace).unwrap_or_else(|| now + Duration::from_secs(365 * 24 * 3600)));
        }
        self.ended().await;
        for seat in &self.pool.seats {
            let thread = lock(&seat.thread).take();
            if let Some(thread) = thread {
                // It has said that it ended, so this does not block; its panics are caught within.
                let _ = thread.join();
            }
        }
    }
}

/// A span of device time.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

fn status(desk: &Desk) -> WorkerStatus {
    let readiness = desk.readiness();
    let now = desk.now();
    let book = desk.book();
    let mut waiting = book.scheduler.waiting_by_priority();
    let mut oldest_wait = book.scheduler.oldest_wait(now).map(Option::unwrap_or_default);
    for coming in book.coming.values() {
        let at = coming.priority as usize;
        waiting[at] += 1;
        oldest_wait[at] = oldest_wait[at].max(coming.since.elapsed());
    }
    WorkerStatus {
        name: desk.name.clone(),
        readiness,
        waiting,
        oldest_wait,
        outstanding: book.scheduler.outstanding(&book.costs) + book.on_the_way().as_secs_f64(),
        residents: book.residents.clone(),
    }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("readiness", &self.readiness()).field("load", &self.load()).finish_non_exhaustive()
    }
}
