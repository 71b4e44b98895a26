//! What goes into the scheduler and comes out of it.

use std::time::Duration;

use ldm_core::{Priority, Tenant};

use crate::Price;

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work<Id> {
    /// Nothing: no job is here that anything could be done for.
    Idle,
    /// Nothing before that time, unless a job arrives or leaves.
    Wait(Duration),
    /// Prepare this job; then `prepared`, or `remove`.
    Prepare(Id),
    /// Evaluate these jobs in one call; then `stepped`, or `remove`, for each.
    Evaluate(Vec<Id>),
    /// Decode this job; then `remove`.
    Decode(Id),
}

/// How much may be on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Jobs that may be on the device at once, those that are parked on it included; at least 1.
    pub running: usize,
}

/// How work is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Jobs join and leave at every step boundary.
    #[default]
    Steps,
    /// A baseline: first come, first served, whole requests. Waits at most `window` from the oldest job's submission for up to
    /// `size` jobs of its key, and runs them to the end together; nobody joins.
    RequestBatches {
        /// Jobs of one batch, at least 1.
        size: usize,
        /// How long the first waits for others.
        window: Duration,
    },
    /// A baseline: one job after another, in the order of arrival.
    OneAtATime,
}

/// A job as the scheduler sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// What it costs; `evaluations` are those still to come.
    pub price: Price,
    /// On whose behalf.
    pub tenant: Tenant,
    /// How urgent.
    pub priority: Priority,
    /// When it came.
    pub submitted: Duration,
    /// When its picture ceases to be of use.
    pub deadline: Option<Duration>,
    /// It crashed a device before, and so shares no call.
    pub alone: bool,
}

/// When a job will probably start and finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// When it is prepared.
    pub start: Duration,
    /// When its picture is there.
    pub finish: Duration,
}
