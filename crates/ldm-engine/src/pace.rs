//! How fast jobs go through, measured: what `Retry-After` is made of.

use std::time::Duration;

/// Weight of the newest job in the running mean.
const WEIGHT: f64 = 0.2;
/// The least that a client is told to wait.
const LEAST: Duration = Duration::from_secs(1);

/// An exponentially weighted mean of the time that a job spends on the device.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    mean: Option<f64>,
}

impl Pace {
    /// A job finished, after that long on the device.
    pub(crate) fn record(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        self.mean = Some(self.mean.map_or(took, |mean| mean + WEIGHT * (took - mean)));
    }

    /// How long until `places` jobs have ended when `abreast` share the device; whole seconds, at least one.
    pub(crate) fn wait(&self, places: usize, abreast: usize) -> Duration {
        let seconds = self.mean.unwrap_or(0.0) * places as f64 / abreast.max(1) as f64;
        Duration::try_from_secs_f64(seconds.ceil()).unwrap_or(LEAST).max(LEAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_follow_the_measured_jobs() {
        let mut pace = Pace::default();
        assert_eq!(pace.wait(3, 2), LEAST, "nothing measured yet");
        pace.record(Duration::from_secs(8));
        assert_eq!(pace.wait(1, 1), Duration::from_secs(8));
        assert_eq!(pace.wait(3, 2), Duration::from_secs(12));
        assert_eq!(pace.wait(1, 16), LEAST);
        pace.record(Duration::from_secs(18));
        assert_eq!(pace.wait(1, 1), Duration::from_secs(10), "0.8 * 8 + 0.2 * 18");
    }
}
