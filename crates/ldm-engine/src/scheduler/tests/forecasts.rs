//! Predicted against simulated times.

use std::time::Duration;

use ldm_core::Tenant;

use super::sim::{Dice, Sim, ask, key, percentile};
use crate::Price;
use crate::scheduler::{Ask, Policy};

/// Ratios of predicted to true latency of jobs that come so often, after a start.
fn ratios(mean_gap: f64, count: usize, mut make: impl FnMut(&mut Dice, f64) -> Ask) -> Vec<f64> {
    let (mut dice, mut at) = (Dice(5), 0.0);
    let mut sim = Sim::warm(Policy::Steps);
    let mut forecasts = Vec::new();
    for id in 0..count {
        at += dice.gap(mean_gap);
        let coming = make(&mut dice, at);
        while sim.now < coming.submitted {
            if !sim.work() {
                sim.now = coming.submitted;
            }
        }
        let forecast = sim.scheduler.forecast(&coming, sim.now, &sim.costs);
        forecasts.push((forecast.finish - coming.submitted.min(forecast.finish)).as_secs_f64());
        sim.admit(id, coming);
    }
    sim.drain();
    let ratios = forecasts.iter().enumerate().map(|(id, predicted)| predicted / sim.fates[&id].latency());
    ratios.skip(count / 10).collect()
}

fn check(what: &str, ratios: Vec<f64>) {
    let at = |percent| percentile(ratios.clone(), percent);
    println!("{what}: predicted / true, p5 {:.2}, median {:.2}, p95 {:.2}", at(5.0), at(50.0), at(95.0));
    let within = ratios.iter().filter(|ratio| (0.5..=2.0).contains(*ratio)).count();
    assert!(within as f64 >= 0.95 * ratios.len() as f64, "{within} of {} are within a factor of two", ratios.len());
    assert!((0.67..1.5).contains(&at(50.0)), "the median is {}", at(50.0));
}

#[test]
fn an_idle_device_takes_the_solo_time() {
    let sim = Sim::warm(Policy::Steps);
    let ask = ask(0.0, 2, 20);
    let forecast = sim.scheduler.forecast(&ask, Duration::ZERO, &sim.costs);
    assert_eq!(forecast.start, Duration::ZERO);
    let solo = sim.costs.solo(&ask.price);
    assert!((forecast.finish.as_secs_f64() / solo - 1.0).abs() < 0.1, "{forecast:?} for {solo} s");
}

#[test]
fn light_loads() {
    check("one key, light", ratios(0.5, 300, |dice, at| ask(at, 2, 10 + (40.0 * dice.roll()) as u32)));
}

#[test]
fn nearly_full() {
    check("one key, nearly full", ratios(0.24, 600, |dice, at| ask(at, 2, 10 + (40.0 * dice.roll()) as u32)));
}

#[test]
fn overloads() {
    check("one key, overloaded", ratios(0.15, 600, |dice, at| ask(at, 2, 10 + (40.0 * dice.roll()) as u32)));
}

#[test]
fn two_keys_and_two_tenants() {
    let make = |dice: &mut Dice, at| {
        let side = if dice.roll() < 0.5 { 64 } else { 32 };
        let price = Price { key: key(side), rows: 2, evaluations: 20 };
        let tenant = Tenant::new(if dice.roll() < 0.5 { "a" } else { "b" });
        Ask { price, tenant, ..ask(at, 2, 20) }
    };
    check("two keys, overloaded", ratios(0.08, 600, make));
}

#[test]
fn outstanding_work_is_what_draining_takes() {
    let mut sim = Sim::warm(Policy::Steps);
    (0..60).for_each(|id| sim.admit(id, ask(0.0, 2, 10 + (id as u32 * 7) % 40)));
    let predicted = sim.scheduler.outstanding(&sim.costs);
    sim.drain();
    let ratio = predicted / sim.now.as_secs_f64();
    assert!((0.8..1.25).contains(&ratio), "{predicted} s for {:?}", sim.now);
}
