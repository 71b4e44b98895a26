//! The baselines: whole requests, first come, first served, in batches that nobody joins.

use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;

use super::job::Place;
use super::{Scheduler, Work};
use crate::cost::Costs;

impl<Id: Copy + Eq + Hash + Debug> Scheduler<Id> {
    /// Prepares a batch, evaluates it until all its jobs are done, decodes them, and gathers the next.
    pub(super) fn next_by_requests(&mut self, now: Duration, costs: &Costs, size: usize, window: Duration) -> Work<Id> {
        if self.group.is_empty()
            && let Some(until) = self.gather(now, costs, size.max(1), window)
        {
            return Work::Wait(until);
        }
        let member = |place| self.group.iter().copied().find(|id| self.jobs[id].place == place);
        if let Some(id) = member(Place::Waiting) {
            let job = &self.jobs[&id];
            let (lane, priority, tenant, rank) = (job.lane, job.ask.priority, job.ask.tenant.clone(), job.rank());
            self.at(lane).queue(priority).remove(&tenant, &rank);
            self.enter_device(id);
            return Work::Prepare(id);
        }
        if let Some(first) = member(Place::Stepping) {
            let lane = self.jobs[&first].lane;
            let steps = |id: &Id| self.jobs[id].place == Place::Stepping && self.jobs[id].lane == lane;
            return Work::Evaluate(self.group.iter().copied().filter(steps).collect());
        }
        match self.finished.pop_front() {
            Some(id) => self.hand_out(id, Place::Decoding, Work::Decode(id)),
            None => Work::Idle,
        }
    }

    /// Fills the next batch, or says until when to wait for more. Nobody waits: it stays empty.
    fn gather(&mut self, now: Duration, costs: &Costs, size: usize, window: Duration) -> Option<Duration> {
        let head = &self.jobs[self.arrivals.values().next()?];
        let (lane, until) = (head.lane, head.ask.submitted.saturating_add(window));
        let size = size.min(self.bounds.running.max(1));
        let mut rows = 0;
        let same = self.arrivals.values().filter(|id| self.jobs[*id].lane == lane).take(size);
        let fits = |id: &&Id| {
            rows += self.jobs[*id].rows();
            rows <= costs.max_rows()
        };
        let mut group: Vec<Id> = same.take_while(fits).copied().collect();
        if group.is_empty() {
            group.push(head.id);
        }
        // A job that shares no call waits for nobody, and nobody does for rows that the batch cannot hold.
        let is_full = group.len() == size || rows > costs.max_rows() || head.ask.alone;
        if !is_full && now < until {
            return Some(until);
        }
        self.group = group;
        None
    }
}
