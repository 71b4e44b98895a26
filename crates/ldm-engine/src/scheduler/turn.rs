//! Which lane is evaluated next: least slack first, lanes with interactive jobs before those without.
//!
//! A lane's turn lasts until the first of its jobs is done: to change earlier would make both late. It ends earlier when a job
//! elsewhere comes to its latest start. Lanes of the batch class alone earn a ninth of the time that the others take.

use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;

use ldm_core::Priority;

use super::Scheduler;
use super::job::Place;
use super::lane::rows;
use crate::cost::Costs;

/// Lanes of the batch class alone earn one second when the others take that many.
const SHARE: f64 = 9.0;

/// A lane's turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    lane: u64,
    began: Duration,
    /// Evaluations until the first of its jobs is done.
    evaluations: u32,
}

/// A lane that could be evaluated.
#[derive(Clone, Copy, Debug)]
struct Runnable {
    lane: u64,
    priority: Priority,
    /// When the most urgent of its jobs should step at the latest.
    latest: Duration,
    /// Evaluations until the first of its jobs is done.
    soonest: u32,
    seconds: f64,
}

impl<Id: Copy + Eq + Hash + Debug> Scheduler<Id> {
    /// The jobs of the next call; none when no job steps.
    pub(super) fn call(&mut self, now: Duration, costs: &Costs) -> Vec<Id> {
        let lanes: Vec<u64> = self.lanes.iter().filter(|(_, lane)| !lane.active.is_empty()).map(|(at, _)| *at).collect();
        for lane in &lanes {
            self.refresh(*lane, costs);
        }
        let runnable: Vec<Runnable> = lanes.into_iter().filter_map(|lane| self.runnable(lane)).collect();
        let Some(class) = self.class(&runnable) else { return Vec::new() };
        let runnable: Vec<Runnable> = runnable.into_iter().filter(|lane| lane.priority == class).collect();
        match self.turn(&runnable, class, now) {
            Some(lane) => self.stepping(lane),
            None => Vec::new(),
        }
    }

    /// Takes the newest costs over, and parks whom a smaller cap no longer holds: the batch class first, then the least urgent.
    fn refresh(&mut self, at: u64, costs: &Costs) {
        let Some(lane) = self.lanes.get_mut(&at) else { return };
        lane.rates = costs.rates(&lane.share.key);
        let jobs = &self.jobs;
        while lane.active.len() > 1 && rows(lane.active.iter().map(|id| &jobs[id])) > lane.rates.cap {
            let last = lane.active.iter().max_by_key(|id| (jobs[*id].ask.priority, !jobs[*id].secured, jobs[*id].rank()));
            let Some(last) = last.copied() else { return };
            lane.active.retain(|id| *id != last);
            lane.parked.push(last);
        }
    }

    fn stepping(&self, lane: u64) -> Vec<Id> {
        self.lanes[&lane].active.iter().copied().filter(|id| self.jobs[id].place == Place::Stepping).collect()
    }

    fn runnable(&self, at: u64) -> Option<Runnable> {
        let lane = &self.lanes[&at];
        let jobs = || lane.active.iter().map(|id| &self.jobs[id]).filter(|job| job.place == Place::Stepping);
        let rows = rows(jobs());
        Some(Runnable {
            lane: at,
            priority: jobs().map(|job| job.ask.priority).min()?,
            latest: jobs().map(|job| job.latest_step(&lane.rates, rows)).min()?,
            soonest: jobs().map(|job| job.ask.price.evaluations).min()?,
            seconds: lane.rates.evaluation(rows),
        })
    }

    /// The class whose lanes may be evaluated, with what the batch class earns and spends.
    fn class(&mut self, runnable: &[Runnable]) -> Option<Priority> {
        let dearest = |priority| runnable.iter().filter(move |lane| lane.priority == priority).map(|lane| lane.seconds);
        let urgent = dearest(Priority::Interactive).reduce(f64::max);
        let batch = dearest(Priority::Batch).reduce(f64::max);
        match (urgent, batch) {
            (Some(_), Some(batch)) if self.earned_time >= batch => Some(Priority::Batch),
            (Some(_), Some(_)) => Some(Priority::Interactive),
            (urgent, batch) => {
                self.earned_time = 0.0;
                urgent.map(|_| Priority::Interactive).or(batch.map(|_| Priority::Batch))
            }
        }
    }

    /// Goes on with the present turn of the class, or begins the next one.
    fn turn(&mut self, runnable: &[Runnable], class: Priority, now: Duration) -> Option<u64> {
        let present = self.turns[class as usize].and_then(|turn| {
            let lane = runnable.iter().find(|lane| lane.lane == turn.lane)?;
            let comes_due = |other: &Runnable| other.lane != turn.lane && other.latest > turn.began && other.latest <= now;
            (turn.evaluations > 0 && !runnable.iter().any(comes_due)).then_some((turn, lane))
        });
        let (mut turn, lane) = present.or_else(|| {
            let first = runnable.iter().min_by_key(|lane| (lane.latest, lane.lane))?;
            Some((Turn { lane: first.lane, began: now, evaluations: first.soonest.max(1) }, first))
        })?;
        turn.evaluations -= 1;
        self.turns[class as usize] = Some(turn);
        match class {
            Priority::Interactive => self.earned_time += lane.seconds / SHARE,
            Priority::Batch => self.earned_time = (self.earned_time - lane.seconds).max(0.0),
        }
        Some(turn.lane)
    }
}
