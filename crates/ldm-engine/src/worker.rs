//! A device thread's life: load, warm up, work; after a retirement begin again, after a while; end.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ldm_core::{Failure, FailureKind};

use crate::device::{Command, Device, Habits, Retired, late};
use crate::guard::guarded;
use crate::job::Parcel;
use crate::pool::Pool;
use crate::state::{Desk, Readiness};
use crate::{Executor, Incident, warmup};

/// The first wait before a worker begins again; it doubles with each attempt.
const BACKOFF: Duration = Duration::from_millis(500);
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// How long a worker that was begun again so often waits before the next time.
fn backoff(attempts: u32) -> Duration {
    (BACKOFF * 2u32.pow(attempts.min(8))).min(LONGEST_BACKOFF)
}

/// One device to be: its name, and what makes its executor on its thread.
pub struct Worker<E> {
    pub(crate) name: String,
    pub(crate) load: Box<dyn FnMut() -> Result<E, Failure> + Send>,
    pub(crate) restarts: u32,
}

impl<E: Executor> Worker<E> {
    /// A worker that begins again up to five times in a row when its device is retired.
    pub fn new(name: impl Into<String>, load: impl FnMut() -> Result<E, Failure> + Send + 'static) -> Self {
        Self { name: name.into(), load: Box::new(load), restarts: 5 }
    }

    /// A worker that can be made once.
    pub fn once(name: impl Into<String>, load: impl FnOnce() -> Result<E, Failure> + Send + 'static) -> Self {
        let mut load = Some(load);
        let again = || Err(Failure::new(FailureKind::Device, "the device can be made only once"));
        let load = move || load.take().map_or_else(again, |load| load());
        Self { name: name.into(), load: Box::new(load), restarts: 0 }
    }

    /// How often in a row it may begin again.
    pub fn restarts(self, restarts: u32) -> Self {
        Self { restarts, ..self }
    }
}

/// What a device thread owns beside its executor.
pub(crate) struct Post {
    pub(crate) desk: Arc<Desk>,
    pub(crate) inbox: Receiver<Command>,
    pub(crate) habits: Habits,
    pub(crate) pool: Weak<Pool>,
}

/// Starts the device thread; `None` when there is none to be had, which shows in the readiness.
pub(crate) fn spawn<E: Executor + 'static>(post: Post, worker: Worker<E>) -> Option<JoinHandle<()>> {
    let desk = Arc::clone(&post.desk);
    let thread = std::thread::Builder::new().name(format!("ldm-{}", worker.name)).spawn(move || {
        let desk = Arc::clone(&post.desk);
        // Its own panics end the thread; the jobs that unwound with it have been told.
        let lived = guarded(|| {
            live(&post, worker);
            Ok(())
        });
        if let Err(failure) = lived {
            tracing::error!(worker = desk.name, %failure, "the device thread broke");
            desk.becomes(Readiness::Failed(failure.message));
        }
        let (left, _) = late(&post.inbox);
        desk.ends();
        post.hand_over(left);
    });
    thread
        .inspect_err(|error| {
            desk.becomes(Readiness::Failed(format!("no device thread: {error}")));
            desk.ends();
        })
        .ok()
}

/// A device thread's whole life.
fn live<E: Executor>(post: &Post, mut worker: Worker<E>) {
    let mut attempts = 0;
    let mut was_ready = false;
    loop {
        let served = serve(post, &mut worker, &mut attempts, &mut was_ready);
        let Err(Retired { failure, jobs, stopping }) = served else { return };
        tracing::error!(worker = post.desk.name, %failure, jobs = jobs.len(), "the device is out of service");
        post.desk.becomes(Readiness::Failed(failure.message));
        post.hand_over(jobs);
        if stopping || !was_ready || attempts >= worker.restarts || !post.rest(backoff(attempts)) {
            return;
        }
        attempts += 1;
        tracing::warn!(worker = post.desk.name, attempts, "the worker begins again");
        post.desk.monitor().incident(Incident::Restarted(&post.desk.name));
        post.desk.becomes(Readiness::Loading);
    }
}

/// From loading to retirement, or to the end.
fn serve<E: Executor>(post: &Post, worker: &mut Worker<E>, attempts: &mut u32, was_ready: &mut bool) -> Result<(), Retired> {
    let gone = |failure| Retired { failure, jobs: Vec::new(), stopping: false };
    let desk = &post.desk;
    let began = Instant::now();
    let mut executor = guarded(&mut worker.load).map_err(gone)?;
    let catalogue = guarded(|| Ok(executor.catalogue())).map_err(gone)?;
    tracing::info!(worker = desk.name, models = catalogue.models.len(), took_ms = ms(began.elapsed()), "loaded");
    desk.offers(catalogue.clone());
    desk.becomes(Readiness::WarmingUp);
    if desk.state.readiness() == Readiness::Draining {
        return Ok(());
    }
    let began = Instant::now();
    warmup::run(&mut executor, &catalogue).map_err(gone)?;
    tracing::info!(worker = desk.name, took_ms = ms(began.elapsed()), "warm and ready");
    desk.becomes(Readiness::Ready);
    *was_ready = true;
    if let Some(pool) = post.pool.upgrade() {
        pool.adopt_orphans();
    }
    let ready = Instant::now();
    let outcome = Device::new(executor, &post.inbox, Arc::clone(desk), post.habits).run();
    // One that worked for a good while is not in a loop of restarts.
    if ready.elapsed() > LONGEST_BACKOFF {
        *attempts = 0;
    }
    outcome
}

impl Post {
    /// Jobs go to another worker, or wait for one.
    fn hand_over(&self, jobs: Vec<Parcel>) {
        self.desk.book().clear();
        match self.pool.upgrade() {
            Some(pool) => pool.adopt(jobs),
            // Nobody is left to wait for them; each says so as it is dropped.
            None => drop(jobs),
        }
    }

    /// Waits before beginning again; `false` when it shall not.
    fn rest(&self, backoff: Duration) -> bool {
        let until = Instant::now() + backoff;
        loop {
            match self.inbox.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Command::Admit(parcel)) => self.hand_over(vec![*parcel]),
                Ok(Command::Stop(_)) | Err(RecvTimeoutError::Disconnected) => return false,
                Ok(Command::Cancel(_) | Command::Change(..)) => {}
                Err(RecvTimeoutError::Timeout) => return true,
            }
        }
    }
}

fn ms(took: Duration) -> u64 {
    took.as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound() {
        let waits: Vec<u64> = [0, 1, 2, 6, 7, 100, u32::MAX].map(|attempts| backoff(attempts).as_millis() as u64).into();
        assert_eq!(waits, [500, 1_000, 2_000, 32_000, 60_000, 60_000, 60_000]);
    }
}
