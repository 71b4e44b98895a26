//! The jobs that can share calls: those of one batch key, or one that shares none.

use ldm_core::Priority;

use super::job::Job;
use super::queue::Queue;
use crate::BatchKey;
use crate::cost::{Costs, Rates};

/// Who shares calls: a key; with a serial, that job alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Share {
    pub(super) key: BatchKey,
    pub(super) alone: Option<u64>,
}

/// The jobs of one [`Share`].
#[derive(Debug)]
pub(super) struct Lane<Id> {
    pub(super) share: Share,
    /// Jobs that name this lane, those included that are finished; it stays for as long as there are any.
    pub(super) members: usize,
    /// What its key costs, as of its last turn.
    pub(super) rates: Rates,
    /// Jobs that take part in the lane's calls.
    pub(super) active: Vec<Id>,
    /// Jobs on the device that do not, for want of rows.
    pub(super) parked: Vec<Id>,
    /// Jobs that wait, by [`Priority`].
    pub(super) queues: [Queue<Id>; 2],
}

impl<Id: Copy + PartialEq> Lane<Id> {
    pub(super) fn new(share: Share, costs: &Costs) -> Self {
        let rates = costs.rates(&share.key);
        Self { share, members: 0, rates, active: Vec::new(), parked: Vec::new(), queues: [Queue::new(), Queue::new()] }
    }

    pub(super) fn queue(&mut self, priority: Priority) -> &mut Queue<Id> {
        &mut self.queues[priority as usize]
    }

    /// Takes a job off the device's share of this lane.
    pub(super) fn forget(&mut self, id: Id) {
        self.active.retain(|other| *other != id);
        self.parked.retain(|other| *other != id);
    }
}

/// Rows of these jobs together.
pub(super) fn rows<'a, Id: 'a>(jobs: impl Iterator<Item = &'a Job<Id>>) -> u32 {
    jobs.map(Job::rows).fold(0, u32::saturating_add)
}
