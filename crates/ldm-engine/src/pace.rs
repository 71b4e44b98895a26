//! How fast jobs end, measured: what `Retry-After` is made of.

use std::time::Duration;

/// Weight of the newest interval in the running mean.
const WEIGHT: f64 = 0.1;
/// An interval longer than this many means is a pause, not a pace.
const PAUSE: f64 = 10.0;
/// The least that a client is told to wait.
const LEAST: Duration = Duration::from_secs(1);

/// An exponentially weighted mean of the time between the endings of two jobs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    last: Option<Duration>,
    mean: Option<f64>,
}

impl Pace {
    /// A job finished, at that moment of the service's clock.
    pub(crate) fn record(&mut self, now: Duration) {
        if let Some(last) = self.last {
            let gap = now.saturating_sub(last).as_secs_f64();
            self.mean = Some(self.mean.map_or(gap, |mean| if gap > PAUSE * mean { mean } else { mean + WEIGHT * (gap - mean) }));
        }
        self.last = Some(now);
    }

    /// How long until `places` jobs have ended. `expected` is what the cost table says; what was measured counts more.
    pub(crate) fn wait(&self, places: usize, expected: Duration, now: Duration) -> Duration {
        let since = self.last.map_or(0.0, |last| now.saturating_sub(last).as_secs_f64());
        let seconds = match self.mean {
            // The next one is due sooner by as much as was waited for it already, but a late one is not due at once.
            Some(mean) => mean * places as f64 - since.min(mean / 2.0),
            None => expected.as_secs_f64(),
        };
        Duration::try_from_secs_f64(seconds).unwrap_or(LEAST).max(LEAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn waits_follow_the_measured_endings() {
        let mut pace = Pace::default();
        assert_eq!(pace.wait(3, s(7.0), s(0.0)), s(7.0), "nothing measured yet: the cost table");
        pace.record(s(10.0));
        pace.record(s(14.0));
        assert_eq!(pace.wait(1, s(99.0), s(14.0)), s(4.0));
        assert_eq!(pace.wait(3, s(99.0), s(15.0)), s(11.0), "a second of the first has passed");
        assert_eq!(pace.wait(1, s(99.0), s(30.0)), s(2.0), "late, but not at once");
        pace.record(s(28.0));
        assert_eq!(pace.wait(1, s(99.0), s(28.0)), s(5.0), "0.9 * 4 + 0.1 * 14");
        pace.record(s(1000.0));
        assert_eq!(pace.wait(1, s(99.0), s(1000.0)), s(5.0), "an idle hour is no pace");
        assert_eq!(Pace::default().wait(1, s(0.0), s(0.0)), LEAST);
    }
}
