//! A running mean with its spread.

/// Weight of the newest value.
const WEIGHT: f64 = 0.1;
/// A value this many times the mean counts as that many times the mean only.
const OUTLIER: f64 = 3.0;
/// Values after which the first, which may hold a compilation, has been forgotten.
const SETTLED: u64 = 3;

/// An exponentially weighted mean, and mean absolute deviation, of seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    mean: f64,
    deviation: f64,
    count: u64,
}

impl Spread {
    /// As it was kept; nothing when the numbers are none.
    pub(crate) fn restored(mean: f64, deviation: f64, count: u64) -> Self {
        let sane = |seconds: f64| seconds.is_finite() && seconds >= 0.0;
        if sane(mean) && sane(deviation) && count > 0 { Self { mean, deviation, count } } else { Self::default() }
    }

    /// One more value. The first few replace a slow start rather than average with it; later outliers are damped.
    pub(crate) fn record(&mut self, seconds: f64) {
        self.count = self.count.saturating_add(1);
        if self.count == 1 || (self.count <= SETTLED && seconds < self.mean) {
            (self.mean, self.deviation) = (seconds, 0.0);
            return;
        }
        let seconds = seconds.min(OUTLIER * self.mean.max(1e-9));
        let off = seconds - self.mean;
        self.deviation += WEIGHT * (off.abs() - self.deviation);
        self.mean += WEIGHT * off;
    }

    /// The mean, in seconds; 0 before anything was recorded.
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// The mean absolute deviation, in seconds.
    pub fn deviation(&self) -> f64 {
        self.deviation
    }

    /// Values recorded.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// About the 95th percentile: the mean and 1.645 standard deviations, of which a normal value has 1.2533 per mean
    /// absolute deviation.
    pub fn p95(&self) -> f64 {
        self.mean + 1.645 * 1.2533 * self.deviation
    }
}
