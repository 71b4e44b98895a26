//! The ledger in an SQLite file: for one process with a state folder; what it accepted outlives `kill -9` and power.
//!
//! One thread owns the connection; commands reach it through a bounded channel, and those that wait share one
//! transaction and one flush. The folder is locked for as long as the process lives, so at the start nobody else is alive:
//! what was running then is put back at once, without waiting for a lease to end.

mod ends;
mod hooks;
mod jobs;
mod nodes;
mod open;
mod rows;
mod thread;
mod views;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use ldm_core::{JobId, Tenant};
use ldm_engine::ledger::{
    Bell, Claim, Clock, Delivery, Fence, Finish, JobView, Kept, Ledger, LedgerError, LedgerLimits, LedgerLoad, NewJob, NodeId,
    NodeState, ObjectRef, Order, Outcome, Page, Query, Reaped, Release, Retention, Stale, Submitted, SystemClock, Timestamp,
    Wake, Want, rules,
};
use rusqlite::Connection;
use tokio::sync::mpsc;

pub use self::open::OpenError;
use self::thread::{Core, Flush, Task, call, serve};

/// Commands that may wait for the thread; more wait at the caller.
const INBOX: usize = 256;

/// A ledger in a folder of its own. Dropping it waits until all that was accepted is in the file.
pub struct Sqlite {
    /// `None` only while it is dropped.
    inbox: Option<mpsc::Sender<Box<dyn Task>>>,
    thread: Option<JoinHandle<()>>,
    bell: Arc<Bell>,
    clock: Arc<dyn Clock>,
    /// When the reaper came last.
    reaped: Mutex<Timestamp>,
}

impl Sqlite {
    /// Opens (or makes) the ledger in `folder`, on the machine's clock. Blocks for as long as the disk takes.
    pub fn open(folder: &Path, limits: LedgerLimits) -> Result<Self, OpenError> {
        Self::with_clock(folder, limits, Arc::new(SystemClock::default()))
    }

    /// The same on another clock.
    pub fn with_clock(folder: &Path, limits: LedgerLimits, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let now = clock.now();
        let mut opened = open::open(folder, rows::time(now))?;
        let path = folder.join("ledger.sqlite3");
        let failed = |source| OpenError::Sqlite { path: path.clone(), source };
        let reaped = bury(&mut opened.db, now).map_err(failed)?;
        if reaped != Reaped::default() {
            tracing::info!(requeued = reaped.requeued, failed = reaped.failed, "the process before left running jobs");
        }
        let (inbox, commands) = mpsc::channel(INBOX);
        let bell = Arc::new(Bell::default());
        let (core, ears) = (Core::new(limits), Arc::clone(&bell));
        let body = move || serve(opened.db, opened.lock, core, commands, ears);
        let thread = std::thread::Builder::new().name("ldm-ledger".to_owned()).spawn(body);
        let thread = thread.map_err(|source| OpenError::Folder { path: folder.into(), source })?;
        Ok(Self { inbox: Some(inbox), thread: Some(thread), bell, clock, reaped: Mutex::new(now) })
    }

    /// Has the thread do that.
    async fn ask<T, F>(&self, flush: Flush, work: F) -> Result<T, LedgerError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, &mut Core) -> rusqlite::Result<T> + Send + 'static,
    {
        let (task, answer) = call(flush, work);
        let inbox = self.inbox.as_ref().ok_or(LedgerError::Closed)?;
        inbox.send(task).await.map_err(|_| LedgerError::Closed)?;
        answer.await.map_err(|_| LedgerError::Closed)?
    }
}

/// Nobody else owns the folder, so every node that the file knows is dead.
fn bury(db: &mut Connection, now: Timestamp) -> rusqlite::Result<Reaped> {
    let transaction = db.transaction()?;
    transaction.execute("DELETE FROM node", [])?;
    let reaped = ends::lose(&transaction, nodes::orphans(&transaction)?, now)?;
    hooks::give_back(&transaction, now)?;
    transaction.commit()?;
    Ok(reaped)
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        drop(self.inbox.take());
        if let Some(thread) = self.thread.take() {
            // Its panic, if there was one, has been told by the channel that it closed.
            let _ = thread.join();
        }
    }
}

#[async_trait]
impl Ledger for Sqlite {
    async fn submit(&self, job: NewJob) -> Result<Submitted, LedgerError> {
        rules::check_job(&job)?;
        let now = self.clock.now();
        self.ask(Flush::Now, move |db, core| jobs::submit(db, core, &job, now)).await
    }

    async fn claim(&self, node: &NodeId, want: &Want) -> Result<Vec<Claim>, LedgerError> {
        self.bell.claims(node);
        let (id, want, now) = (node.clone(), want.clone(), self.clock.now());
        let claims = self.ask(Flush::Later, move |db, core| jobs::claim(db, core, &id, &want, now)).await?;
        claims.ok_or_else(|| LedgerError::NoLease(node.clone()))
    }

    async fn beat(&self, node: &NodeId, state: NodeState) -> Result<Vec<Order>, LedgerError> {
        let (node, now) = (node.clone(), self.clock.now());
        self.ask(Flush::Later, move |db, core| nodes::beat(db, core, &node, &state, now)).await
    }

    async fn checkpoint(&self, fence: &Fence, ckpt: ObjectRef, step: u32) -> Result<Kept, LedgerError> {
        rules::check_objects("ckpt", std::slice::from_ref(&ckpt))?;
        let fence = *fence;
        self.ask(Flush::Now, move |db, _| ends::checkpoint(db, &fence, &ckpt, step)).await
    }

    async fn release(&self, fence: &Fence, why: Release) -> Result<Finish, LedgerError> {
        rules::check_release(&why)?;
        let (fence, now) = (*fence, self.clock.now());
        let work = move |db: &Connection, core: &mut Core| {
            core.ring = true;
            ends::release(db, &fence, &why, now)
        };
        self.ask(Flush::Now, work).await
    }

    async fn finish(&self, fence: &Fence, outcome: Outcome) -> Result<Finish, LedgerError> {
        rules::check_outcome(&outcome)?;
        let (fence, now) = (*fence, self.clock.now());
        self.ask(Flush::Now, move |db, _| ends::finish(db, &fence, &outcome, now)).await
    }

    async fn cancel(&self, id: JobId) -> Result<Option<JobView>, LedgerError> {
        let now = self.clock.now();
        self.ask(Flush::Now, move |db, _| ends::cancel(db, id, now)).await
    }

    async fn get(&self, ids: &[JobId]) -> Result<Vec<JobView>, LedgerError> {
        rules::check_ids(ids)?;
        let ids = ids.to_vec();
        self.ask(Flush::Later, move |db, _| views::get(db, &ids)).await
    }

    async fn named(&self, tenant: &Tenant, name: &str) -> Result<Option<JobView>, LedgerError> {
        let (tenant, name) = (tenant.clone(), name.to_owned());
        self.ask(Flush::Later, move |db, _| views::named(db, &tenant, &name)).await
    }

    async fn list(&self, query: &Query) -> Result<Page, LedgerError> {
        let query = query.clone();
        self.ask(Flush::Later, move |db, _| views::list(db, &query)).await
    }

    async fn load(&self) -> Result<LedgerLoad, LedgerError> {
        let now = self.clock.now();
        self.ask(Flush::Later, move |db, _| views::load(db, now)).await
    }

    async fn idle(&self, node: &NodeId, patience: Duration) -> Result<Wake, LedgerError> {
        Ok(self.bell.wait(node, patience).await)
    }

    async fn leave(&self, node: &NodeId) -> Result<(), LedgerError> {
        let (node, now) = (node.clone(), self.clock.now());
        self.ask(Flush::Now, move |db, core| nodes::leave(db, core, &node, now)).await
    }

    async fn reap(&self) -> Result<Reaped, LedgerError> {
        let now = self.clock.now();
        let since = std::mem::replace(&mut *self.reaped.lock().unwrap_or_else(PoisonError::into_inner), now);
        self.ask(Flush::Now, move |db, core| nodes::reap(db, core, since, now)).await
    }

    async fn prune(&self, keep: &Retention) -> Result<Vec<Stale>, LedgerError> {
        let (keep, now) = (keep.clone(), self.clock.now());
        self.ask(Flush::Later, move |db, _| views::prune(db, &keep, now)).await
    }

    async fn forget(&self, ids: &[JobId]) -> Result<(), LedgerError> {
        let ids = ids.to_vec();
        self.ask(Flush::Later, move |db, core| views::forget(db, core, &ids)).await
    }

    async fn departed(&self, tenant: &Tenant, handle: &str) -> Result<bool, LedgerError> {
        let (tenant, handle) = (tenant.clone(), handle.to_owned());
        self.ask(Flush::Later, move |db, _| views::departed(db, &tenant, &handle)).await
    }

    async fn take_hooks(&self, most: u32) -> Result<Vec<Delivery>, LedgerError> {
        let now = self.clock.now();
        self.ask(Flush::Later, move |db, _| hooks::take(db, most, now)).await
    }

    async fn settle_hook(&self, delivery: &Delivery, again: Option<Timestamp>) -> Result<bool, LedgerError> {
        let delivery = delivery.clone();
        self.ask(Flush::Now, move |db, _| hooks::settle(db, &delivery, again)).await
    }
}
