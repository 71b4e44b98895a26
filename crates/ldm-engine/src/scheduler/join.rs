//! Who joins a lane's calls next: from the queue by being prepared, or back from being parked.
//!
//! The urgent class goes first, except that the batch class earns a ninth of what the urgent class joins while it waits, so a
//! tenth of all; who joins on that is secured until its end. Whoever is next in a lane and does not fit is waited for: nobody
//! smaller slips past. An interactive job displaces unsecured jobs of the batch class, which stay on the device, parked.

use std::cmp::Reverse;
use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;

use ldm_core::Priority;

use super::Scheduler;
use super::job::{Job, Place};
use super::lane::{Lane, rows};

/// The batch class earns one unit when the urgent class spends that many.
const SHARE: f64 = 9.0;

/// The next one to join a lane.
#[derive(Clone, Copy, Debug)]
struct Candidate<Id> {
    id: Id,
    lane: u64,
    priority: Priority,
    /// On the batch class's own share.
    secured: bool,
    is_parked: bool,
    latest: Duration,
    serial: u64,
}

impl<Id> Candidate<Id> {
    /// The best candidate of all lanes is the least.
    fn order(&self) -> (Reverse<bool>, Priority, Duration, u64) {
        (Reverse(self.secured), self.priority, self.latest, self.serial)
    }
}

impl<Id: Copy + Eq + Hash + Debug> Scheduler<Id> {
    /// Parked jobs return where rows are free and nobody goes before them.
    pub(super) fn resume(&mut self) {
        let lanes: Vec<u64> = self.lanes.iter().filter(|(_, lane)| !lane.parked.is_empty()).map(|(at, _)| *at).collect();
        for lane in lanes {
            while let Some(next) = self.candidate(lane).filter(|next| next.is_parked && self.fits(next)) {
                self.join(&next);
            }
        }
    }

    /// The waiting job that begins now, if one may, and how long it will probably take to prepare, in seconds.
    ///
    /// `spent` is what the prepares of this tick take already, while others wait for their next evaluation. Together they may take
    /// as long as that evaluation: then those who step are never slowed down to less than half, and jobs of few steps still fill
    /// their calls. What a prepare takes must be known for a second one.
    pub(super) fn start(&mut self, spent: Option<f64>) -> Option<(Id, f64)> {
        if self.arrivals.is_empty() || !self.has_place(Priority::Interactive) {
            return None;
        }
        self.limit_earnings();
        let waiting = self.lanes.keys().filter_map(|lane| self.candidate(*lane)).filter(|next| !next.is_parked);
        let next = waiting.filter(|next| self.fits(next)).min_by_key(Candidate::order)?;
        let lane = &self.lanes[&next.lane];
        let (prepare, taken) = (lane.rates.prepare, rows(lane.active.iter().map(|id| &self.jobs[id])));
        let is_short = |spent: f64| prepare > 0.0 && spent + prepare <= lane.rates.evaluation(taken);
        if !spent.is_none_or(is_short) {
            return None;
        }
        self.join(&next);
        Some((next.id, prepare))
    }

    /// Whether one more job of that priority may be on the device. The batch class leaves a quarter of the places free.
    fn has_place(&self, priority: Priority) -> bool {
        let running = self.bounds.running.max(1);
        let batch_bound = (running - (running / 4).max(1)).max(1);
        self.on_device < running && (priority == Priority::Interactive || self.batch_on_device < batch_bound)
    }

    /// The next to join that lane, whether or not it fits its rows now; who waits needs a place on the device.
    fn candidate(&self, at: u64) -> Option<Candidate<Id>> {
        let lane = &self.lanes[&at];
        let first = |priority| {
            let first = self.first_of(lane, at, priority);
            first.filter(|first| first.is_parked || self.has_place(priority))
        };
        let (urgent, batch) = (first(Priority::Interactive), first(Priority::Batch));
        match (urgent, batch) {
            (Some(urgent), Some(batch)) => {
                let cost = self.jobs[&batch.id].row_steps() * lane.rates.row_step();
                Some(if self.earned >= cost { Candidate { secured: true, ..batch } } else { urgent })
            }
            (urgent, batch) => urgent.or(batch),
        }
    }

    /// The first of a class: who is parked, the longest due first, then who waits.
    fn first_of(&self, lane: &Lane<Id>, at: u64, priority: Priority) -> Option<Candidate<Id>> {
        let parked = lane.parked.iter().map(|id| &self.jobs[id]).filter(|job| job.ask.priority == priority);
        let candidate = |job: &Job<Id>, is_parked| Candidate {
            id: job.id,
            lane: at,
            priority,
            secured: false,
            is_parked,
            latest: job.latest,
            serial: job.serial,
        };
        let parked = parked.min_by_key(|job| job.rank()).map(|job| candidate(job, true));
        parked.or_else(|| lane.queues[priority as usize].peek().map(|(_, next)| candidate(&self.jobs[&next.id], false)))
    }

    fn fits(&self, next: &Candidate<Id>) -> bool {
        let lane = &self.lanes[&next.lane];
        let stays = lane.active.iter().map(|id| &self.jobs[id]).filter(|job| !gives_way(job, next.priority));
        let taken = rows(stays);
        taken == 0 || taken.saturating_add(self.jobs[&next.id].rows()) <= lane.rates.cap
    }

    /// The candidate takes its rows; whom it displaces is parked.
    fn join(&mut self, next: &Candidate<Id>) {
        self.charge(next);
        self.make_room(next);
        let job = self.jobs.get_mut(&next.id).expect("a candidate is here");
        job.secured |= next.secured;
        let lane = self.lanes.get_mut(&next.lane).expect("a candidate's lane is here");
        if next.is_parked {
            lane.parked.retain(|id| *id != next.id);
            lane.active.push(next.id);
        } else {
            lane.queue(next.priority).take();
            self.enter_device(next.id);
        }
    }

    fn make_room(&mut self, next: &Candidate<Id>) {
        let lane = self.lanes.get_mut(&next.lane).expect("a candidate's lane is here");
        let (jobs, own) = (&self.jobs, self.jobs[&next.id].rows());
        let mut taken = rows(lane.active.iter().map(|id| &jobs[id]));
        while !lane.active.is_empty() && taken.saturating_add(own) > lane.rates.cap {
            let who = lane.active.iter().filter(|id| gives_way(&jobs[*id], next.priority));
            let Some(id) = who.max_by_key(|id| jobs[*id].rank()).copied() else { return };
            taken -= jobs[&id].rows();
            lane.active.retain(|other| *other != id);
            lane.parked.push(id);
        }
    }

    /// What the batch class earns and spends.
    fn charge(&mut self, next: &Candidate<Id>) {
        let cost = self.jobs[&next.id].row_steps() * self.lanes[&next.lane].rates.row_step();
        if next.secured {
            self.earned = (self.earned - cost).max(0.0);
        } else if next.priority == Priority::Interactive && !next.is_parked {
            self.earned += cost / SHARE;
        }
    }

    /// Nothing is earned while no job of the batch class waits for it, nor more than twice what the dearest could spend.
    fn limit_earnings(&mut self) {
        if self.earned == 0.0 {
            return;
        }
        let batch = Priority::Batch;
        let costs = self.lanes.iter().filter_map(|(at, lane)| {
            self.first_of(lane, *at, batch).map(|next| self.jobs[&next.id].row_steps() * lane.rates.row_step())
        });
        self.earned = self.earned.min(2.0 * costs.fold(0.0, f64::max));
    }
}

/// Whether a job on the device gives way to one of that priority.
fn gives_way<Id>(job: &Job<Id>, to: Priority) -> bool {
    to == Priority::Interactive && job.ask.priority == Priority::Batch && !job.secured && job.place == Place::Stepping
}
