//! What can be looked at: jobs, lists, the load; and what is kept.

use std::time::Duration;

use ldm_core::{JobId, Priority, Tenant};

use super::{NodeId, Outcome, Timestamp};

/// A job as it can be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobView {
    /// Its id.
    pub id: JobId,
    /// On whose behalf.
    pub tenant: Tenant,
    /// How urgent.
    pub priority: Priority,
    /// The model's id.
    pub model: String,
    /// The client's name for it.
    pub name: Option<String>,
    /// What it will cost, in milliseconds of a device.
    pub cost_ms: u64,
    /// What is to be done.
    pub spec: String,
    /// Where it is.
    pub state: JobState,
    /// Which of its lives; grows whenever it gets or loses a holder.
    pub epoch: u64,
    /// How often its holder died.
    pub crashes: u32,
    /// Somebody wants it stopped, and its holder has not said yet that it did.
    pub cancel: bool,
    /// When it was accepted.
    pub created: Timestamp,
    /// When it was last claimed.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// When it is of no use any more.
    pub deadline: Option<Timestamp>,
    /// What was noted when it was handed in.
    pub note: String,
}

/// Where a job is, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Waiting.
    Queued,
    /// A node holds it.
    Running,
    /// Ended with pictures.
    Succeeded,
    /// Ended with a reason.
    Failed,
    /// Somebody wanted it stopped.
    Canceled,
    /// Its deadline passed.
    Expired,
}

impl Phase {
    /// Every one, in the order of a job's life.
    pub const ALL: [Self; 6] = [Self::Queued, Self::Running, Self::Succeeded, Self::Failed, Self::Canceled, Self::Expired];
    /// Those that a job does not leave.
    pub const ENDINGS: [Self; 4] = [Self::Succeeded, Self::Failed, Self::Canceled, Self::Expired];

    /// The word that wires, metrics and logs use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::Expired => "expired",
        }
    }

    /// The phase of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.name() == name)
    }

    /// Its place in [`ALL`](Self::ALL).
    pub fn index(self) -> u32 {
        Self::ALL.iter().zip(0..).find(|(phase, _)| **phase == self).map_or(0, |(_, index)| index)
    }

    /// Several as one number: bit `index` of each.
    pub fn mask(phases: &[Self]) -> u32 {
        phases.iter().fold(0, |mask, phase| mask | 1 << phase.index())
    }
}

/// Where a job is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobState {
    /// Waiting.
    Queued {
        /// Jobs of its model and class that come before it.
        position: u64,
    },
    /// A node holds it.
    Running {
        /// Which one.
        node: NodeId,
        /// Steps that its newest checkpoint holds; the live step is told elsewhere, progress never writes state.
        step: u32,
    },
    /// It ended, as its holder said; or it was canceled; or `worker_lost`.
    Ended(Outcome),
    /// It ended because its deadline passed.
    Expired,
}

impl JobState {
    /// Whether it has ended.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Ended(_) | Self::Expired)
    }

    /// The same in a word.
    pub fn phase(&self) -> Phase {
        match self {
            Self::Queued { .. } => Phase::Queued,
            Self::Running { .. } => Phase::Running,
            Self::Ended(Outcome::Succeeded { .. }) => Phase::Succeeded,
            Self::Ended(Outcome::Failed { .. }) => Phase::Failed,
            Self::Ended(Outcome::Canceled) => Phase::Canceled,
            Self::Expired => Phase::Expired,
        }
    }

    /// The word that wires, metrics and logs use.
    pub fn name(&self) -> &'static str {
        self.phase().name()
    }
}

/// Which jobs to list: a tenant's, the newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Whose.
    pub tenant: Tenant,
    /// Only those that were handed in before this one; [`Page::next`] of the page before.
    pub before: Option<JobId>,
    /// Only those in one of these; none is all.
    pub phases: Vec<Phase>,
    /// At most so many; more than [`MAX_PAGE`](super::MAX_PAGE) is that.
    pub limit: u32,
}

/// Some jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The newest first.
    pub jobs: Vec<JobView>,
    /// Where the next page starts, if there is one.
    pub next: Option<JobId>,
}

/// How much there is to do, and who is there to do it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerLoad {
    /// Each model and class with unfinished jobs, sorted.
    pub lanes: Vec<LaneLoad>,
    /// Bytes of unfinished jobs: specs and inputs.
    pub bytes: u64,
    /// Jobs that live nodes which are not draining run at once.
    pub capacity: u64,
    /// Nodes with a lease.
    pub nodes: u64,
    /// Records of jobs that have ended.
    pub ended: u64,
    /// Ends that have not been told yet.
    pub untold: u64,
}

/// How much there is to do for one model and class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneLoad {
    /// The model's id.
    pub model: String,
    /// The class.
    pub priority: Priority,
    /// Jobs that wait.
    pub queued: u64,
    /// Jobs that nodes hold.
    pub running: u64,
    /// What all of them will cost, in milliseconds of a device.
    pub outstanding_ms: u64,
}

/// Which records of ended jobs are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// At most for so long after their end.
    pub ttl: Duration,
    /// At most so many, the latest ended.
    pub count: u64,
    /// At most so many bytes of specs, details and objects, the latest ended.
    pub bytes: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { ttl: Duration::from_secs(24 * 3600), count: 10_000, bytes: 8 << 30 }
    }
}

/// A record that is kept no longer: delete its objects, then [`forget`](super::Ledger::forget) it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stale {
    /// The job.
    pub id: JobId,
    /// Its inputs, checkpoint and outputs. Deleting one that is gone already is no error.
    pub keys: Vec<String>,
}
