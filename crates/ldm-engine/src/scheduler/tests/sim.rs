//! A device that takes no time to simulate, and checks at every piece of work that the scheduler keeps its promises.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use ldm_core::{Priority, Tenant};

use crate::cost::Costs;
use crate::scheduler::{Ask, Bounds, Policy, Scheduler, Work};
use crate::{BatchKey, Price};

/// What the simulated device really takes, in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Truth {
    /// A call of up to `knee` rows of a 64 x 64 latent.
    pub(super) step: f64,
    pub(super) knee: u32,
    pub(super) prepare: f64,
    pub(super) decode: f64,
}

impl Truth {
    /// Half of a call does not depend on its rows; beyond the knee a call grows with them.
    pub(super) fn evaluation(&self, key: &BatchKey, rows: u32) -> f64 {
        let area = f64::from(key.latent[1]) * f64::from(key.latent[2]) / 4096.0;
        let knee = f64::from(self.knee);
        let rows = f64::from(rows);
        self.step * area * if rows <= knee { 0.5 + 0.5 * rows / knee } else { rows / knee }
    }
}

pub(super) const TRUTH: Truth = Truth { step: 0.05, knee: 16, prepare: 0.01, decode: 0.02 };

pub(super) fn key(side: u32) -> BatchKey {
    BatchKey { model: "m".to_owned(), latent: [4, side, side], cross: [77, 8] }
}

/// An interactive job of one 64 x 64 latent.
pub(super) fn ask(submitted: f64, rows: u32, evaluations: u32) -> Ask {
    Ask {
        price: Price { key: key(64), rows, evaluations },
        tenant: Tenant::default(),
        priority: Priority::Interactive,
        submitted: Duration::from_secs_f64(submitted),
        deadline: None,
        alone: false,
    }
}

/// A table in which every row count up to `max_rows` of that key was measured.
pub(super) fn measured(truth: &Truth, keys: &[BatchKey], max_rows: u32) -> Costs {
    let mut costs = Costs::new(max_rows);
    for key in keys {
        for rows in 1..=max_rows {
            for _ in 0..4 {
                costs.record_evaluation(key, rows, Duration::from_secs_f64(truth.evaluation(key, rows)));
            }
        }
        costs.record_prepare(key, Duration::from_secs_f64(truth.prepare));
        costs.record_decode(key, Duration::from_secs_f64(truth.decode));
    }
    costs
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Finished,
    Cancelled,
    Failed,
}

/// What became of a job.
#[derive(Clone, Debug)]
pub(super) struct Fate {
    pub(super) ask: Ask,
    pub(super) left: u32,
    pub(super) started: Option<Duration>,
    pub(super) prepared: bool,
    pub(super) ended: Vec<(Duration, End)>,
    /// Ticks between its arrival and its start.
    pub(super) ticks_waited: u64,
}

impl Fate {
    pub(super) fn latency(&self) -> f64 {
        (self.ended[0].0 - self.ask.submitted).as_secs_f64()
    }
}

/// A call that was made.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) at: Duration,
    pub(super) ids: Vec<usize>,
    pub(super) rows: u32,
}

pub(super) struct Sim {
    pub(super) truth: Truth,
    pub(super) scheduler: Scheduler<usize>,
    pub(super) costs: Costs,
    pub(super) now: Duration,
    pub(super) fates: BTreeMap<usize, Fate>,
    /// Jobs that have not ended.
    open: BTreeSet<usize>,
    pub(super) calls: Vec<Call>,
    /// Jobs whose evaluation fails, with the evaluations then left.
    pub(super) faults: HashMap<usize, u32>,
    running: usize,
    steps_policy: bool,
    prepares: u32,
    decodes: u32,
}

impl Sim {
    pub(super) fn new(truth: Truth, costs: Costs, running: usize, policy: Policy) -> Self {
        Self {
            truth,
            scheduler: Scheduler::new(Bounds { running }, policy),
            costs,
            now: Duration::ZERO,
            fates: BTreeMap::new(),
            open: BTreeSet::new(),
            calls: Vec::new(),
            faults: HashMap::new(),
            running,
            steps_policy: policy == Policy::Steps,
            prepares: 0,
            decodes: 0,
        }
    }

    /// Everything measured, sixteen rows at the knee, sixty-four jobs at most.
    pub(super) fn warm(policy: Policy) -> Self {
        let costs = measured(&TRUTH, &[key(32), key(64), key(96)], 32);
        Self::new(TRUTH, costs, 64, policy)
    }

    pub(super) fn admit(&mut self, id: usize, ask: Ask) {
        let left = ask.price.evaluations;
        self.scheduler.admit(id, ask.clone(), &self.costs);
        let fate = Fate { ask, left, started: None, prepared: false, ended: Vec::new(), ticks_waited: 0 };
        assert!(self.fates.insert(id, fate).is_none() && self.open.insert(id));
    }

    pub(super) fn end(&mut self, id: usize, end: End) {
        self.scheduler.remove(id);
        self.open.remove(&id);
        let now = self.now;
        self.fate(id).ended.push((now, end));
    }

    pub(super) fn fate(&mut self, id: usize) -> &mut Fate {
        self.fates.get_mut(&id).expect("a known job")
    }

    fn pass(&mut self, seconds: f64) {
        self.now += Duration::from_secs_f64(seconds);
    }

    /// One piece of work. `false`: there was nothing to do now.
    pub(super) fn work(&mut self) -> bool {
        match self.scheduler.next(self.now, &self.costs) {
            Work::Idle | Work::Wait(_) => return false,
            Work::Prepare(id) => self.prepare(id),
            Work::Evaluate(ids) => self.evaluate(ids),
            Work::Decode(id) => self.decode(id),
        }
        true
    }

    /// Whether a job other than this one takes part in calls; who is parked does not.
    fn steps_beside(&self, id: usize) -> bool {
        self.scheduler.lanes.values().flat_map(|lane| &lane.active).any(|other| *other != id)
    }

    fn prepare(&mut self, id: usize) {
        // A tick without anybody who steps is no tick.
        self.prepares = if self.steps_beside(id) { self.prepares + 1 } else { 0 };
        // What they may take together is an evaluation as it was expected then; here, generously, the longest that could be.
        let longest = [32, 64, 96].map(|side| self.costs.rates(&key(side)).evaluation(self.costs.max_rows()));
        let most = 1.0 + 2.0 * longest.into_iter().fold(0.0, f64::max) / self.truth.prepare;
        assert!(!self.steps_policy || f64::from(self.prepares) <= most, "{} prepares in a tick", self.prepares);
        assert!(self.scheduler.on_device() <= self.running, "places on the device");
        let (now, seconds) = (self.now, self.truth.prepare);
        let fate = self.fate(id);
        assert!(fate.started.is_none() && fate.ended.is_empty(), "prepared once");
        (fate.started, fate.prepared) = (Some(now), true);
        let price = fate.ask.price.clone();
        self.pass(seconds);
        self.costs.record_prepare(&price.key, Duration::from_secs_f64(seconds));
        self.scheduler.prepared(id, price, &self.costs);
    }

    fn evaluate(&mut self, ids: Vec<usize>) {
        (self.prepares, self.decodes) = (0, 0);
        for id in &self.open {
            let fate = self.fates.get_mut(id).expect("a known job");
            fate.ticks_waited += u64::from(fate.started.is_none());
        }
        let key = self.fates[&ids[0]].ask.price.key.clone();
        let rows = ids.iter().map(|id| self.fates[id].ask.price.rows).sum();
        let cap = if self.steps_policy { self.costs.cap(&key) } else { self.costs.max_rows() };
        assert!(rows <= cap || ids.len() == 1, "{rows} rows in a call, at most {cap}");
        for id in &ids {
            let fate = &self.fates[id];
            assert!(fate.prepared && fate.left > 0 && fate.ended.is_empty(), "job {id} can be evaluated");
            assert!(fate.ask.price.key == key && (!fate.ask.alone || ids.len() == 1));
        }
        let seconds = self.truth.evaluation(&key, rows);
        self.calls.push(Call { at: self.now, ids: ids.clone(), rows });
        self.pass(seconds);
        self.costs.record_evaluation(&key, rows, Duration::from_secs_f64(seconds));
        for id in ids {
            let left = self.fates[&id].left - 1;
            if self.faults.get(&id) == Some(&left) {
                self.end(id, End::Failed);
            } else {
                self.fate(id).left = left;
                self.scheduler.stepped(id, left);
            }
        }
    }

    fn decode(&mut self, id: usize) {
        self.decodes += 1;
        assert!(!self.steps_policy || !self.steps_beside(id) || self.decodes <= 1, "one decode per tick");
        assert!(self.fates[&id].left == 0 && self.fates[&id].ended.is_empty());
        let (key, seconds) = (self.fates[&id].ask.price.key.clone(), self.truth.decode);
        self.pass(seconds);
        self.costs.record_decode(&key, Duration::from_secs_f64(seconds));
        self.end(id, End::Finished);
    }

    /// Runs jobs that come at their own times, in ascending order, until all have ended.
    pub(super) fn run(&mut self, asks: Vec<Ask>) {
        let mut coming = asks.into_iter().enumerate().peekable();
        loop {
            while let Some((id, ask)) = coming.next_if(|(_, ask)| ask.submitted <= self.now) {
                self.admit(id, ask);
            }
            let next = coming.peek().map(|(_, ask)| ask.submitted);
            match self.scheduler.next(self.now, &self.costs) {
                Work::Prepare(id) => self.prepare(id),
                Work::Evaluate(ids) => self.evaluate(ids),
                Work::Decode(id) => self.decode(id),
                Work::Wait(until) => self.now = next.map_or(until, |next| next.min(until)),
                Work::Idle => match next {
                    Some(next) => self.now = next,
                    None => break,
                },
            }
        }
        assert!(self.scheduler.is_empty() && self.fates.values().all(|fate| fate.ended.len() == 1));
    }

    /// Works until nothing is left to do.
    pub(super) fn drain(&mut self) {
        while self.work() {}
    }

    pub(super) fn seeds(&self) -> Vec<Vec<usize>> {
        self.calls.iter().map(|call| call.ids.clone()).collect()
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014) as numbers in (0, 1].
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((z ^ (z >> 31)) >> 11) as f64 + 1.0) / (1u64 << 53) as f64
    }

    /// An exponentially distributed gap with that mean: a Poisson process's.
    pub(super) fn gap(&mut self, mean: f64) -> f64 {
        -mean * self.roll().ln()
    }
}

pub(super) fn percentile(mut values: Vec<f64>, percent: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * percent / 100.0).round() as usize]
}
