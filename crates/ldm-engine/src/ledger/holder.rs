//! Nodes, what they claim, and what they say of what they hold.

use std::fmt;

use ldm_core::{JobId, Priority, Tenant};

use super::{ObjectRef, Timestamp};

/// One process's life: a name, and something random per start, so that a restarted node is another one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(String);

impl NodeId {
    /// A new life of the node of that name.
    pub fn new(name: &str) -> Self {
        Self(format!("{name}/{}", JobId::new()))
    }

    /// The node of exactly this id, as a ledger stored it.
    pub fn stored(id: String) -> Self {
        Self(id)
    }

    /// The id as a ledger stores it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a node would take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// From where.
    pub lanes: Vec<Lane>,
    /// Jobs at most.
    pub credit: u32,
}

/// Jobs of one model and one class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    /// The model's id.
    pub model: String,
    /// The class.
    pub priority: Priority,
    /// Buckets that are running now: they may overtake the others of the lane by [`HOT_BONUS_MS`](super::HOT_BONUS_MS).
    pub hot: Vec<String>,
}

/// The token that says "I hold this job": all that a holder says is checked against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fence {
    /// The job.
    pub id: JobId,
    /// Which of its lives.
    pub epoch: u64,
}

/// A job that a node holds from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What the holder says it with.
    pub fence: Fence,
    /// On whose behalf.
    pub tenant: Tenant,
    /// How urgent.
    pub priority: Priority,
    /// The model's id.
    pub model: String,
    /// Its bucket.
    pub bucket: String,
    /// What is to be done.
    pub spec: String,
    /// What it needs beside that.
    pub inputs: Vec<ObjectRef>,
    /// The newest checkpoint, if there is one.
    pub ckpt: Option<ObjectRef>,
    /// Steps that the checkpoint holds.
    pub step: u32,
    /// How often its holder died.
    pub crashes: u32,
    /// A holder of it died: it must share the process with no other job. The ledger gives it to a node that holds nothing
    /// else, and gives that node nothing else until it ends.
    pub alone: bool,
    /// When it is of no use any more; the holder then releases it as [`Release::Expired`].
    pub deadline: Option<Timestamp>,
}

/// What a node says of itself when it renews its lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeState {
    /// Jobs that it runs at once, for the load; 0 for a node that only hands in.
    pub capacity: u32,
    /// It stops and claims nothing more.
    pub draining: bool,
    /// All that it holds. What the ledger thinks it holds and is not here for a whole lease goes back to the queue: the
    /// answer to that claim was lost.
    pub held: Vec<Fence>,
}

/// What a node is told when it renews its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// Somebody wants it stopped: finish it as [`Outcome::Canceled`](super::Outcome::Canceled).
    Cancel(Fence),
    /// It is not yours any more: drop it, tell nobody.
    Lost(Fence),
}

/// Why a holder lets go of a job that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Release {
    /// The node stops; the next holder goes on from `step`. Not a crash.
    Drained {
        /// The newest checkpoint, if one was made; `None` keeps the one that is known.
        ckpt: Option<ObjectRef>,
        /// Steps that it holds.
        step: u32,
    },
    /// This node cannot run it now; it is offered again after a second. Not a crash.
    Refused,
    /// Its deadline has passed: it ends as expired.
    Expired,
}

/// Whether what a holder said was written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// Yes, durably.
    Recorded,
    /// No: the job has another holder, none, or has ended. Drop the result. After an answer that was lost: a job that has
    /// ended with your epoch was ended by you.
    Superseded,
}

/// Whether a checkpoint was written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Yes; the one before it can be deleted.
    Recorded {
        /// The one before it.
        replaced: Option<ObjectRef>,
    },
    /// No: the job is not yours any more.
    Superseded,
}

/// Why a node that waited goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Something may have come since its last claim: claim again.
    Rung,
    /// Nothing came in time.
    TimedOut,
}

/// What the reaper did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reaped {
    /// Jobs of dead nodes that wait again.
    pub requeued: u64,
    /// Jobs of dead nodes that failed, because it was the third.
    pub failed: u64,
    /// Jobs of dead nodes that somebody wanted stopped.
    pub canceled: u64,
    /// Waiting jobs whose deadline passed.
    pub expired: u64,
}
