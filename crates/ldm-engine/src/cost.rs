//! What calls cost, measured: the time of an evaluation for every batch key and row count, of preparing and of decoding, and
//! how many rows a call of a key should hold.
//!
//! A plain struct without a clock. Seconds come from real calls; what was never measured is fitted (`a + b * rows`), or scaled
//! from the measured key of the same model whose latent area is nearest. `docs/scheduling.md` says how the knee is found.

use std::collections::HashMap;
use std::time::Duration;

use crate::{BatchKey, Price};

mod curve;
mod ewma;
mod profile;

pub use ewma::Spread;
pub use profile::{KeyProfile, PointProfile, Profile};

use curve::Curve;

/// Keys that are remembered; the one unused longest makes room for a new one.
const MOST_KEYS: usize = 512;
/// What a row of [`DEFAULT_AREA`] latent pixels is thought to take before anything was measured, in seconds.
const DEFAULT_ROW: f64 = 0.05;
/// The latent area of a 512 x 512 picture.
const DEFAULT_AREA: f64 = 64.0 * 64.0;

/// The cost table of one device.
#[derive(Clone, Debug)]
pub struct Costs {
    max_rows: u32,
    curves: HashMap<BatchKey, Curve>,
    /// Counts calls; orders the keys by their last use.
    serial: u64,
}

/// What one key costs now: a snapshot that needs no look-up. Seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Rows that one call should hold, at least 1.
    pub cap: u32,
    /// Seconds of a call that no row adds to.
    pub base: f64,
    /// Seconds that each row adds.
    pub per_row: f64,
    /// Seconds of preparing one job.
    pub prepare: f64,
    /// Seconds of decoding one job.
    pub decode: f64,
}

impl Rates {
    /// Seconds of one evaluation with so many rows, by the fitted line.
    pub fn evaluation(&self, rows: u32) -> f64 {
        self.base + self.per_row * f64::from(rows.max(1))
    }

    /// Seconds of device time that one row takes of one evaluation in a full call.
    pub fn row_step(&self) -> f64 {
        self.evaluation(self.cap) / f64::from(self.cap.max(1))
    }
}

impl Costs {
    /// Nothing is known yet. No call will be asked to hold more than `max_rows` rows, unless one job alone has more.
    pub fn new(max_rows: u32) -> Self {
        Self { max_rows: max_rows.max(1), curves: HashMap::new(), serial: 0 }
    }

    /// The hard ceiling of rows per call.
    pub fn max_rows(&self) -> u32 {
        self.max_rows
    }

    /// Whether an evaluation of this key was measured.
    pub fn is_known(&self, key: &BatchKey) -> bool {
        self.curves.get(key).is_some_and(Curve::is_measured)
    }

    /// An evaluation of `rows` rows took that long.
    pub fn record_evaluation(&mut self, key: &BatchKey, rows: u32, took: Duration) {
        let max_rows = self.max_rows;
        self.curve(key).evaluation(rows, took.as_secs_f64(), max_rows);
    }

    /// Preparing a job took that long.
    pub fn record_prepare(&mut self, key: &BatchKey, took: Duration) {
        self.curve(key).prepare.record(took.as_secs_f64());
    }

    /// Decoding a job took that long.
    pub fn record_decode(&mut self, key: &BatchKey, took: Duration) {
        self.curve(key).decode.record(took.as_secs_f64());
    }

    /// An evaluation of `rows` rows did not fit into memory: half of that is the bound now, which is only slowly lifted.
    pub fn out_of_memory(&mut self, key: &BatchKey, rows: u32) {
        self.curve(key).out_of_memory(rows);
    }

    /// Rows that one call of this key should hold: the knee as measured, or the next row count worth trying.
    pub fn cap(&self, key: &BatchKey) -> u32 {
        self.curves.get(key).map_or_else(|| curve::START.min(self.max_rows), |curve| curve.cap(self.max_rows))
    }

    /// What the key costs now.
    pub fn rates(&self, key: &BatchKey) -> Rates {
        let own = self.curves.get(key);
        let near = || self.nearest(key);
        let line =
            own.and_then(Curve::line).or_else(|| near().and_then(|(curve, ratio)| curve.line().map(|(a, b)| (a, b * ratio))));
        let (base, per_row) = line.unwrap_or((0.0, DEFAULT_ROW * area(key) / DEFAULT_AREA));
        let side = |pick: fn(&Curve) -> &Spread| {
            let own = own.map(pick).filter(|spread| spread.count() > 0).map(Spread::mean);
            own.or_else(|| near().map(|(curve, ratio)| pick(curve).mean() * ratio)).unwrap_or(0.0)
        };
        Rates { cap: self.cap(key), base, per_row, prepare: side(|curve| &curve.prepare), decode: side(|curve| &curve.decode) }
    }

    /// Seconds of one evaluation with so many rows: as measured, else as fitted.
    pub fn evaluation(&self, key: &BatchKey, rows: u32) -> f64 {
        let measured = self.spread(key, rows).map(|spread| spread.mean());
        measured.unwrap_or_else(|| self.rates(key).evaluation(rows))
    }

    /// How evaluations of that many rows were spread, if there were any.
    pub fn spread(&self, key: &BatchKey, rows: u32) -> Option<&Spread> {
        self.curves.get(key).and_then(|curve| curve.point(rows))
    }

    /// Seconds that the whole job takes when it has the device to itself.
    pub fn solo(&self, price: &Price) -> f64 {
        let rates = self.rates(&price.key);
        rates.prepare + self.remaining(price)
    }

    /// Seconds that a prepared job still takes when it has the device to itself.
    pub fn remaining(&self, price: &Price) -> f64 {
        f64::from(price.evaluations) * self.evaluation(&price.key, price.rows) + self.rates(&price.key).decode
    }

    /// What was measured, to be kept beside the model.
    pub fn profile(&self) -> Profile {
        let mut keys: Vec<KeyProfile> = self.curves.iter().map(|(key, curve)| curve.export(key)).collect();
        keys.sort_by(|a, b| a.key.cmp(&b.key));
        Profile { keys }
    }

    /// Takes over what was measured earlier on the same machine; what is nonsense in it is left out.
    pub fn import(&mut self, profile: &Profile) {
        for key in profile.keys.iter().take(MOST_KEYS) {
            let (curve, max_rows) = (Curve::import(key), self.max_rows);
            *self.curve(&key.key) = curve;
            self.curve(&key.key).settle(max_rows);
        }
    }

    fn curve(&mut self, key: &BatchKey) -> &mut Curve {
        self.serial += 1;
        if self.curves.len() >= MOST_KEYS && !self.curves.contains_key(key) {
            let oldest = self.curves.iter().min_by_key(|(_, curve)| curve.used).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| self.curves.remove(&oldest));
        }
        let curve = self.curves.entry(key.clone()).or_default();
        curve.used = self.serial;
        curve
    }

    /// The measured key of the same model whose area is nearest, and how many times its area this one has.
    fn nearest(&self, key: &BatchKey) -> Option<(&Curve, f64)> {
        let same = self.curves.iter().filter(|(other, curve)| other.model == key.model && curve.is_measured());
        let ratios = same.map(|(other, curve)| (curve, area(key) / area(other)));
        ratios.min_by(|(_, a), (_, b)| a.ln().abs().total_cmp(&b.ln().abs()))
    }
}

fn area(key: &BatchKey) -> f64 {
    (f64::from(key.latent[1]) * f64::from(key.latent[2])).max(1.0)
}

#[cfg(test)]
mod tests;
