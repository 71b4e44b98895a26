//! The roll: jobs that run for a connection, and those that did a short while ago.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use ldm_core::{Ending, Failure, JobId, Priority, Progress, Request, Tenant, Terms};
use ldm_engine::Watch;

/// Jobs on the roll at most; those that ended longest ago leave first.
const MOST: usize = 4096;

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
    ended: OnceLock<(SystemTime, State)>,
}

impl Entry {
    /// The job.
    pub(crate) fn id(&self) -> JobId {
        self.watch.id()
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

    /// When it ended, if it has.
    pub(crate) fn ended(&self) -> Option<SystemTime> {
        self.ended.get().map(|(at, _)| *at)
    }

    /// Where it is.
    pub(crate) fn state(&self) -> State {
        self.ended.get().map_or_else(|| State::Open(self.watch.progress()), |(_, state)| state.clone())
    }

    /// A look at its progress.
    #[allow(dead_code, reason = "streams of passing jobs will look")]
    pub(crate) fn watch(&self) -> Watch {
        self.watch.clone()
    }

    /// Stops it; one that has ended stays as it is.
    pub(crate) fn cancel(&self) {
        self.watch.cancel();
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
    }
}

/// The roll. A clone is the same roll.
#[derive(Clone, Default)]
pub(crate) struct Roll(Arc<Mutex<BTreeMap<JobId, Arc<Entry>>>>);

impl Roll {
    fn book(&self) -> MutexGuard<'_, BTreeMap<JobId, Arc<Entry>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(&self, watch: Watch, terms: &Terms, label: Option<String>) -> Arc<Entry> {
        let (created, ended) = (SystemTime::now(), OnceLock::new());
        let entry = Arc::new(Entry { watch, tenant: terms.tenant.clone(), priority: terms.priority, label, created, ended });
        let mut book = self.book();
        // Unfinished jobs are bounded by the engine's places, so one that has ended is found early.
        while book.len() >= MOST
            && let Some(oldest) = book.values().find(|entry| entry.ended.get().is_some()).map(|entry| entry.id())
        {
            book.remove(&oldest);
        }
        book.insert(entry.id(), Arc::clone(&entry));
        entry
    }

    /// The tenant's job of that id.
    pub(crate) fn find(&self, tenant: &Tenant, id: JobId) -> Option<Arc<Entry>> {
        self.book().get(&id).filter(|entry| entry.tenant == *tenant).cloned()
    }

    /// The tenant's jobs that were handed in before `before`, the newest first.
    pub(crate) fn list(&self, tenant: &Tenant, before: Option<JobId>, limit: usize) -> Vec<Arc<Entry>> {
        let book = self.book();
        let own = book.values().rev().filter(|entry| before.is_none_or(|before| entry.id() < before) && entry.tenant == *tenant);
        own.take(limit).cloned().collect()
    }

    /// The tenant's jobs, of that label where one is given, the oldest first.
    pub(crate) fn of(&self, tenant: &Tenant, label: Option<&str>) -> Vec<Arc<Entry>> {
        let book = self.book();
        let own = book.values().filter(|entry| entry.tenant == *tenant && (label.is_none() || entry.label() == label));
        own.cloned().collect()
    }
}
