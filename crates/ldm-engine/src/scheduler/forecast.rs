//! When jobs will probably start and finish.
//!
//! A lane is list-scheduled: jobs in the order in which they would join, each at the moment when those before it have freed
//! enough rows and places; a job takes its evaluations in calls as full as the lane's demand makes them, and pays for the
//! preparing and decoding that happen meanwhile. What other lanes do before it comes on top. One pass over the jobs.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;

use ldm_core::Priority;

use super::job::{Job, Place, duration, latest_start};
use super::lane::{Lane, Share};
use super::queue::{Rank, Waiting};
use super::{Ask, Forecast, Scheduler};
use crate::cost::{Costs, Rates};

/// What the batch class takes of the urgent class's time.
const BATCH_SHARE: f64 = 0.1;

/// A job as the forecast counts it.
#[derive(Clone, Copy, Debug)]
struct Piece {
    rows: u32,
    evaluations: u32,
}

/// The lane's calls, list-scheduled. Times are seconds of that lane's device time.
struct Calls {
    rates: Rates,
    /// Rows of a call.
    rows: u32,
    /// Jobs in a call.
    abreast: f64,
    free_rows: i64,
    free_places: i64,
    now: f64,
    /// Ends in microseconds, with their rows.
    ends: BinaryHeap<Reverse<(u64, u32)>>,
}

impl Calls {
    /// Runs a piece as soon as it fits; when it starts.
    fn run(&mut self, piece: Piece) -> f64 {
        while (self.free_rows < i64::from(piece.rows) || self.free_places < 1)
            && let Some(Reverse((end, rows))) = self.ends.pop()
        {
            self.free_rows += i64::from(rows);
            self.free_places += 1;
            self.now = self.now.max(end as f64 / 1e6);
        }
        self.free_rows -= i64::from(piece.rows);
        self.free_places -= 1;
        self.ends.push(Reverse((((self.now + self.seconds(piece)) * 1e6) as u64, piece.rows)));
        self.now
    }

    /// What a piece takes, with what its companions prepare and decode meanwhile.
    fn seconds(&self, piece: Piece) -> f64 {
        let steps = f64::from(piece.evaluations) * self.rates.evaluation(self.rows.max(piece.rows));
        steps + self.abreast * (self.rates.prepare + self.rates.decode)
    }
}

impl<Id: Copy + Eq + Hash + Debug> Scheduler<Id> {
    /// Jobs that wait, in the order in which they will probably start: the first has position 0.
    pub fn waiting(&self) -> Vec<Id> {
        let mut order: Vec<(usize, Duration, Id)> = Vec::with_capacity(self.arrivals.len());
        for lane in self.lanes.values() {
            for (class, queue) in lane.queues.iter().enumerate() {
                let mut jobs: Vec<_> = queue.tagged().collect();
                jobs.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                let mut latest = Duration::ZERO;
                order.extend(jobs.into_iter().map(|(_, rank, job)| {
                    // Lanes are merged by latest start, and keep their own order.
                    latest = latest.max(rank.0);
                    (class, latest, job.id)
                }));
            }
        }
        order.sort_by_key(|(class, latest, _)| (*class, *latest));
        order.into_iter().map(|(_, _, id)| id).collect()
    }

    /// Seconds of device time that all jobs here still take.
    pub fn outstanding(&self, costs: &Costs) -> f64 {
        let lanes = self.lanes.values().map(|lane| {
            // To scale an unmeasured key anew is dear, and the lane did so when it was made.
            let is_known = costs.is_known(&lane.share.key);
            let rates = if is_known { costs.rates(&lane.share.key) } else { lane.rates };
            let queued = lane.queues.iter().flat_map(|queue| queue.tagged().map(|(_, _, job)| Piece::from(job)));
            work(&rates, self.present(lane), queued)
        });
        let decodes = self.finished.iter().map(|id| self.lanes[&self.jobs[id].lane].rates.decode);
        lanes.sum::<f64>() + decodes.sum::<f64>()
    }

    /// When the job would start and finish if it came now. Takes at most some microseconds per job here.
    pub fn forecast(&self, ask: &Ask, now: Duration, costs: &Costs) -> Forecast {
        let piece = Piece { rows: ask.price.rows.max(1), evaluations: ask.price.evaluations };
        let (latest, _) = latest_start(ask, costs);
        let rank: Rank = (latest, u64::MAX);
        let share = Share { key: ask.price.key.clone(), alone: None };
        let own = self.index.get(&share).filter(|_| !ask.alone).copied();
        let rates = costs.rates(&ask.price.key);
        let ahead = own.map_or_else(Vec::new, |own| ahead(&self.lanes[&own], ask, &rank));
        let mut calls = self.calls(own, rates, &ahead, piece, ask.priority);
        ahead.into_iter().for_each(|piece| {
            calls.run(piece);
        });
        let start = calls.run(piece);
        let lanes = self.lanes.iter().filter(|(at, _)| Some(**at) != own);
        let elsewhere: f64 = lanes.map(|(_, lane)| self.before(lane, ask.priority, latest)).sum();
        let decodes = self.finished.len() as f64 * rates.decode;
        let start = start + elsewhere + decodes;
        Forecast { start: now + duration(start), finish: now + duration(start + calls.seconds(piece)) }
    }

    fn present<'a>(&'a self, lane: &'a Lane<Id>) -> impl Iterator<Item = &'a Job<Id>> {
        lane.active.iter().chain(&lane.parked).map(|id| &self.jobs[id])
    }

    /// The lane with what is on the device now; interactive jobs displace the batch class.
    fn calls(&self, own: Option<u64>, rates: Rates, ahead: &[Piece], piece: Piece, priority: Priority) -> Calls {
        let stays = |job: &&Job<Id>| job.secured || job.ask.priority <= priority;
        let present: Vec<Piece> = own.map_or_else(Vec::new, |own| {
            let lane = &self.lanes[&own];
            self.present(lane).filter(stays).map(Piece::from).collect()
        });
        let sum = |pieces: &[Piece]| pieces.iter().map(|piece| piece.rows).fold(0, u32::saturating_add);
        let demand = sum(&present).saturating_add(sum(ahead)).saturating_add(piece.rows);
        let rows = demand.min(rates.cap).max(piece.rows);
        let jobs = 1 + present.len() + ahead.len();
        let places = (self.bounds.running.max(1) - self.on_device.min(self.bounds.running.max(1))) + present.len();
        let places = places.max(1);
        let abreast = (f64::from(rows) * jobs as f64 / f64::from(demand)).clamp(1.0, places as f64);
        let (free_rows, free_places) = (i64::from(rates.cap), places as i64);
        let ends = BinaryHeap::with_capacity(present.len() + 1);
        let mut calls = Calls { rates, rows, abreast, free_rows, free_places, now: 0.0, ends };
        present.into_iter().for_each(|piece| {
            calls.run(piece);
        });
        calls
    }

    /// Seconds that another lane works before a job of that class and latest start.
    fn before(&self, lane: &Lane<Id>, priority: Priority, latest: Duration) -> f64 {
        let present = self.present(lane).filter(|job| job.ask.priority <= priority);
        let queued = lane.queues[..=priority as usize].iter().enumerate().flat_map(|(class, queue)| {
            let first = move |rank: &Rank| class < priority as usize || rank.0 <= latest;
            queue.tagged().filter(move |(_, rank, _)| first(rank)).map(|(_, _, job)| Piece::from(job))
        });
        let sooner = work(&lane.rates, present, queued);
        let batch = priority == Priority::Interactive && self.present(lane).any(|job| job.ask.priority > priority);
        sooner + if batch { BATCH_SHARE * lane.rates.evaluation(lane.rates.cap) } else { 0.0 }
    }
}

/// The jobs of the lane that wait and would join before such a job, in order.
fn ahead<Id: Copy>(lane: &Lane<Id>, ask: &Ask, rank: &Rank) -> Vec<Piece> {
    let own = ask.priority as usize;
    let tag = lane.queues[own].tag_of(&ask.tenant, rank);
    let sooner = lane.queues[..own].iter().flat_map(|queue| queue.tagged());
    let before = |at: f64, other: &Rank| at < tag || (at == tag && other < rank);
    let same = lane.queues[own].tagged().filter(|(at, other, _)| before(*at, other));
    sooner.chain(same).map(|(_, _, job)| Piece::from(job)).collect()
}

/// Seconds of device time for these jobs of one lane.
fn work<'a, Id: 'a>(rates: &Rates, present: impl Iterator<Item = &'a Job<Id>>, queued: impl Iterator<Item = Piece>) -> f64 {
    let (mut rows, mut longest, mut row_steps, mut sides) = (0u32, 0u32, 0.0, 0.0);
    let mut count = |piece: Piece, side: f64| {
        rows = rows.saturating_add(piece.rows);
        longest = longest.max(piece.evaluations);
        row_steps += f64::from(piece.rows) * f64::from(piece.evaluations);
        sides += side;
    };
    for job in present {
        let prepare = if job.place == Place::Preparing { rates.prepare } else { 0.0 };
        count(Piece::from(job), prepare + rates.decode);
    }
    queued.for_each(|piece| count(piece, rates.prepare + rates.decode));
    if rows == 0 {
        return 0.0;
    }
    let call = rows.min(rates.cap);
    let seconds = rates.evaluation(call);
    sides + (row_steps / f64::from(call)).max(f64::from(longest)) * seconds
}

impl<Id> From<&Job<Id>> for Piece {
    fn from(job: &Job<Id>) -> Self {
        Self { rows: job.rows(), evaluations: job.ask.price.evaluations }
    }
}

impl<Id> From<Waiting<Id>> for Piece {
    fn from(job: Waiting<Id>) -> Self {
        Self { rows: job.rows, evaluations: job.evaluations }
    }
}
