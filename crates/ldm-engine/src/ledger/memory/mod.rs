//! The ledger in memory: the default, for one process; what it knows ends with that process.

mod ask;
mod book;
mod outbox;
mod queue;
mod record;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ldm_core::{JobId, Tenant};

use self::book::Book;
use super::{
    Bell, Claim, Clock, Delivery, Fence, Finish, JobView, Kept, Ledger, LedgerError, LedgerLimits, LedgerLoad, NewJob, NodeId,
    NodeState, ObjectRef, Order, Outcome, Page, Query, Reaped, Release, Retention, Stale, Submitted, SystemClock, Timestamp,
    Wake, Want, rules,
};
use crate::guard::lock;

/// A ledger that ends with its process.
pub struct Memory {
    book: Mutex<Book>,
    bell: Bell,
    clock: Arc<dyn Clock>,
}

impl Memory {
    /// An empty ledger on the machine's clock.
    pub fn new(limits: LedgerLimits) -> Self {
        Self::with_clock(limits, Arc::new(SystemClock::default()))
    }

    /// An empty ledger on another clock.
    pub fn with_clock(limits: LedgerLimits, clock: Arc<dyn Clock>) -> Self {
        Self { book: Mutex::new(Book::new(limits)), bell: Bell::default(), clock }
    }
}

#[async_trait]
impl Ledger for Memory {
    async fn submit(&self, job: NewJob) -> Result<Submitted, LedgerError> {
        rules::check_job(&job)?;
        let submitted = lock(&self.book).submit(job, self.clock.now());
        if let Submitted::New(_) = submitted {
            self.bell.ring();
        }
        Ok(submitted)
    }

    async fn claim(&self, node: &NodeId, want: &Want) -> Result<Vec<Claim>, LedgerError> {
        self.bell.claims(node);
        lock(&self.book).claim(node, want, self.clock.now())
    }

    async fn beat(&self, node: &NodeId, state: NodeState) -> Result<Vec<Order>, LedgerError> {
        let (orders, requeued) = lock(&self.book).beat(node, &state, self.clock.now());
        if requeued {
            self.bell.ring();
        }
        Ok(orders)
    }

    async fn checkpoint(&self, fence: &Fence, ckpt: ObjectRef, step: u32) -> Result<Kept, LedgerError> {
        rules::check_objects("ckpt", std::slice::from_ref(&ckpt))?;
        Ok(lock(&self.book).checkpoint(fence, ckpt, step))
    }

    async fn release(&self, fence: &Fence, why: Release) -> Result<Finish, LedgerError> {
        rules::check_release(&why)?;
        let finish = lock(&self.book).release(fence, why, self.clock.now());
        self.bell.ring();
        Ok(finish)
    }

    async fn finish(&self, fence: &Fence, outcome: Outcome) -> Result<Finish, LedgerError> {
        rules::check_outcome(&outcome)?;
        Ok(lock(&self.book).finish(fence, outcome, self.clock.now()))
    }

    async fn cancel(&self, id: JobId) -> Result<Option<JobView>, LedgerError> {
        let mut book = lock(&self.book);
        let known = book.cancel(id, self.clock.now());
        Ok(known.then(|| book.jobs[&id].view(&book.queue)))
    }

    async fn get(&self, ids: &[JobId]) -> Result<Vec<JobView>, LedgerError> {
        rules::check_ids(ids)?;
        let book = lock(&self.book);
        Ok(ids.iter().filter_map(|id| book.jobs.get(id)).map(|record| record.view(&book.queue)).collect())
    }

    async fn named(&self, tenant: &Tenant, name: &str) -> Result<Option<JobView>, LedgerError> {
        Ok(lock(&self.book).named(&(tenant.clone(), name.to_owned())))
    }

    async fn list(&self, query: &Query) -> Result<Page, LedgerError> {
        Ok(lock(&self.book).list(query))
    }

    async fn load(&self) -> Result<LedgerLoad, LedgerError> {
        Ok(lock(&self.book).load(self.clock.now()))
    }

    async fn idle(&self, node: &NodeId, patience: Duration) -> Result<Wake, LedgerError> {
        Ok(self.bell.wait(node, patience).await)
    }

    async fn leave(&self, node: &NodeId) -> Result<(), LedgerError> {
        lock(&self.book).leave(node, self.clock.now());
        self.bell.forget(node);
        self.bell.ring();
        Ok(())
    }

    async fn reap(&self) -> Result<Reaped, LedgerError> {
        let (reaped, gone, due) = lock(&self.book).reap(self.clock.now());
        gone.iter().for_each(|node| self.bell.forget(node));
        if due {
            self.bell.ring();
        }
        Ok(reaped)
    }

    async fn prune(&self, keep: &Retention) -> Result<Vec<Stale>, LedgerError> {
        Ok(lock(&self.book).prune(keep, self.clock.now()))
    }

    async fn forget(&self, ids: &[JobId]) -> Result<(), LedgerError> {
        lock(&self.book).forget(ids);
        Ok(())
    }

    async fn departed(&self, tenant: &Tenant, handle: &str) -> Result<bool, LedgerError> {
        Ok(lock(&self.book).departed(tenant, handle))
    }

    async fn take_hooks(&self, most: u32) -> Result<Vec<Delivery>, LedgerError> {
        Ok(lock(&self.book).outbox.take(most, self.clock.now()))
    }

    async fn settle_hook(&self, delivery: &Delivery, again: Option<Timestamp>) -> Result<bool, LedgerError> {
        Ok(lock(&self.book).outbox.settle(delivery, again))
    }
}
