//! A job as the scheduler keeps it.

use std::time::Duration;

use super::Ask;
use super::queue::{Rank, Waiting};
use crate::cost::{Costs, Rates};

/// Without a deadline a job should be done this many solo times after it came: three of them it may wait.
const WAITS: f64 = 3.0;
/// However far its deadline, a job ranks as if it had to start after that long, or after [`WAITS`] solo times if that is longer.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Waiting,
    /// Handed out to be prepared.
    Preparing,
    /// On the device with evaluations left: active or parked in its lane.
    Stepping,
    /// Next to be decoded.
    Finished,
    /// Handed out to be decoded.
    Decoding,
}

/// A job, wherever it is.
#[derive(Debug)]
pub(super) struct Job<Id> {
    pub(super) id: Id,
    pub(super) ask: Ask,
    /// Order of arrival.
    pub(super) serial: u64,
    pub(super) lane: u64,
    pub(super) place: Place,
    /// When it should start at the latest, as known when it came.
    pub(super) latest: Duration,
    /// When it should have ended.
    pub(super) finish_by: Duration,
    /// It joined on the batch class's own share: nobody displaces it.
    pub(super) secured: bool,
}

/// Seconds as a duration; what is no time at all is none.
pub(super) fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX / 4)
}

/// The latest start of a job, clamped so that later jobs cannot overtake it for ever, and its solo time.
pub(super) fn latest_start(ask: &Ask, costs: &Costs) -> (Duration, Duration) {
    let solo = duration(costs.solo(&ask.price));
    let free = solo.mul_f64(WAITS);
    let most = ask.submitted.saturating_add(free.max(PATIENCE));
    let wish = ask.deadline.map_or(ask.submitted.saturating_add(free), |deadline| deadline.saturating_sub(solo));
    (wish.clamp(ask.submitted, most), solo)
}

impl<Id: Copy> Job<Id> {
    pub(super) fn new(id: Id, ask: Ask, serial: u64, lane: u64, costs: &Costs) -> Self {
        let (latest, solo) = latest_start(&ask, costs);
        let finish_by = latest.saturating_add(solo);
        Self { id, ask, serial, lane, place: Place::Waiting, latest, finish_by, secured: false }
    }

    pub(super) fn rank(&self) -> Rank {
        (self.latest, self.serial)
    }

    pub(super) fn waiting(&self) -> Waiting<Id> {
        Waiting { id: self.id, rows: self.rows(), evaluations: self.ask.price.evaluations }
    }
}

impl<Id> Job<Id> {
    /// Rows that it adds to a call, at least 1.
    pub(super) fn rows(&self) -> u32 {
        self.ask.price.rows.max(1)
    }

    /// Row-steps still to come, at least 1.
    pub(super) fn row_steps(&self) -> f64 {
        (f64::from(self.rows()) * f64::from(self.ask.price.evaluations)).max(1.0)
    }

    /// When it should take its next step at the latest, in calls of `rows` rows: what is left of it before its end.
    pub(super) fn latest_step(&self, rates: &Rates, rows: u32) -> Duration {
        let left = f64::from(self.ask.price.evaluations) * rates.evaluation(rows) + rates.decode;
        self.finish_by.saturating_sub(duration(left)).max(self.ask.submitted)
    }
}
