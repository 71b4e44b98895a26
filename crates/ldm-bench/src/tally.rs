//! Counts and distributions of requests that have ended, per kind; bounded whatever their number.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

use crate::flight::{End, Flown};
use crate::honesty::Ledger;
use crate::report::{Figures, Quantiles, StageQuantiles};
use crate::targets::Stages;

/// The longest time that is told apart: a day, in microseconds.
const LONGEST: u64 = 24 * 3600 * 1_000_000;
/// Reasons of failure that are told apart.
const MAX_REASONS: usize = 20;

/// Times to three digits (HdrHistogram).
#[derive(Clone, Debug)]
pub(crate) struct Times(Histogram<u64>);

impl Times {
    pub(crate) fn new() -> Self {
        Self(Histogram::new(3).expect("three digits can be kept"))
    }

    pub(crate) fn note(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(LONGEST).min(LONGEST);
        // The histogram grows with its largest value (`saturating_record` would not let it), so nothing is too large.
        let _ = self.0.record(micros);
    }

    fn join(&mut self, other: &Self) {
        // Both grow, so nothing is too large for the other.
        let _ = self.0.add(&other.0);
    }

    pub(crate) fn quantiles(&self) -> Quantiles {
        if self.0.is_empty() {
            return Quantiles::default();
        }
        let ms = |micros: u64| micros as f64 / 1000.0;
        let at = |quantile| ms(self.0.value_at_quantile(quantile).min(self.0.max()));
        let mean = self.0.mean() / 1000.0;
        Quantiles { count: self.0.len(), mean, p50: at(0.5), p95: at(0.95), p99: at(0.99), max: ms(self.0.max()) }
    }
}

/// What became of one kind's requests, or of all.
#[derive(Clone, Debug)]
pub(crate) struct Count {
    pub(crate) ok: u64,
    pub(crate) cancelled: u64,
    pub(crate) rejected: BTreeMap<String, u64>,
    pub(crate) failed: BTreeMap<String, u64>,
    /// Pictures of measured requests.
    pub(crate) images: u64,
    /// Those within three and five solo times.
    good: [u64; 2],
    /// Pictures that came while it was measured, whenever they were asked for.
    came: u64,
    /// Requests answered in all, the warm-up's too.
    pub(crate) answered: u64,
    pub(crate) latency: Times,
    stages: [Times; 6],
}

impl Count {
    pub(crate) fn new() -> Self {
        Self {
            ok: 0,
            cancelled: 0,
            rejected: BTreeMap::new(),
            failed: BTreeMap::new(),
            images: 0,
            good: [0; 2],
            came: 0,
            answered: 0,
            latency: Times::new(),
            stages: std::array::from_fn(|_| Times::new()),
        }
    }

    fn note(&mut self, flown: &Flown, solo: Option<Duration>) {
        match &flown.end {
            End::Done { images, stages } => self.done(flown, *images, *stages, solo),
            End::Cancelled => self.cancelled += 1,
            End::Rejected { status } => *self.rejected.entry(status.to_string()).or_default() += 1,
            End::Failed { reason } => {
                let full = self.failed.len() >= MAX_REASONS && !self.failed.contains_key(reason);
                *self.failed.entry(if full { "other reasons".to_owned() } else { reason.clone() }).or_default() += 1;
            }
        }
    }

    fn done(&mut self, flown: &Flown, images: u32, stages: Option<Stages>, solo: Option<Duration>) {
        let latency = flown.ended.saturating_duration_since(flown.order.scheduled);
        self.ok += 1;
        self.images += u64::from(images);
        self.latency.note(latency);
        for (good, times) in self.good.iter_mut().zip([3, 5]) {
            *good += solo.filter(|solo| latency <= *solo * times).map_or(0, |_| u64::from(images));
        }
        if let Some(stages) = stages {
            let other = latency.saturating_sub(stages.total());
            let parts = [stages.queue, stages.prepare, stages.steps, stages.decode, stages.encode, other];
            self.stages.iter_mut().zip(parts).for_each(|(times, part)| times.note(part));
        }
    }

    /// Adds what became of others.
    pub(crate) fn join(&mut self, other: &Self) {
        self.ok += other.ok;
        self.cancelled += other.cancelled;
        self.images += other.images;
        self.came += other.came;
        self.answered += other.answered;
        self.good.iter_mut().zip(other.good).for_each(|(good, more)| *good += more);
        for (sums, more) in [(&mut self.rejected, &other.rejected), (&mut self.failed, &other.failed)] {
            more.iter().for_each(|(name, count)| *sums.entry(name.clone()).or_default() += count);
        }
        self.latency.join(&other.latency);
        self.stages.iter_mut().zip(&other.stages).for_each(|(times, more)| times.join(more));
    }

    /// All that ended.
    pub(crate) fn sent(&self) -> u64 {
        self.ok + self.cancelled + self.rejected.values().sum::<u64>() + self.failed.values().sum::<u64>()
    }

    /// Over `seconds`; `solo` is whether solo times are known.
    pub(crate) fn figures(&self, seconds: f64, solo: bool) -> Figures {
        let [queue, prepare, steps, decode, encode, other] = self.stages.each_ref().map(Times::quantiles);
        let goodput = |good: u64| (solo && seconds > 0.0).then_some(good as f64 / seconds);
        Figures {
            sent: self.sent(),
            ok: self.ok,
            rejected: self.rejected.values().sum(),
            failed: self.failed.values().sum(),
            cancelled: self.cancelled,
            rejected_by: self.rejected.clone(),
            failed_by: self.failed.clone(),
            images_per_s: if seconds > 0.0 { self.came as f64 / seconds } else { 0.0 },
            goodput_3x: goodput(self.good[0]),
            goodput_5x: goodput(self.good[1]),
            latency: self.latency.quantiles(),
            stages: StageQuantiles { queue, prepare, steps, decode, encode, other },
        }
    }
}

/// Everything that has ended so far.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) kinds: Vec<Count>,
    pub(crate) lag: Times,
    pub(crate) waited: u64,
    pub(crate) ledger: Ledger,
    /// When the last measured request ended.
    pub(crate) last: Instant,
    solos: Vec<Option<Duration>>,
    window: (Instant, Option<Instant>),
}

impl Tally {
    /// Pictures that come in `window` count as having come while it was measured; without an end, all that come after its start.
    pub(crate) fn new(solos: Vec<Option<Duration>>, window: (Instant, Option<Instant>)) -> Self {
        Self {
            kinds: solos.iter().map(|_| Count::new()).collect(),
            lag: Times::new(),
            waited: 0,
            ledger: Ledger::new(window.0),
            last: window.0,
            solos,
            window,
        }
    }

    /// Takes in a request that has ended.
    pub(crate) fn note(&mut self, flown: &Flown) {
        let kind = flown.order.kind;
        let count = &mut self.kinds[kind];
        if let End::Done { images, .. } = flown.end {
            count.answered += 1;
            let inside = flown.ended >= self.window.0 && self.window.1.is_none_or(|end| flown.ended <= end);
            count.came += if inside { u64::from(images) } else { 0 };
        }
        if !flown.order.measured {
            return;
        }
        count.note(flown, self.solos[kind]);
        self.lag.note(flown.sent.saturating_duration_since(flown.order.scheduled));
        self.ledger.note(flown);
        self.last = self.last.max(flown.ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flight::Order;
    use crate::{Mix, Shot};

    #[test]
    fn quantiles_of_hand_figures() {
        let mut times = Times::new();
        assert_eq!(times.quantiles(), Quantiles::default());
        (1..=1000).rev().for_each(|ms| times.note(Duration::from_millis(ms)));
        let found = times.quantiles();
        // Three digits: half a per mille off at most.
        for (got, want) in [(found.p50, 500.0), (found.p95, 950.0), (found.p99, 990.0), (found.max, 1000.0), (found.mean, 500.5)]
        {
            assert!((got / want - 1.0_f64).abs() <= 1e-3, "{got} is not {want}");
        }
        times.note(Duration::from_secs(48 * 3600));
        assert!((times.quantiles().max / (LONGEST as f64 / 1000.0) - 1.0).abs() < 1e-3);
    }

    fn flown(kind: usize, ms: u64, end: End, start: Instant) -> Flown {
        let shot = Shot { kind: std::sync::Arc::clone(&Mix::built_in().unwrap().kinds[kind]), prompt: 0, seed: 0 };
        let order = Order { shot, kind, scheduled: start, measured: true, leave: None };
        let sent = start + Duration::from_millis(5);
        Flown { order, sent, sent_last: sent, ended: start + Duration::from_millis(ms), end, refusals: Vec::new() }
    }

    #[test]
    fn goodput_counts_pictures_within_three_and_five_solo_times() {
        let start = Instant::now();
        let solo = Some(Duration::from_millis(100));
        let mut tally = Tally::new(vec![solo, None], (start, Some(start + Duration::from_millis(450))));
        let done = |images| End::Done { images, stages: None };
        for (ms, images) in [(300, 1), (301, 2), (500, 1), (501, 1)] {
            tally.note(&flown(0, ms, done(images), start));
        }
        tally.note(&flown(0, 10, End::Rejected { status: 429 }, start));
        tally.note(&flown(0, 10, End::Cancelled, start));
        tally.note(&flown(1, 10, done(1), start));
        let figures = tally.kinds[0].figures(2.0, true);
        assert_eq!((figures.goodput_3x, figures.goodput_5x), (Some(0.5), Some(2.0)));
        // Of five pictures three came before the measured time was over.
        assert_eq!(figures.images_per_s, 1.5);
        assert_eq!((figures.sent, figures.ok, figures.rejected, figures.cancelled), (6, 4, 1, 1));
        let mut both = tally.kinds[0].clone();
        both.join(&tally.kinds[1]);
        assert_eq!((both.sent(), both.ok, both.images, both.latency.quantiles().count), (7, 5, 6, 5));
        assert!((tally.lag.quantiles().max / 5.0 - 1.0).abs() < 1e-3);
    }

    #[test]
    fn stages_and_the_rest_make_the_latency() {
        let start = Instant::now();
        let ms = Duration::from_millis;
        let stages = Stages { queue: ms(10), prepare: ms(1), steps: ms(50), decode: ms(4), encode: ms(2) };
        let mut tally = Tally::new(vec![None], (start, None));
        tally.note(&flown(0, 100, End::Done { images: 1, stages: Some(stages) }, start));
        let medians = tally.kinds[0].figures(1.0, false).stages.named().map(|(_, quantiles)| quantiles.p50.round());
        assert_eq!(medians, [10.0, 1.0, 50.0, 4.0, 2.0, 33.0]);
    }

    #[test]
    fn reasons_are_bounded() {
        let start = Instant::now();
        let mut tally = Tally::new(vec![None], (start, None));
        for i in 0..100 {
            tally.note(&flown(0, 1, End::Failed { reason: i.to_string() }, start));
        }
        let failed = tally.kinds[0].figures(1.0, false);
        assert_eq!((failed.failed, failed.failed_by.len(), failed.failed_by["other reasons"]), (100, MAX_REASONS + 1, 80));
    }
}
