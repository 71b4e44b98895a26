//! The device loop: it owns the executor and every job, and does what the scheduler says, one executor call at a time.

mod faults;
mod models;
mod rehearsal;
mod work;

use std::collections::HashMap;
use std::sync::mpsc::TryRecvError;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use ldm_core::{Ending, Failure, FailureKind, JobId, Progress};
use tokio::sync::oneshot;

use crate::cost::Costs;
use crate::executor::{CacheCounts, ModelChange};
use crate::guard::guarded;
use crate::job::{Job, Parcel};
use crate::scheduler::{Ask, Work};
use crate::state::{Book, Desk};
use crate::warmup;
use crate::{Executor, Monitor, Stage};
pub(crate) use faults::{Retired, late};
use models::Cold;
use rehearsal::Rehearsals;

/// How often those who wait are told their places, when they are many.
const PLACES: Duration = Duration::from_millis(100);
/// So few are told at once.
const FEW: usize = 64;

/// What the handles tell the device thread. The inbox is bounded by the permits: at most an admission and a cancel each.
pub(crate) enum Command {
    /// A new job.
    Admit(Box<Parcel>),
    /// The job's ticket was dropped, or it was told to stop.
    Cancel(JobId),
    /// Finish what is here until then, fail the rest, and end.
    Stop(Instant),
    /// Change the models, and say how that went.
    Change(ModelChange, oneshot::Sender<Result<(), Failure>>),
}

/// How a device treats its jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Habits {
    /// How often a running job is checkpointed.
    pub(crate) checkpoint_every: Duration,
    /// Bytes that loaded models may take.
    pub(crate) memory: u64,
    /// For how long calls of a model are measured while nothing else is to be done.
    pub(crate) rehearsal: Duration,
}

/// The owner of one device: its executor, its queue, its jobs.
pub(crate) struct Device<'a, E: Executor> {
    executor: E,
    inbox: &'a mpsc::Receiver<Command>,
    desk: Arc<Desk>,
    habits: Habits,
    jobs: HashMap<JobId, Job<E::Run>>,
    cold: Cold,
    rehearsals: Rehearsals,
    /// The executor's, as last told.
    cache: CacheCounts,
    /// When the jobs that are still here are failed.
    stop: Option<Instant>,
    /// A call panicked or said that the device is gone: probe before the next.
    suspect: bool,
    /// When those who wait were told their places, and as of which revision of the queue.
    places: (Instant, u64),
}

impl<'a, E: Executor> Device<'a, E> {
    pub(crate) fn new(executor: E, inbox: &'a mpsc::Receiver<Command>, desk: Arc<Desk>, habits: Habits) -> Self {
        let (jobs, cold) = (HashMap::new(), Cold::default());
        let places = (Instant::now(), 0);
        let rehearsals = Rehearsals::new(habits.rehearsal);
        let cache = executor.cache();
        let mut device =
            Self { executor, inbox, desk, habits, jobs, cold, rehearsals, cache, stop: None, suspect: false, places };
        device.note_residents();
        let residents = device.desk.book().residents.clone();
        residents.iter().filter(|resident| resident.loaded).for_each(|resident| device.learn(&resident.id));
        device.quote_usual();
        device
    }

    /// What a usual request of each model costs, so that estimates know of a shape before anybody asked for one.
    fn quote_usual(&mut self) {
        let Ok(catalogue) = self.guarded("catalogue", |executor| Ok(executor.catalogue())) else { return };
        for request in catalogue.models.iter().filter_map(|model| warmup::usual(&catalogue, model)) {
            let price = self.guarded("price", |executor| executor.price(&request));
            let working = self.guarded("working_bytes", |executor| Ok(executor.working_bytes(&request)));
            if let (Ok(price), Ok(working)) = (price, working) {
                self.desk.book().quotes.learn(&request, &price, working);
            }
        }
    }

    /// Works until it is told to stop or nobody is left to tell it anything; the error is a device that is out of service, with
    /// the jobs that were on it.
    pub(crate) fn run(mut self) -> Result<(), Retired> {
        while self.attend() {
            self.warm();
            match self.next() {
                Work::Prepare(id) => self.prepare(id),
                Work::Evaluate(ids) => self.evaluate(ids),
                Work::Decode(id) => self.decode(id),
                Work::Wait(until) => self.wait(until),
                Work::Idle => {}
            }
            if std::mem::take(&mut self.suspect) {
                self.probe()?;
            }
        }
        Ok(())
    }

    fn next(&self) -> Work<JobId> {
        let mut book = self.desk.book();
        let Book { scheduler, costs, .. } = &mut *book;
        scheduler.next(self.desk.now(), costs)
    }

    /// Obeys the commands that have come; waits for one only when there is nothing to do, and nothing to be measured. `false`: it is
    /// time to end.
    fn attend(&mut self) -> bool {
        loop {
            // A suspect device is probed before anything is waited for.
            let idle = self.jobs.is_empty() && !self.suspect;
            if idle && self.stop.is_some() {
                return false;
            }
            let command = if idle && self.rehearsals.is_empty() {
                self.inbox.recv().map_err(|_| TryRecvError::Disconnected)
            } else {
                self.inbox.try_recv()
            };
            match command {
                Ok(command) => self.obey(command),
                // Every handle and ticket is gone.
                Err(TryRecvError::Disconnected) if idle => return false,
                Err(TryRecvError::Empty) if idle => self.rehearse(),
                Err(_) => break,
            }
        }
        if self.stop.is_some_and(|at| at <= Instant::now()) {
            self.end_the_rest();
            return false;
        }
        let mut overdue = self.desk.book().scheduler.overdue(self.desk.now());
        overdue.extend(self.overdue_cold());
        for id in overdue {
            let message = "the deadline passed before the picture was finished";
            self.end(id, Ending::Failed(Failure::new(FailureKind::DeadlineExceeded, message)));
        }
        self.tell_places();
        true
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Admit(parcel) => self.admit(*parcel),
            Command::Cancel(id) => self.end(id, Ending::Cancelled),
            Command::Stop(at) => self.stop = Some(self.stop.map_or(at, |earlier| earlier.min(at))),
            Command::Change(change, done) => {
                // Who asked may have gone.
                let _ = done.send(self.change(&change));
            }
        }
    }

    /// Until then, or until a command comes.
    fn wait(&mut self, until: Duration) {
        if let Ok(command) = self.inbox.recv_timeout(until.saturating_sub(self.desk.now())) {
            self.obey(command);
        }
    }

    fn tell_places(&mut self) {
        let many = self.desk.state.permits.load().queued > FEW;
        if many && self.places.0.elapsed() < PLACES {
            return;
        }
        let waiting = {
            let book = self.desk.book();
            let revision = book.scheduler.revision();
            if revision == self.places.1 {
                return;
            }
            self.places = (Instant::now(), revision);
            book.scheduler.waiting()
        };
        for (position, id) in waiting.into_iter().enumerate() {
            if let Some(job) = self.jobs.get(&id) {
                job.reporter().progress(Progress::Queued { position });
            }
        }
    }

    fn admit(&mut self, parcel: Parcel) {
        let id = parcel.reporter.id;
        if parcel.reporter.is_cancelled() {
            self.desk.arrived(id);
            return parcel.reporter.end(Ending::Cancelled);
        }
        match self.guarded("price", |executor| executor.price(&parcel.reporter.request)) {
            Ok(price) => {
                let working = self.guarded("working_bytes", |executor| Ok(executor.working_bytes(&parcel.reporter.request)));
                self.desk.book().quotes.learn(&parcel.reporter.request, &price, working.ok().flatten());
                let model = parcel.reporter.request.model.clone();
                self.jobs.insert(id, Job::new(parcel, price));
                if self.is_loaded(&model) { self.enqueue(id) } else { self.cold.push(model, id) }
            }
            Err(failure) => {
                self.desk.arrived(id);
                parcel.reporter.end(Ending::Failed(failure));
            }
        }
    }

    /// The job waits for its turn.
    fn enqueue(&mut self, id: JobId) {
        self.desk.arrived(id);
        let Some(job) = self.jobs.get(&id) else { return };
        let reporter = job.reporter();
        let submitted = self.desk.at(reporter.submitted);
        let ask = Ask {
            price: job.price.clone(),
            tenant: reporter.terms.tenant.clone(),
            priority: reporter.terms.priority,
            submitted,
            deadline: reporter.terms.deadline.map(|within| submitted + within),
            alone: job.parcel.alone,
        };
        let mut book = self.desk.book();
        let Book { scheduler, costs, .. } = &mut *book;
        scheduler.admit(id, ask, costs);
    }

    // Were this ever untrue, the panic would end the thread, and every job would be told.
    fn job(&mut self, id: JobId) -> &mut Job<E::Run> {
        self.jobs.get_mut(&id).expect("the scheduler knows the jobs that are here and no others")
    }

    /// The job leaves; its memory first, then its permit, then its watcher is told. Unknown jobs have ended already.
    fn end(&mut self, id: JobId, ending: Ending) {
        self.desk.arrived(id);
        self.desk.book().scheduler.remove(id);
        self.cold.remove(id);
        if let Some(job) = self.jobs.remove(&id) {
            drop(job.run);
            if !matches!(ending, Ending::Finished(_)) {
                self.monitor().wasted(job.step);
            }
            job.parcel.reporter.end(ending);
        }
    }

    /// The time is over: what is half done is kept for a later process where somebody keeps it.
    fn end_the_rest(&mut self) {
        let ids: Vec<JobId> = self.jobs.keys().copied().collect();
        for id in ids {
            self.keep(id);
            let failure = Failure::new(FailureKind::ShuttingDown, "the service shut down before the job ended");
            self.end(id, Ending::Failed(failure));
        }
    }

    fn timed<T>(&mut self, stage: Stage, call: impl FnOnce(&mut E) -> Result<T, Failure>) -> (Result<T, Failure>, Duration) {
        let began = Instant::now();
        let outcome = self.guarded(stage.name(), call);
        let took = began.elapsed();
        self.monitor().stage(stage, took);
        (outcome, took)
    }

    fn guarded<T>(&mut self, what: &str, call: impl FnOnce(&mut E) -> Result<T, Failure>) -> Result<T, Failure> {
        let outcome = guarded(|| call(&mut self.executor));
        if let Err(failure) = &outcome {
            match failure.kind {
                FailureKind::Panicked => tracing::error!(call = what, message = failure.message, "an executor call panicked"),
                FailureKind::Device => tracing::error!(call = what, message = failure.message, "the device failed"),
                _ => {}
            }
            self.suspect |= matches!(failure.kind, FailureKind::Panicked | FailureKind::Device);
        }
        outcome
    }

    fn costs<T>(&self, f: impl FnOnce(&mut Costs) -> T) -> T {
        f(&mut self.desk.book().costs)
    }

    fn monitor(&self) -> &dyn Monitor {
        self.desk.monitor()
    }
}
