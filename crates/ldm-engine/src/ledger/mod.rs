//! Where a named job's record, queue and lease live: one trait; [`Memory`] is the default, others are other crates' matter.
//!
//! A job is `queued`, then `running` under a [`Fence`], then ended, once. A node renews one lease for all that it holds;
//! when the lease ends, [`reap`](Ledger::reap) puts its jobs back to their places. The epoch grows whenever a job gets or
//! loses a holder, so a holder that comes back late is refused. Progress never writes state.

mod bell;
mod clock;
#[cfg(feature = "contract")]
pub mod contract;
mod holder;
mod hook;
mod job;
mod look;
mod memory;
pub mod rules;
mod spec;
mod upkeep;
mod wire;

use std::time::Duration;

use async_trait::async_trait;
use ldm_core::{JobId, Tenant};

pub use bell::Bell;
pub use clock::{Clock, ManualClock, SystemClock, Timestamp};
pub use holder::{Claim, Fence, Finish, Kept, Lane, NodeId, NodeState, Order, Reaped, Release, Wake, Want};
pub use hook::{Delivery, Hook};
pub use job::{Bound, Fingerprint, Full, LedgerLimits, NewJob, ObjectRef, Outcome, Submitted};
pub use look::{JobState, JobView, LaneLoad, LedgerLoad, Page, Phase, Query, Retention, Stale};
pub use memory::Memory;
pub use spec::{Packed, Spec, SpecError, unpack};
pub use upkeep::{sweep, upkeep};

/// How long a node's lease lasts without a [`beat`](Ledger::beat). Beat every [`BEAT`].
pub const LEASE: Duration = Duration::from_secs(10);
/// How often a node renews its lease.
pub const BEAT: Duration = Duration::from_secs(2);
/// Milliseconds of virtual time by which a job of a running bucket may overtake the head of its lane.
pub const HOT_BONUS_MS: u64 = 2_000;
/// At the so many-th death of its holder a job fails.
pub const MAX_CRASHES: u32 = 3;
/// The reason of that failure.
pub const WORKER_LOST: &str = "worker_lost";
/// Of so many claims, one goes to the lower class when it has a job waiting.
pub const LOWER_SHARE: u32 = 10;
/// How long a job that a node refused is not offered.
pub const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// How long a cancel waits for a job that has not come yet.
pub const TOMBSTONE: Duration = Duration::from_secs(60);
/// Cancels of jobs that have not come yet, at most; the oldest go first.
pub const MAX_TOMBSTONES: usize = 1_024;
/// Bytes of a spec or of an outcome's detail at most.
pub const MAX_SPEC: usize = 64 * 1024;
/// Bytes of a note at most.
pub const MAX_NOTE: usize = 4 * 1024;
/// Bytes of a hook's URL at most.
pub const MAX_URL: usize = 2 * 1024;
/// How long an end that is to be told belongs to whoever took it. When its teller dies, it is due again after that.
pub const HOOK_LEASE: Duration = Duration::from_secs(60);
/// Bytes of a key, name, bucket, model or tenant at most.
pub const MAX_NAME: usize = 256;
/// Inputs or outputs of one job at most.
pub const MAX_OBJECTS: usize = 64;
/// Jobs of one page, or of one answer of [`prune`](Ledger::prune), at most.
pub const MAX_PAGE: u32 = 200;

/// Why a ledger did not do as told. Full and superseded are answers, not errors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// What was said is out of bounds.
    #[error("`{field}` must be {limit}, not {value}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What is allowed.
        limit: String,
        /// What was given.
        value: String,
    },
    /// The node has no lease: it must beat first.
    #[error("node {0} has no lease; it must beat before it claims")]
    NoLease(NodeId),
    /// The store failed; nothing is known of what was asked. Ask again.
    #[error("the ledger's store failed: {0}")]
    Store(String),
    /// The ledger was closed.
    #[error("the ledger is closed")]
    Closed,
}

/// A job's life outside of the device thread. Every call is atomic; dropping a call's future leaves it done or not done.
///
/// When `submit` says `New`, or `finish` says `Recorded`, it is durable, as far as the implementation is.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    /// Hands a job in. Of equal ids, keys or names of one tenant the first is accepted; a job that was canceled before it
    /// came is accepted and ends canceled.
    async fn submit(&self, job: NewJob) -> Result<Submitted, LedgerError>;

    /// Takes jobs to run: interactive ones first (one of [`LOWER_SHARE`] claims goes to the lower class), then fairly among
    /// tenants. A node that is draining gets none. Jobs whose deadline has passed end as expired on the way.
    async fn claim(&self, node: &NodeId, want: &Want) -> Result<Vec<Claim>, LedgerError>;

    /// Renews the node's one lease (and makes it), also one that has ended and was not reaped yet.
    async fn beat(&self, node: &NodeId, state: NodeState) -> Result<Vec<Order>, LedgerError>;

    /// Notes a checkpoint, whose bytes have been uploaded before.
    async fn checkpoint(&self, fence: &Fence, ckpt: ObjectRef, step: u32) -> Result<Kept, LedgerError>;

    /// Lets go of a job that has not ended. One that was to be canceled ends canceled instead of waiting again.
    async fn release(&self, fence: &Fence, why: Release) -> Result<Finish, LedgerError>;

    /// Ends a job.
    async fn finish(&self, fence: &Fence, outcome: Outcome) -> Result<Finish, LedgerError>;

    /// Wants a job stopped: a waiting one ends at once, a running one's holder is told at its next beat, one that has
    /// ended stays as it is. `None`: it is not known; if it comes within a minute it ends canceled.
    async fn cancel(&self, id: JobId) -> Result<Option<JobView>, LedgerError>;

    /// The jobs that are known of these (at most [`MAX_PAGE`]), in this order.
    async fn get(&self, ids: &[JobId]) -> Result<Vec<JobView>, LedgerError>;

    /// The job that a tenant calls so.
    async fn named(&self, tenant: &Tenant, name: &str) -> Result<Option<JobView>, LedgerError>;

    /// A tenant's jobs, the newest first.
    async fn list(&self, query: &Query) -> Result<Page, LedgerError>;

    /// How much there is to do.
    async fn load(&self) -> Result<LedgerLoad, LedgerError>;

    /// Waits until something may have come since the node's last claim, or for `patience` at most. A job that came between
    /// that claim and this call rings at once: claim, and when nothing came, wait.
    async fn idle(&self, node: &NodeId, patience: Duration) -> Result<Wake, LedgerError>;

    /// The node goes in good order: its lease ends, what it still holds waits again, and that is no crash.
    async fn leave(&self, node: &NodeId) -> Result<(), LedgerError>;

    /// To be called every second: jobs of nodes without a lease wait again or fail, late ones expire, due ones ring.
    async fn reap(&self) -> Result<Reaped, LedgerError>;

    /// Records that are to go, the longest ended first, at most [`MAX_PAGE`]; they stay until they are forgotten, so that
    /// nothing is left behind when the process dies between the two.
    async fn prune(&self, keep: &Retention) -> Result<Vec<Stale>, LedgerError>;

    /// Deletes records of ended jobs; others stay. Who had them is remembered, see [`departed`](Self::departed).
    async fn forget(&self, ids: &[JobId]) -> Result<(), LedgerError>;

    /// Whether the tenant had a job of that id or name, whose record was forgotten not too long ago.
    async fn departed(&self, tenant: &Tenant, handle: &str) -> Result<bool, LedgerError>;

    /// Takes ends that are due to be told, the longest due first, at most `most` and [`MAX_PAGE`]. An end is due from the
    /// moment that it is written down, and stays until it is [`settled`](Self::settle_hook), whatever becomes of its record.
    async fn take_hooks(&self, most: u32) -> Result<Vec<Delivery>, LedgerError>;

    /// What came of telling an end: it is told, or given up (`None`), or due again then. Whether that was written down: not
    /// when somebody else has taken it meanwhile.
    async fn settle_hook(&self, delivery: &Delivery, again: Option<Timestamp>) -> Result<bool, LedgerError>;
}
