//! A target that stands still for a while: an open loop must not hide it.

use std::time::Duration;

use ldm_bench::{Counters, Length, Load, Mix, Options, Outcome, Report, Shot, Target, run};
use tokio::time::{Instant, sleep_until};

/// Answers at once, but from `from` to `until` after its start not at all.
struct Stalls {
    start: Instant,
    from: Duration,
    until: Duration,
}

impl Target for Stalls {
    async fn send(&self, _: &Shot) -> Outcome {
        let now = self.start.elapsed();
        if now >= self.from && now < self.until {
            sleep_until(self.start + self.until).await;
        }
        Outcome::Done { images: 1, stages: None }
    }

    async fn counters(&self) -> Result<Counters, String> {
        Ok(Counters::default())
    }
}

async fn load(load: Load, in_flight: usize) -> Report {
    let (from, until) = (Duration::from_secs(2), Duration::from_secs(4));
    let target = Stalls { start: Instant::now(), from, until };
    let options = Options {
        load,
        length: Length::Time(Duration::from_secs(10)),
        warmup: Duration::ZERO,
        solo_runs: 0,
        in_flight,
        ..Options::default()
    };
    run(target, Mix::parse("[[kind]]").unwrap(), options, |_| {}).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_open_loop_counts_the_stall_for_every_request_scheduled_in_it() {
    // A fifth of the requests is scheduled in the two seconds, evenly: of all, a twentieth waits 1.5 s or more, and the mean is
    // 0.2 s. Had the stall been counted once, the median and the 95th percentile would both be nothing.
    for in_flight in [4096, 1] {
        let report = load(Load::Open { rate: 200.0 }, in_flight).await;
        let latency = report.total.latency;
        assert!((1800..2200).contains(&report.total.sent), "{report}");
        assert!((latency.mean / 200.0 - 1.0).abs() < 0.1, "{report}");
        assert!(latency.p50 < 5.0 && (1400.0..1600.0).contains(&latency.p95) && latency.max > 1950.0, "{report}");
        // With one place all of them had to wait for it, and the generator says so.
        let late = report.warnings.iter().any(|warning| warning.contains("left late"));
        assert_eq!((late, report.generator.lag.p95 > 1000.0), (in_flight == 1, in_flight == 1), "{report}");
    }
}

#[tokio::test(start_paused = true)]
async fn retries_come_after_the_told_time() {
    /// Full for the first 2.5 s; says that it is for another second.
    struct Full(Instant);
    impl Target for Full {
        async fn send(&self, _: &Shot) -> Outcome {
            tokio::time::sleep(Duration::from_millis(1)).await;
            match self.0.elapsed() < Duration::from_millis(2500) {
                true => Outcome::Rejected { status: 429, retry_after: Some(Duration::from_secs(1)) },
                false => Outcome::Done { images: 1, stages: None },
            }
        }
        async fn counters(&self) -> Result<Counters, String> {
            Err("it counts nothing".to_owned())
        }
    }
    let options = |retries| Options {
        load: Load::Closed { concurrency: 1 },
        length: Length::Requests(1),
        warmup: Duration::ZERO,
        solo_runs: 0,
        retries,
        ..Options::default()
    };
    let mix = || Mix::parse("[[kind]]").unwrap();
    let twice = run(Full(Instant::now()), mix(), options(5), |_| {}).await.unwrap();
    let told = twice.retry_after.clone().unwrap();
    assert_eq!((twice.total.ok, told.refusals, told.sent_again, told.accepted_later), (1, 3, 1, 1), "{twice}");
    // One second was told and three passed.
    assert!((told.told_over_accepted.unwrap() - 1.0 / 3.003).abs() < 0.01, "{twice}");
    assert!((twice.total.latency.max / 3004.0 - 1.0).abs() < 0.01, "{twice}");
    assert!(twice.server.is_none() && twice.warnings.iter().any(|warning| warning.contains("it counts nothing")));
    let once = run(Full(Instant::now()), mix(), options(1), |_| {}).await.unwrap();
    assert_eq!((once.total.sent, once.total.ok, once.total.rejected_by["429"]), (1, 0, 1), "{once}");
}
