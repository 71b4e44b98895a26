//! What the device does next: an ordinary struct without threads, clocks or tensors. `docs/scheduling.md` gives the policy.
//!
//! Times are [`Duration`]s since the engine's start, always passed in. One *tick* is at most one decode, a few prepares that take
//! no longer than the evaluation, and one evaluation, so that finished jobs leave and new ones join at every step boundary.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;

use ldm_core::Priority;

use crate::cost::Costs;
use crate::{BatchKey, Price};

mod batches;
mod forecast;
mod job;
mod join;
mod lane;
mod queue;
mod terms;
mod turn;

pub use terms::{Ask, Bounds, Forecast, Policy, Work};

use job::{Job, Place};
use lane::{Lane, Share};
use turn::Turn;

#[cfg(test)]
mod tests;

/// Queue and device of one worker.
#[derive(Debug)]
pub struct Scheduler<Id> {
    bounds: Bounds,
    policy: Policy,
    jobs: HashMap<Id, Job<Id>>,
    /// Jobs that wait, in the order of arrival.
    arrivals: BTreeMap<u64, Id>,
    lanes: BTreeMap<u64, Lane<Id>>,
    index: HashMap<Share, u64>,
    /// Jobs to be decoded, the first to finish first.
    finished: VecDeque<Id>,
    on_device: usize,
    batch_on_device: usize,
    /// Seconds of work that the batch class may join before the urgent class.
    earned: f64,
    /// Seconds of evaluations that lanes of the batch class may take before the others.
    earned_time: f64,
    turns: [Option<Turn>; 2],
    /// The batch that runs, under a policy that makes batches of requests.
    group: Vec<Id>,
    /// Seconds that the prepares of this tick are expected to take; `None`: there was none.
    prepared_in_tick: Option<f64>,
    decoded_in_tick: bool,
    serial: u64,
    revision: u64,
}

impl<Id: Copy + Eq + Hash + Debug> Scheduler<Id> {
    /// An empty device.
    pub fn new(bounds: Bounds, policy: Policy) -> Self {
        Self {
            bounds,
            policy,
            jobs: HashMap::new(),
            arrivals: BTreeMap::new(),
            lanes: BTreeMap::new(),
            index: HashMap::new(),
            finished: VecDeque::new(),
            on_device: 0,
            batch_on_device: 0,
            earned: 0.0,
            earned_time: 0.0,
            turns: [None; 2],
            group: Vec::new(),
            prepared_in_tick: None,
            decoded_in_tick: false,
            serial: 0,
            revision: 0,
        }
    }

    /// Whether no job is here.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Jobs here, waiting or on the device.
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Jobs on the device, those that are parked on it included.
    pub fn on_device(&self) -> usize {
        self.on_device
    }

    /// Jobs of each priority that wait, in the order of `Priority::ALL`.
    pub fn waiting_by_priority(&self) -> [usize; 2] {
        Priority::ALL.map(|priority| self.arrivals.values().filter(|id| self.jobs[id].ask.priority == priority).count())
    }

    /// Forgets every job.
    pub fn clear(&mut self) {
        let revision = self.revision + 1;
        *self = Self { revision, ..Self::new(self.bounds, self.policy) };
    }

    /// Changes whenever a job begins or ceases to wait: positions need not be told again before.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// A job arrives. An id that is here already is replaced.
    pub fn admit(&mut self, id: Id, ask: Ask, costs: &Costs) {
        self.remove(id);
        self.serial += 1;
        self.revision += 1;
        let lane = self.lane(&ask.price.key, ask.alone.then_some(self.serial), costs);
        let job = Job::new(id, ask, self.serial, lane, costs);
        let home = self.at(lane);
        home.members += 1;
        home.queue(job.ask.priority).push(&job.ask.tenant, job.rank(), job.waiting());
        self.arrivals.insert(job.serial, id);
        self.jobs.insert(id, job);
    }

    /// A job leaves, wherever it is. Unknown jobs have left already.
    pub fn remove(&mut self, id: Id) {
        let Some(job) = self.jobs.remove(&id) else { return };
        if job.place == Place::Waiting {
            self.revision += 1;
            self.arrivals.remove(&job.serial);
            self.at(job.lane).queue(job.ask.priority).remove(&job.ask.tenant, &job.rank());
        } else {
            self.on_device -= 1;
            self.batch_on_device -= usize::from(job.ask.priority == Priority::Batch);
            self.at(job.lane).forget(id);
            self.finished.retain(|other| *other != id);
        }
        self.group.retain(|other| *other != id);
        self.leave(job.lane);
    }

    /// A job has been prepared: what it really costs, `evaluations` being those that are left. Joins the next evaluation.
    pub fn prepared(&mut self, id: Id, price: Price, costs: &Costs) {
        if let Some(job) = self.jobs.get_mut(&id).filter(|job| job.place == Place::Preparing) {
            job.place = Place::Stepping;
            self.moved(id, price, costs);
        }
    }

    /// A job has been evaluated; so many evaluations are left, and with none it is decoded next.
    pub fn stepped(&mut self, id: Id, evaluations_left: u32) {
        let Some(job) = self.jobs.get_mut(&id).filter(|job| job.place == Place::Stepping) else { return };
        job.ask.price.evaluations = evaluations_left;
        if evaluations_left == 0 {
            job.place = Place::Finished;
            let lane = job.lane;
            self.finished.push_back(id);
            self.at(lane).forget(id);
        }
    }

    /// The latent of a prepared job changed its shape between two passes: what it costs from now on.
    pub fn moved(&mut self, id: Id, price: Price, costs: &Costs) {
        let Some(job) = self.jobs.get_mut(&id).filter(|job| job.place == Place::Stepping) else { return };
        let (from, alone) = (job.lane, job.ask.alone.then_some(job.serial));
        let is_same = job.ask.price.key == price.key;
        let is_done = price.evaluations == 0;
        job.ask.price = price.clone();
        if !is_same {
            let to = self.lane(&price.key, alone, costs);
            self.at(from).forget(id);
            // It returns from there as soon as its rows are free, before anybody who waits.
            let home = self.at(to);
            home.members += 1;
            home.parked.push(id);
            if let Some(job) = self.jobs.get_mut(&id) {
                job.lane = to;
            }
            self.leave(from);
        }
        if is_done {
            self.stepped(id, 0);
        }
    }

    /// Jobs whose deadline has passed, waiting or running. They stay until they are removed.
    pub fn overdue(&self, now: Duration) -> Vec<Id> {
        let late = |job: &&Job<Id>| job.ask.deadline.is_some_and(|deadline| deadline <= now);
        self.jobs.values().filter(late).map(|job| job.id).collect()
    }

    /// How long the job of each priority that waits longest has waited, in the order of [`Priority::ALL`].
    pub fn oldest_wait(&self, now: Duration) -> [Option<Duration>; 2] {
        let waiting = || self.arrivals.values().map(|id| &self.jobs[id].ask);
        let wait = |ask: &Ask| now.saturating_sub(ask.submitted);
        Priority::ALL.map(|priority| waiting().filter(|ask| ask.priority == priority).map(wait).max())
    }

    /// What to do next. The caller does it, and says how it went, before it asks again.
    pub fn next(&mut self, now: Duration, costs: &Costs) -> Work<Id> {
        match self.policy {
            Policy::Steps => self.next_by_steps(now, costs),
            Policy::RequestBatches { size, window } => self.next_by_requests(now, costs, size, window),
            Policy::OneAtATime => self.next_by_requests(now, costs, 1, Duration::ZERO),
        }
    }

    fn next_by_steps(&mut self, now: Duration, costs: &Costs) -> Work<Id> {
        self.resume();
        let steps = self.lanes.values().any(|lane| !lane.active.is_empty());
        if !(steps && self.decoded_in_tick)
            && let Some(id) = self.finished.pop_front()
        {
            self.decoded_in_tick = true;
            return self.hand_out(id, Place::Decoding, Work::Decode(id));
        }
        let spent = self.prepared_in_tick.filter(|_| steps);
        if let Some((id, seconds)) = self.start(spent) {
            self.prepared_in_tick = Some(spent.unwrap_or(0.0) + seconds);
            return Work::Prepare(id);
        }
        (self.prepared_in_tick, self.decoded_in_tick) = (None, false);
        let call = self.call(now, costs);
        if call.is_empty() { Work::Idle } else { Work::Evaluate(call) }
    }

    fn hand_out(&mut self, id: Id, place: Place, work: Work<Id>) -> Work<Id> {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.place = place;
        }
        work
    }

    /// A job that waited is on the device from now on, to be prepared.
    fn enter_device(&mut self, id: Id) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.place = Place::Preparing;
        self.revision += 1;
        self.on_device += 1;
        self.batch_on_device += usize::from(job.ask.priority == Priority::Batch);
        self.arrivals.remove(&job.serial);
        let lane = job.lane;
        self.at(lane).active.push(id);
    }

    /// The lane of that key, or of that job alone, made if there is none.
    fn lane(&mut self, key: &BatchKey, alone: Option<u64>, costs: &Costs) -> u64 {
        let share = Share { key: key.clone(), alone };
        if let Some(at) = self.index.get(&share) {
            return *at;
        }
        self.serial += 1;
        self.lanes.insert(self.serial, Lane::new(share.clone(), costs));
        self.index.insert(share, self.serial);
        self.serial
    }

    // A lane stays for as long as a job names it.
    fn at(&mut self, lane: u64) -> &mut Lane<Id> {
        self.lanes.get_mut(&lane).expect("a job's lane is here")
    }

    /// A job names that lane no more; the last one takes it away.
    fn leave(&mut self, at: u64) {
        let lane = self.at(at);
        lane.members -= 1;
        if lane.members == 0 {
            let share = lane.share.clone();
            self.index.remove(&share);
            self.lanes.remove(&at);
        }
    }
}
