//! What the device does next: an ordinary struct without threads, clocks or tensors.
//!
//! One *tick* is at most one decode, at most one prepare and one evaluation, so that finished jobs leave and new ones join
//! at every step boundary. An evaluation takes the job that was served longest ago and fills the call with jobs of the
//! same key, again those served longest ago first; then all of them go to the back. Whatever arrives, a job is evaluated
//! once in every N evaluations, where N is the number of jobs on the device.

use std::collections::VecDeque;

use crate::Price;

#[cfg(test)]
mod tests;

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Work<Id> {
    /// Nothing: no job is here.
    Idle,
    /// Prepare this job; then [`Scheduler::prepared`].
    Prepare(Id),
    /// Evaluate these jobs in one call; then [`Scheduler::stepped`] for each.
    Evaluate(Vec<Id>),
    /// Decode this job; then [`Scheduler::remove`].
    Decode(Id),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Handed out to be prepared or decoded.
    Elsewhere,
    Stepping,
    Decodable,
}

/// A job on the device.
#[derive(Debug)]
struct Running<Id> {
    id: Id,
    price: Price,
    phase: Phase,
}

/// Queue and device of one worker.
#[derive(Debug)]
pub(crate) struct Scheduler<Id> {
    limit: usize,
    waiting: VecDeque<(Id, Price)>,
    /// Whoever was served, or joined, longest ago stands first.
    running: Vec<Running<Id>>,
    prepared_in_tick: bool,
    decoded_in_tick: bool,
}

impl<Id: Copy + Eq> Scheduler<Id> {
    /// At most `limit` jobs are on the device at once.
    pub(crate) fn new(limit: usize) -> Self {
        let (waiting, running) = (VecDeque::new(), Vec::new());
        Self { limit, waiting, running, prepared_in_tick: false, decoded_in_tick: false }
    }

    /// Whether no job is here.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Jobs that wait, the next to start first.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = Id> {
        self.waiting.iter().map(|(id, _)| *id)
    }

    /// A job arrives.
    pub(crate) fn admit(&mut self, id: Id, price: Price) {
        self.waiting.push_back((id, price));
    }

    /// A job leaves, wherever it is.
    pub(crate) fn remove(&mut self, id: Id) {
        self.waiting.retain(|(waiting, _)| *waiting != id);
        self.running.retain(|job| job.id != id);
    }

    /// A job has been prepared and joins the next evaluation of its key.
    pub(crate) fn prepared(&mut self, id: Id) {
        self.enter(id, Phase::Stepping);
    }

    /// A job has been evaluated; `finished` says that it is to be decoded next.
    pub(crate) fn stepped(&mut self, id: Id, finished: bool) {
        if finished {
            self.enter(id, Phase::Decodable);
        }
    }

    /// What to do next. The caller does it, and says how it went, before it asks again.
    pub(crate) fn next(&mut self) -> Work<Id> {
        let stepping = self.running.iter().any(|job| job.phase == Phase::Stepping);
        if !(stepping && self.decoded_in_tick)
            && let Some(job) = self.running.iter_mut().find(|job| job.phase == Phase::Decodable)
        {
            job.phase = Phase::Elsewhere;
            self.decoded_in_tick = true;
            return Work::Decode(job.id);
        }
        if !(stepping && self.prepared_in_tick)
            && self.running.len() < self.limit
            && let Some((id, price)) = self.waiting.pop_front()
        {
            // At the back, as if it had been served just now: a stream of newcomers starves nobody.
            self.running.push(Running { id, price, phase: Phase::Elsewhere });
            self.prepared_in_tick = true;
            return Work::Prepare(id);
        }
        (self.prepared_in_tick, self.decoded_in_tick) = (false, false);
        let batch = self.batch();
        if batch.is_empty() { Work::Idle } else { Work::Evaluate(batch) }
    }

    /// Jobs of one key, longest unserved first, as many as the row cap lets in; the first goes even when it exceeds the cap.
    fn batch(&mut self) -> Vec<Id> {
        let Some(head) = self.running.iter().find(|job| job.phase == Phase::Stepping) else { return Vec::new() };
        let (key, cap) = (head.price.key.clone(), head.price.row_cap);
        let mut rows = 0;
        let joins = |job: &mut Running<Id>| {
            let fits = rows == 0 || rows + job.price.rows <= cap;
            let joins = job.phase == Phase::Stepping && job.price.key == key && fits;
            if joins {
                rows += job.price.rows.max(1);
            }
            joins
        };
        let served: Vec<Running<Id>> = self.running.extract_if(.., joins).collect();
        let batch = served.iter().map(|job| job.id).collect();
        self.running.extend(served);
        batch
    }

    fn enter(&mut self, id: Id, phase: Phase) {
        if let Some(job) = self.running.iter_mut().find(|job| job.id == id) {
            job.phase = phase;
        }
    }
}
