//! Whether `Retry-After` was true.

use std::time::Duration;

use tokio::time::Instant;

use crate::flight::{End, Flown};
use crate::report::Honesty;

/// Refusals that are remembered.
const MAX_REFUSALS: usize = 100_000;
/// Accepted requests whose times are remembered, four bytes each.
const MAX_ACCEPTED: usize = 4_000_000;

/// Times of refusals and of accepted requests, in milliseconds since the start.
#[derive(Debug)]
pub(crate) struct Ledger {
    start: Instant,
    refusals: Vec<(u32, Duration)>,
    accepted: Vec<u32>,
    /// First refusals whose request was sent again: told, and how long until it was accepted.
    returned: Vec<(Duration, Duration)>,
    sent_again: u64,
    accepted_at_first_retry: u64,
}

impl Ledger {
    pub(crate) fn new(start: Instant) -> Self {
        Self {
            start,
            refusals: Vec::new(),
            accepted: Vec::new(),
            returned: Vec::new(),
            sent_again: 0,
            accepted_at_first_retry: 0,
        }
    }

    fn ms(&self, at: Instant) -> u32 {
        u32::try_from(at.saturating_duration_since(self.start).as_millis()).unwrap_or(u32::MAX)
    }

    /// Takes in what a request went through. Cancelled and failed ones may or may not have been accepted, and tell nothing.
    pub(crate) fn note(&mut self, flown: &Flown) {
        for refusal in &flown.refusals {
            if self.refusals.len() < MAX_REFUSALS {
                self.refusals.push((self.ms(refusal.sent), refusal.told));
            }
        }
        let accepted = matches!(flown.end, End::Done { .. });
        if accepted && self.accepted.len() < MAX_ACCEPTED {
            self.accepted.push(self.ms(flown.sent_last));
        }
        let Some(first) = flown.refusals.first() else { return };
        let again = flown.sent_last > first.sent;
        self.sent_again += u64::from(again);
        if again && accepted {
            self.accepted_at_first_retry += u64::from(flown.refusals.len() == 1);
            if self.returned.len() < MAX_REFUSALS {
                self.returned.push((first.told, flown.sent_last - first.sent));
            }
        }
    }

    /// What came of it; `None` when nothing was refused with a time.
    pub(crate) fn sum_up(&mut self) -> Option<Honesty> {
        self.accepted.sort_unstable();
        let mut told_and_true = Vec::new();
        for &(at, told) in &self.refusals {
            // The first request that was sent later and taken shows when there was a place again.
            let next = self.accepted.partition_point(|&accepted| accepted <= at);
            if let Some(next) = self.accepted.get(next) {
                told_and_true.push((told.as_secs_f64(), f64::from(next - at) / 1000.0));
            }
        }
        let returned: Vec<_> = self.returned.iter().map(|(told, took)| (told.as_secs_f64(), took.as_secs_f64())).collect();
        let told: f64 = self.refusals.iter().map(|(_, told)| told.as_secs_f64()).sum();
        (!self.refusals.is_empty()).then(|| Honesty {
            refusals: self.refusals.len() as u64,
            told_mean_s: told / self.refusals.len() as f64,
            place_free_mean_s: mean(told_and_true.iter().map(|pair| pair.1)),
            told_over_place_free: ratio(&told_and_true),
            sent_again: self.sent_again,
            accepted_at_first_retry: self.accepted_at_first_retry,
            accepted_later: self.returned.len() as u64 - self.accepted_at_first_retry.min(self.returned.len() as u64),
            told_over_accepted: ratio(&returned),
        })
    }
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> Option<f64> {
    let count = values.len() as f64;
    (count > 0.0).then(|| values.sum::<f64>() / count)
}

/// The sum of what was told over the sum of what was true.
fn ratio(pairs: &[(f64, f64)]) -> Option<f64> {
    let (told, truth) = pairs.iter().fold((0.0, 0.0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1));
    (truth > 0.0).then(|| told / truth)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flight::{Order, Refusal};
    use crate::{Mix, Shot};

    #[test]
    fn told_times_are_held_against_what_came() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut ledger = Ledger::new(start);
        let mut note = |refused: &[(u64, u64)], sent_last: u64, end: End| {
            let kind = std::sync::Arc::clone(&Mix::built_in().unwrap().kinds[0]);
            let order = Order { shot: Shot { kind, prompt: 0, seed: 0 }, kind: 0, scheduled: start, measured: true, leave: None };
            let refusal = |&(sent, told)| Refusal { sent: at(sent), told: Duration::from_secs(told) };
            let refusals = refused.iter().map(refusal).collect();
            ledger.note(&Flown { order, sent: start, sent_last: at(sent_last), ended: at(sent_last), end, refusals });
        };
        let done = || End::Done { images: 1, stages: None };
        note(&[], 0, done());
        note(&[(1000, 2)], 3000, done());
        note(&[(2000, 1), (3500, 1)], 4000, done());
        note(&[(3900, 5)], 3900, End::Rejected { status: 429 });
        note(&[], 1500, End::Cancelled);
        let told = ledger.sum_up().unwrap();
        assert_eq!((told.refusals, told.sent_again, told.accepted_at_first_retry, told.accepted_later), (4, 2, 1, 1));
        assert_eq!(told.told_mean_s, 9.0 / 4.0);
        // Places were seen at 3000, 3000, 4000 and 4000 ms: after 2, 1, 0.5 and 0.1 s.
        assert_eq!(told.place_free_mean_s, Some(0.9));
        assert_eq!(told.told_over_place_free, Some(9.0 / 3.6));
        // The two that came back were taken after 2 s, as told, and after 2 s instead of 1.
        assert_eq!(told.told_over_accepted, Some(3.0 / 4.0));
    }
}
