//! The roll: jobs that run for a connection, and those that did a short while ago.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use ldm_core::{Ending, Failure, JobId, Priority, Progress, Request, Tenant, Terms};
use ldm_engine::Watch;
use tokio::sync::Notify;

/// Jobs on the roll at most; those that ended longest ago leave first.
const MOST: usize = 4096;
/// Jobs that have left the roll and are remembered by their ids, at most.
const MOST_DEPARTED: usize = 16_384;

/// Where a job is, or how it ended.
#[derive(Clone, Debug)]
pub(crate) enum State {
    /// Unfinished.
    Open(Progress),
    /// Its picture went to whoever waited for it.
    Succeeded,
    /// With a reason.
    Failed(Failure),
    /// Its client went, or somebody stopped it.
    Canceled,
}

/// A job on the roll.
pub(crate) struct Entry {
    watch: Watch,
    tenant: Tenant,
    priority: Priority,
    label: Option<String>,
    created: SystemTime,
    started: OnceLock<SystemTime>,
    ended: OnceLock<(SystemTime, State)>,
    over: Notify,
}

impl Entry {
    /// The job.
    pub(crate) fn id(&self) -> JobId {
        self.watch.id()
    }

    /// On whose behalf it runs.
    pub(crate) fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// How urgent it is.
    pub(crate) fn priority(&self) -> Priority {
        self.priority
    }

    /// The client's own word for the call that it belongs to.
    pub(crate) fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// What was asked for.
    pub(crate) fn request(&self) -> &Arc<Request> {
        self.watch.request()
    }

    /// When it was accepted.
    pub(crate) fn created(&self) -> SystemTime {
        self.created
    }

    /// When it left the queue, if somebody listened.
    pub(crate) fn started(&self) -> Option<SystemTime> {
        self.started.get().copied()
    }

    /// When it ended, if it has.
    pub(crate) fn ended(&self) -> Option<SystemTime> {
        self.ended.get().map(|(at, _)| *at)
    }

    /// Where it is.
    pub(crate) fn state(&self) -> State {
        self.ended.get().map_or_else(|| State::Open(self.watch.progress()), |(_, state)| state.clone())
    }

    /// A look at its progress.
    pub(crate) fn watch(&self) -> Watch {
        self.watch.clone()
    }

    /// Stops it; one that has ended stays as it is.
    pub(crate) fn cancel(&self) {
        self.watch.cancel();
    }

    /// Waits until it is written down how it ended.
    pub(crate) async fn over(&self) {
        loop {
            let told = self.over.notified();
            if self.ended.get().is_some() {
                return;
            }
            told.await;
        }
    }

    /// Notes when it left the queue.
    pub(super) fn moved(&self, progress: &Progress) {
        if !matches!(progress, Progress::Queued { .. }) {
            self.started.get_or_init(SystemTime::now);
        }
    }

    /// Writes down how it ended; the first word counts.
    pub(super) fn end(&self, ending: &Ending) {
        self.ended.get_or_init(|| {
            let state = match ending {
                Ending::Finished(_) => State::Succeeded,
                Ending::Failed(failure) => State::Failed(failure.clone()),
                Ending::Cancelled => State::Canceled,
            };
            (SystemTime::now(), state)
        });
        self.over.notify_waiters();
    }
}

/// The roll. A clone is the same roll.
#[derive(Clone, Default)]
pub(crate) struct Roll(Arc<Mutex<Book>>);

#[derive(Default)]
struct Book {
    jobs: BTreeMap<JobId, Arc<Entry>>,
    /// Who left, the longest ago first.
    departed: VecDeque<(JobId, Tenant)>,
}

impl Roll {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(&self, watch: Watch, terms: &Terms, label: Option<String>) -> Arc<Entry> {
        let (created, tenant, priority) = (SystemTime::now(), terms.tenant.clone(), terms.priority);
        let (started, ended, over) = (OnceLock::new(), OnceLock::new(), Notify::new());
        let entry = Arc::new(Entry { watch, tenant, priority, label, created, started, ended, over });
        let mut guard = self.book();
        let Book { jobs, departed } = &mut *guard;
        // Unfinished jobs are bounded by the engine's places, so one that has ended is found early.
        while jobs.len() >= MOST
            && let Some(oldest) = jobs.values().find(|entry| entry.ended.get().is_some()).map(|entry| entry.id())
        {
            departed.extend(jobs.remove(&oldest).map(|entry| (oldest, entry.tenant.clone())));
        }
        while departed.len() > MOST_DEPARTED {
            departed.pop_front();
        }
        jobs.insert(entry.id(), Arc::clone(&entry));
        entry
    }

    /// The tenant's job of that id.
    pub(crate) fn find(&self, tenant: &Tenant, id: JobId) -> Option<Arc<Entry>> {
        self.book().jobs.get(&id).filter(|entry| entry.tenant == *tenant).cloned()
    }

    /// Whether the tenant had a job of that id, which has left the roll not too long ago.
    pub(crate) fn departed(&self, tenant: &Tenant, id: JobId) -> bool {
        self.book().departed.iter().any(|(job, owner)| *job == id && owner == tenant)
    }

    /// The tenant's jobs that were handed in before `before` and that are `wanted`, the newest first.
    pub(crate) fn list(
        &self,
        tenant: &Tenant,
        before: Option<JobId>,
        limit: usize,
        wanted: impl Fn(&Entry) -> bool,
    ) -> Vec<Arc<Entry>> {
        let book = self.book();
        let earlier = book.jobs.values().rev().filter(|entry| before.is_none_or(|before| entry.id() < before));
        let own = earlier.filter(|entry| entry.tenant == *tenant && wanted(entry));
        own.take(limit).cloned().collect()
    }

    /// The tenant's jobs, of that label where one is given, the oldest first.
    pub(crate) fn of(&self, tenant: &Tenant, label: Option<&str>) -> Vec<Arc<Entry>> {
        let book = self.book();
        let own = book.jobs.values().filter(|entry| entry.tenant == *tenant && (label.is_none() || entry.label() == label));
        own.cloned().collect()
    }
}
