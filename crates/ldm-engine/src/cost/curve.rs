//! The measured evaluations of one key: a line through them, and the knee.

use std::collections::BTreeMap;

use super::{KeyProfile, PointProfile, Spread};
use crate::BatchKey;

/// Rows that a call may hold before anything was measured.
pub(crate) const START: u32 = 4;
/// By how much rows per second must grow per doubling of the rows, for the doubling to be worth the longer step.
const GAIN: f64 = 0.05;
/// Calls after which a row count is believed.
const BELIEVED: u64 = 3;
/// Shorter calls cannot be told apart; they count as this, in seconds.
const RESOLUTION: f64 = 100e-6;
/// Full calls after which what was measured beyond the knee is forgotten, and so tried again.
const RETRY: u64 = 2_000;
/// Full calls after which the memory bound is lifted by a quarter; doubles with every failure.
const MEMORY_RETRY: u64 = 5_000;
/// The share of a call that is thought not to depend on the rows while one row count alone was measured.
const FIXED: f64 = 0.25;

/// What one key costs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Curve {
    points: BTreeMap<u32, Spread>,
    /// `a + b * rows` through the points.
    line: Option<(f64, f64)>,
    /// The row count beyond which rows per second stop growing, and whether anything larger was measured.
    knee: Knee,
    pub(crate) prepare: Spread,
    pub(crate) decode: Spread,
    memory: Option<Memory>,
    /// Calls as full as the cap allows, since something larger was tried.
    full_calls: u64,
    /// When it was last used.
    pub(crate) used: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Knee {
    rows: u32,
    is_passed: bool,
}

/// The bound that a failure for want of memory set.
#[derive(Clone, Copy, Debug)]
struct Memory {
    rows: u32,
    retry: u64,
    full_calls: u64,
}

impl Curve {
    pub(crate) fn is_measured(&self) -> bool {
        !self.points.is_empty()
    }

    pub(crate) fn point(&self, rows: u32) -> Option<&Spread> {
        self.points.get(&rows)
    }

    pub(crate) fn line(&self) -> Option<(f64, f64)> {
        self.line
    }

    /// An evaluation took that long.
    pub(crate) fn evaluation(&mut self, rows: u32, seconds: f64, max_rows: u32) {
        let full = rows.saturating_mul(4) > self.cap(max_rows).saturating_mul(3);
        // One job may have more rows than any call of several; such a point says nothing about sharing.
        if rows <= max_rows.max(START) {
            self.points.entry(rows).or_default().record(seconds);
        }
        if full {
            self.retry();
        }
        self.settle(max_rows);
    }

    /// Half of `rows` is the bound from now on.
    pub(crate) fn out_of_memory(&mut self, rows: u32) {
        let retry = self.memory.map_or(MEMORY_RETRY, |memory| memory.retry.saturating_mul(2));
        let bound = (rows / 2).max(1);
        let bound = self.memory.map_or(bound, |memory| bound.min(memory.rows));
        self.memory = Some(Memory { rows: bound, retry, full_calls: 0 });
        self.points.retain(|&at, _| at < rows);
    }

    /// Rows that a call should hold.
    pub(crate) fn cap(&self, max_rows: u32) -> u32 {
        let free = match self.knee {
            Knee { rows: 0, .. } => START,
            Knee { rows, is_passed: true } => rows,
            Knee { rows, is_passed: false } => rows.saturating_mul(2).max(START),
        };
        free.min(max_rows).min(self.memory.map_or(u32::MAX, |memory| memory.rows)).max(1)
    }

    /// Full calls bring nearer the day when more rows are tried again.
    fn retry(&mut self) {
        self.full_calls += 1;
        if self.full_calls >= RETRY {
            self.full_calls = 0;
            let knee = self.knee.rows;
            self.points.retain(|&rows, _| rows <= knee);
        }
        if let Some(memory) = &mut self.memory {
            memory.full_calls += 1;
            if memory.full_calls >= memory.retry {
                memory.full_calls = 0;
                memory.rows = memory.rows.saturating_add((memory.rows / 4).max(1));
            }
        }
    }

    /// Fits the line and finds the knee.
    pub(crate) fn settle(&mut self, max_rows: u32) {
        self.line = self.fitted();
        let mut best: Option<(u32, f64)> = None;
        let mut largest = 0;
        for (&rows, spread) in self.points.iter().filter(|(rows, spread)| spread.count() >= BELIEVED && **rows <= max_rows) {
            let speed = f64::from(rows) / spread.mean().max(RESOLUTION);
            let grows = |(at, best): (u32, f64)| speed >= best * (1.0 + GAIN * (f64::from(rows) / f64::from(at)).log2());
            if best.is_none_or(grows) {
                best = Some((rows, speed));
            }
            largest = rows;
        }
        let rows = best.map_or(0, |(rows, _)| rows);
        self.knee = Knee { rows, is_passed: rows < largest };
    }

    /// Least squares through the points, weighted by relative error; both coefficients are at least 0.
    fn fitted(&self) -> Option<(f64, f64)> {
        let known = self.points.iter().map(|(&rows, spread)| (f64::from(rows), spread.mean()));
        let (mut n, mut x, mut y, mut xx, mut xy) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for (rows, seconds) in known {
            let weight = 1.0 / seconds.max(RESOLUTION).powi(2);
            n += weight;
            x += weight * rows;
            y += weight * seconds;
            xx += weight * rows * rows;
            xy += weight * rows * seconds;
        }
        if self.points.len() < 2 {
            let (&rows, spread) = self.points.first_key_value()?;
            return Some((FIXED * spread.mean(), (1.0 - FIXED) * spread.mean() / f64::from(rows)));
        }
        let slope = ((n * xy - x * y) / (n * xx - x * x)).max(0.0);
        let base = (y - slope * x) / n;
        // A line below zero is one through zero.
        Some(if base >= 0.0 { (base, slope) } else { (0.0, xy / xx) })
    }

    pub(crate) fn export(&self, key: &BatchKey) -> KeyProfile {
        let plain = |rows: u32, spread: &Spread| PointProfile {
            rows,
            mean: spread.mean(),
            deviation: spread.deviation(),
            count: spread.count(),
        };
        KeyProfile {
            key: key.clone(),
            points: self.points.iter().map(|(&rows, spread)| plain(rows, spread)).collect(),
            prepare: plain(0, &self.prepare),
            decode: plain(0, &self.decode),
            memory_rows: self.memory.map(|memory| memory.rows),
        }
    }

    pub(crate) fn import(profile: &KeyProfile) -> Self {
        let spread = |point: &PointProfile| Spread::restored(point.mean, point.deviation, point.count);
        let points = profile.points.iter().map(|point| (point.rows, spread(point)));
        let points = points.filter(|(rows, spread)| *rows > 0 && spread.count() > 0).collect();
        let memory = profile.memory_rows.map(|rows| Memory { rows: rows.max(1), retry: MEMORY_RETRY, full_calls: 0 });
        let (prepare, decode) = (spread(&profile.prepare), spread(&profile.decode));
        Self { points, prepare, decode, memory, ..Self::default() }
    }
}
