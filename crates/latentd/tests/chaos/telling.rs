//! A ledger that tells the driver what it wrote down, and whose answers get lost now and then.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use ldm_core::{JobId, Tenant};
use ldm_engine::ledger::{
    Claim, Delivery, Fence, Finish, JobView, Kept, Ledger, LedgerError, LedgerLoad, NewJob, NodeId, NodeState, ObjectRef, Order,
    Outcome, Page, Query, Reaped, Release, Retention, Stale, Submitted, Timestamp, Wake, Want,
};

use crate::faulty::tell;

/// Of so many endings that are written down, the answer to one is lost.
const LOST: u32 = 9;

pub(crate) struct Telling<L> {
    inner: L,
    endings: AtomicU32,
}

impl<L> Telling<L> {
    pub(crate) fn new(inner: L) -> Self {
        Self { inner, endings: AtomicU32::new(0) }
    }
}

#[async_trait]
impl<L: Ledger> Ledger for Telling<L> {
    async fn finish(&self, fence: &Fence, outcome: Outcome) -> Result<Finish, LedgerError> {
        let finish = self.inner.finish(fence, outcome).await?;
        if finish == Finish::Recorded {
            tell(&format!("ended {}", fence.id));
            if self.endings.fetch_add(1, Ordering::Relaxed) % LOST == LOST - 1 {
                tell(&format!("fault lost-answer {}", fence.id));
                return Err(LedgerError::Store("the answer is lost, says the script".to_owned()));
            }
        }
        Ok(finish)
    }

    async fn checkpoint(&self, fence: &Fence, ckpt: ObjectRef, step: u32) -> Result<Kept, LedgerError> {
        let kept = self.inner.checkpoint(fence, ckpt, step).await?;
        if matches!(kept, Kept::Recorded { .. }) {
            tell(&format!("kept {} {step}", fence.id));
        }
        Ok(kept)
    }

    async fn submit(&self, job: NewJob) -> Result<Submitted, LedgerError> {
        self.inner.submit(job).await
    }

    async fn claim(&self, node: &NodeId, want: &Want) -> Result<Vec<Claim>, LedgerError> {
        self.inner.claim(node, want).await
    }

    async fn beat(&self, node: &NodeId, state: NodeState) -> Result<Vec<Order>, LedgerError> {
        self.inner.beat(node, state).await
    }

    async fn release(&self, fence: &Fence, why: Release) -> Result<Finish, LedgerError> {
        self.inner.release(fence, why).await
    }

    async fn cancel(&self, id: JobId) -> Result<Option<JobView>, LedgerError> {
        self.inner.cancel(id).await
    }

    async fn get(&self, ids: &[JobId]) -> Result<Vec<JobView>, LedgerError> {
        self.inner.get(ids).await
    }

    async fn named(&self, tenant: &Tenant, name: &str) -> Result<Option<JobView>, LedgerError> {
        self.inner.named(tenant, name).await
    }

    async fn list(&self, query: &Query) -> Result<Page, LedgerError> {
        self.inner.list(query).await
    }

    async fn load(&self) -> Result<LedgerLoad, LedgerError> {
        self.inner.load().await
    }

    async fn idle(&self, node: &NodeId, patience: Duration) -> Result<Wake, LedgerError> {
        self.inner.idle(node, patience).await
    }

    async fn leave(&self, node: &NodeId) -> Result<(), LedgerError> {
        self.inner.leave(node).await
    }

    async fn reap(&self) -> Result<Reaped, LedgerError> {
        self.inner.reap().await
    }

    async fn prune(&self, keep: &Retention) -> Result<Vec<Stale>, LedgerError> {
        self.inner.prune(keep).await
    }

    async fn forget(&self, ids: &[JobId]) -> Result<(), LedgerError> {
        self.inner.forget(ids).await
    }
    async fn departed(&self, tenant: &Tenant, handle: &str) -> Result<bool, LedgerError> {
        self.inner.departed(tenant, handle).await
    }

    async fn take_hooks(&self, most: u32) -> Result<Vec<Delivery>, LedgerError> {
        self.inner.take_hooks(most).await
    }

    async fn settle_hook(&self, delivery: &Delivery, again: Option<Timestamp>) -> Result<bool, LedgerError> {
        self.inner.settle_hook(delivery, again).await
    }
}
