//! Step-level scheduling against its baselines, at the same load.

use std::time::Duration;

use super::sim::{Dice, Sim, ask, percentile};
use crate::scheduler::{Ask, Policy};

/// Poisson arrivals of guided jobs with 10 to 50 steps.
fn load(per_second: f64, count: usize) -> Vec<Ask> {
    let (mut dice, mut at) = (Dice(1), 0.0);
    let mut arrive = || {
        at += dice.gap(1.0 / per_second);
        ask(at, 2, 10 + (41.0 * dice.roll()) as u32 % 41)
    };
    (0..count).map(|_| arrive()).collect()
}

/// The median and 95th percentile of latency in seconds.
fn latency(policy: Policy, asks: Vec<Ask>) -> (f64, f64) {
    let mut sim = Sim::warm(policy);
    sim.run(asks);
    let all: Vec<f64> = sim.fates.values().map(|fate| fate.latency()).collect();
    (percentile(all.clone(), 50.0), percentile(all, 95.0))
}

#[test]
fn steps_beat_batches_of_requests() {
    // What batches of eight can just do: the time of their longest job, on the whole 47 of 50 steps.
    let call = super::sim::TRUTH.evaluation(&super::sim::key(64), 16);
    let capacity = 8.0 / (47.0 * call + 8.0 * (super::sim::TRUTH.prepare + super::sim::TRUTH.decode));
    let batches = Policy::RequestBatches { size: 8, window: Duration::from_millis(100) };
    for share in [0.5, 0.7, 0.9] {
        let asks = || load(share * capacity, 3000);
        let (steps, batches) = (latency(Policy::Steps, asks()), latency(batches, asks()));
        println!(
            "{:.0} % load: p50 {:.2} s against {:.2} s, p95 {:.2} s against {:.2} s, ratio {:.2}",
            100.0 * share,
            steps.0,
            batches.0,
            steps.1,
            batches.1,
            steps.1 / batches.1
        );
        let most = if share < 0.9 { 0.8 } else { 0.6 };
        assert!(steps.1 <= most * batches.1, "{steps:?} against {batches:?}");
    }
}
