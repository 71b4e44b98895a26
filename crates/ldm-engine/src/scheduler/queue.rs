//! The jobs of one lane and one priority that wait: deficit round robin over tenants, least slack within a tenant.
//!
//! M. Shreedhar and G. Varghese, "Efficient fair queueing using deficit round robin" (1995). A lane has one batch key, so the
//! cost of a job is its row-steps (rows times evaluations), whatever a row-step takes. The quantum is one row-step, always: were
//! it another in each round, tenants whose turns fell into rounds of small ones would lag without bound. Rounds in which nobody
//! can begin are skipped, so picking takes one pass over the tenants.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ldm_core::Tenant;

/// What a tenant is given each round, in row-steps: the least that a job can cost.
const QUANTUM: f64 = 1.0;

/// Where a job stands in its tenant's queue: its latest start, then its order of arrival.
pub(super) type Rank = (Duration, u64);

/// A job that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting<Id> {
    pub(super) id: Id,
    pub(super) rows: u32,
    pub(super) evaluations: u32,
}

impl<Id> Waiting<Id> {
    /// Row-steps, at least 1.
    pub(super) fn cost(&self) -> f64 {
        (f64::from(self.rows) * f64::from(self.evaluations)).max(1.0)
    }
}

#[derive(Debug)]
struct Share<Id> {
    tenant: Tenant,
    deficit: f64,
    jobs: BTreeMap<Rank, Waiting<Id>>,
}

impl<Id> Share<Id> {
    fn head(&self) -> f64 {
        self.jobs.first_key_value().map_or(f64::INFINITY, |(_, job)| job.cost())
    }
}

/// Tenants with waiting jobs, the one whose turn it is first.
#[derive(Debug)]
pub(super) struct Queue<Id> {
    ring: VecDeque<Share<Id>>,
}

impl<Id: Copy> Queue<Id> {
    pub(super) fn new() -> Self {
        Self { ring: VecDeque::new() }
    }

    /// A job comes. Its tenant, when new here, gets in line behind the others.
    pub(super) fn push(&mut self, tenant: &Tenant, rank: Rank, job: Waiting<Id>) {
        if let Some(share) = self.ring.iter_mut().find(|share| share.tenant == *tenant) {
            share.jobs.insert(rank, job);
        } else {
            self.ring.push_back(Share { tenant: tenant.clone(), deficit: 0.0, jobs: BTreeMap::from([(rank, job)]) });
        }
    }

    /// A job leaves without having been picked.
    pub(super) fn remove(&mut self, tenant: &Tenant, rank: &Rank) {
        if let Some(at) = self.ring.iter().position(|share| share.tenant == *tenant) {
            self.ring[at].jobs.remove(rank);
            self.drop_if_empty(at);
        }
    }

    /// The next job, and its rank; it stays the next one until something comes, leaves or is picked.
    pub(super) fn peek(&self) -> Option<(Rank, Waiting<Id>)> {
        let (at, _) = self.winner()?;
        self.ring[at].jobs.first_key_value().map(|(rank, job)| (*rank, *job))
    }

    /// The next job begins.
    pub(super) fn take(&mut self) {
        let Some((at, rounds)) = self.winner() else { return };
        for (i, share) in self.ring.iter_mut().enumerate() {
            // Those behind the winner have their turn of this round still to come.
            let visits = if i <= at { rounds } else { (rounds - 1.0).max(0.0) };
            share.deficit += visits * QUANTUM;
        }
        let share = &mut self.ring[at];
        if let Some((_, job)) = share.jobs.pop_first() {
            share.deficit = (share.deficit - job.cost()).max(0.0);
        }
        let goes_on = share.head() <= share.deficit;
        self.ring.rotate_left(at);
        if !self.drop_if_empty(0) && !goes_on {
            self.ring.rotate_left(1);
        }
    }

    /// All jobs, in the order in which they would begin if nothing came: fair queueing's start tag, rank and job.
    pub(super) fn tagged(&self) -> impl Iterator<Item = (f64, Rank, Waiting<Id>)> + '_ {
        self.ring.iter().flat_map(|share| {
            let mut tag = -share.deficit;
            share.jobs.iter().map(move |(rank, job)| {
                let start = tag;
                tag += job.cost();
                (start, *rank, *job)
            })
        })
    }

    /// The start tag that a job of that tenant and rank would have.
    pub(super) fn tag_of(&self, tenant: &Tenant, rank: &Rank) -> f64 {
        let share = self.ring.iter().find(|share| share.tenant == *tenant);
        share.map_or(0.0, |share| share.jobs.range(..rank).map(|(_, job)| job.cost()).sum::<f64>() - share.deficit)
    }

    /// Whose turn it is, after how many rounds for it.
    fn winner(&self) -> Option<(usize, f64)> {
        let rounds = |share: &Share<Id>| ((share.head() - share.deficit) / QUANTUM).ceil().max(0.0);
        let needs = self.ring.iter().map(rounds).enumerate();
        needs.min_by(|(_, a), (_, b)| a.total_cmp(b))
    }

    fn drop_if_empty(&mut self, at: usize) -> bool {
        let empty = self.ring[at].jobs.is_empty();
        if empty {
            self.ring.remove(at);
        }
        empty
    }
}
