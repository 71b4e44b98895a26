//! A job that is handed in, what came of that, and how it ends.

use std::time::Duration;

use ldm_core::{JobId, Priority, Tenant};

use super::{Hook, JobView, Timestamp};

/// Bytes that lie in the object store: what a ledger knows of a picture, an input, a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectRef {
    /// Where: `in/<job>/<n>`, `out/<job>/<n>.png`, `ckpt/<job>/<epoch>`.
    pub key: String,
    /// How many bytes.
    pub bytes: u64,
    /// SHA-256 of them, in lowercase hexadecimal.
    pub digest: String,
}

/// What a request's body was, so that the same key with another body is noticed: SHA-256.
pub type Fingerprint = [u8; 32];

/// A job that is handed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewJob {
    /// Its id, made by whoever hands it in: handing in twice is noticed.
    pub id: JobId,
    /// On whose behalf.
    pub tenant: Tenant,
    /// How urgent.
    pub priority: Priority,
    /// The model's id.
    pub model: String,
    /// What can share a network call with it, as text: one bucket may overtake another a little.
    pub bucket: String,
    /// What it will cost, in milliseconds of a device; at least 1 is counted.
    pub cost_ms: u64,
    /// What is to be done: opaque to the ledger, at most 64 KiB.
    pub spec: String,
    /// What it needs beside that; uploaded before.
    pub inputs: Vec<ObjectRef>,
    /// SHA-256 of the body.
    pub fingerprint: Fingerprint,
    /// The client's idempotency key, unique per tenant for as long as the record lives.
    pub key: Option<String>,
    /// The client's name for it (`PUT /jobs/{name}`), unique per tenant for as long as the record lives.
    pub name: Option<String>,
    /// When it is of no use any more.
    pub deadline: Option<Timestamp>,
    /// It is not begun before.
    pub not_before: Option<Timestamp>,
    /// What whoever hands it in wants to know of it later: opaque, at most [`MAX_NOTE`](super::MAX_NOTE) bytes.
    pub note: String,
    /// Who wants to hear how it ended.
    pub hook: Option<Hook>,
}

/// What came of handing a job in.
#[derive(Clone, Debug, PartialEq)]
pub enum Submitted {
    /// Accepted: it will end, whatever happens to this process.
    New(JobView),
    /// It is here already, with the same body.
    Existing(JobView),
    /// This job holds the id, the key or the name, with another body.
    Conflict(JobId),
    /// No place.
    Full(Full),
}

/// Which bound is reached, and when to try again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Full {
    /// Which one.
    pub bound: Bound,
    /// How much it allows.
    pub limit: u64,
    /// When a place should be free; at least one second.
    pub retry_after: Duration,
}

/// A bound on what is taken on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Unfinished jobs.
    Jobs,
    /// Bytes of unfinished jobs: specs and inputs.
    Bytes,
    /// Unfinished jobs of one tenant.
    TenantJobs,
    /// Records, of ended jobs too: pruning is behind.
    Records,
    /// Ends that are to be told, of unfinished jobs too: whoever wants to hear of them does not answer.
    Hooks,
}

/// How much a ledger takes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerLimits {
    /// Unfinished jobs.
    pub jobs: u64,
    /// Unfinished jobs of one tenant.
    pub tenant_jobs: u64,
    /// Bytes of unfinished jobs: specs and inputs.
    pub bytes: u64,
    /// Records, of ended jobs too: what holds when nobody prunes.
    pub records: u64,
    /// Ends that are to be told, of unfinished jobs too.
    pub hooks: u64,
    /// Forgotten jobs that are remembered by name; the oldest go first.
    pub departed: u64,
}

impl Default for LedgerLimits {
    fn default() -> Self {
        Self { jobs: 10_000, tenant_jobs: 2_000, bytes: 4 << 30, records: 50_000, hooks: 10_000, departed: 50_000 }
    }
}

/// How a job ended, as its holder says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With pictures.
    Succeeded {
        /// Where they are.
        outputs: Vec<ObjectRef>,
        /// What else is to be told of them: opaque, at most 64 KiB.
        detail: String,
    },
    /// With a reason.
    Failed {
        /// A word, for example `out_of_memory` or [`WORKER_LOST`](super::WORKER_LOST).
        reason: String,
        /// A sentence for a person.
        message: String,
    },
    /// Because somebody wanted it.
    Canceled,
}
