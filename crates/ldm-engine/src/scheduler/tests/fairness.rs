//! Tenants share, the batch class moves, nobody waits for ever.

use std::time::Duration;

use ldm_core::{Priority, Tenant};
use proptest::prelude::*;

use super::sim::{Dice, Sim, ask, key};
use crate::Price;
use crate::scheduler::{Ask, Policy};

/// Row-steps of jobs for which `whose` holds, in calls between two times.
fn served(sim: &Sim, from: Duration, to: Duration, whose: impl Fn(&Ask) -> bool) -> f64 {
    let calls = sim.calls.iter().filter(|call| call.at >= from && call.at < to);
    let asks = calls.flat_map(|call| call.ids.iter().map(|id| &sim.fates[id].ask));
    asks.filter(|ask| whose(ask)).map(|ask| f64::from(ask.price.rows)).sum()
}

fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    sum * sum / (shares.len() as f64 * shares.iter().map(|share| share * share).sum::<f64>())
}

/// When the last job of that tenant that waited began.
fn contended_until(sim: &Sim, tenant: &Tenant) -> Duration {
    sim.fates.values().filter(|fate| fate.ask.tenant == *tenant).filter_map(|fate| fate.started).max().unwrap()
}

#[test]
fn a_hundred_times_the_jobs_buy_no_more() {
    let (many, few) = (Tenant::new("many"), Tenant::new("few"));
    let of = |tenant: &Tenant, steps| Ask { tenant: tenant.clone(), ..ask(0.0, 2, steps) };
    let mut dice = Dice(7);
    let mut steps = || 10 + (40.0 * dice.roll()) as u32;
    let mut asks: Vec<Ask> = (0..4000).map(|_| of(&many, steps())).collect();
    asks.extend((0..40).map(|_| of(&few, steps())));
    let mut sim = Sim::warm(Policy::Steps);
    sim.run(asks);
    let until = contended_until(&sim, &few);
    let share = |tenant: &Tenant| served(&sim, Duration::ZERO, until, |ask| ask.tenant == *tenant);
    let index = jain(&[share(&many), share(&few)]);
    println!("Jain's index of 4000 jobs against 40: {index:.3}");
    assert!(index >= 0.95, "{index}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Joined work of backlogged tenants differs by less than a largest job and a row-step; what runs adds one full call's jobs.
    #[test]
    fn backlogged_tenants_differ_by_little(seed in any::<u64>(), tenants in 2..5usize) {
        let mut dice = Dice(seed);
        let mut asks = Vec::new();
        for tenant in 0..tenants {
            for _ in 0..60 {
                let ask = ask(0.0, 1 + (2.0 * dice.roll()) as u32 % 2, 1 + (30.0 * dice.roll()) as u32);
                asks.push(Ask { tenant: Tenant::new(&tenant.to_string()), ..ask });
            }
        }
        let largest = asks.iter().map(|ask| ask.price.rows * ask.price.evaluations).max().unwrap();
        let mut sim = Sim::warm(Policy::Steps);
        sim.run(asks);
        let names: Vec<Tenant> = (0..tenants).map(|tenant| Tenant::new(&tenant.to_string())).collect();
        let until = names.iter().map(|name| contended_until(&sim, name)).min().unwrap();
        let shares = names.iter().map(|name| served(&sim, Duration::ZERO, until, |ask| ask.tenant == *name));
        let shares: Vec<f64> = shares.collect();
        let most = shares.iter().copied().fold(0.0, f64::max);
        let least = shares.iter().copied().fold(f64::INFINITY, f64::min);
        let cap = f64::from(sim.costs.cap(&key(64)));
        prop_assert!(most - least <= (1.0 + cap) * f64::from(largest) + 1.0, "{shares:?} by jobs of at most {largest}");
    }
}

/// An overload of interactive jobs, three times what the device can do, and batch jobs that were there first.
fn saturated(batch_side: u32) -> (Sim, Duration) {
    let mut asks: Vec<Ask> = (0..400)
        .map(|_| {
            let price = Price { key: key(batch_side), rows: 2, evaluations: 20 };
            Ask { priority: Priority::Batch, price, ..ask(0.0, 2, 20) }
        })
        .collect();
    let mut dice = Dice(3);
    let mut at = 0.0;
    while at < 200.0 {
        at += dice.gap(0.05);
        asks.push(ask(at, 2, 20));
    }
    let mut sim = Sim::warm(Policy::Steps);
    sim.run(asks);
    (sim, Duration::from_secs(200))
}

#[test]
fn the_batch_class_gets_its_tenth_of_a_shared_key() {
    let (sim, until) = saturated(64);
    let from = Duration::from_secs(20);
    let share = |priority| served(&sim, from, until, |ask| ask.priority == priority);
    let (interactive, batch) = (share(Priority::Interactive), share(Priority::Batch));
    let part = batch / (batch + interactive);
    println!("the batch class takes {:.1} % of the row-steps of a saturated key", 100.0 * part);
    assert!((0.09..0.2).contains(&part), "{part}");
}

#[test]
fn the_batch_class_gets_its_tenth_of_the_time_of_other_keys() {
    let (sim, until) = saturated(96);
    let from = Duration::from_secs(20);
    let time = |priority| -> f64 {
        let calls = sim.calls.iter().filter(|call| call.at >= from && call.at < until);
        let calls = calls.filter(|call| sim.fates[&call.ids[0]].ask.priority == priority);
        calls.map(|call| sim.truth.evaluation(&sim.fates[&call.ids[0]].ask.price.key, call.rows)).sum()
    };
    let (interactive, batch) = (time(Priority::Interactive), time(Priority::Batch));
    let part = batch / (batch + interactive);
    println!("the batch class takes {:.1} % of the time beside a saturated key", 100.0 * part);
    assert!((0.09..0.2).contains(&part), "{part}");
}

/// A tenant with one job, of another key or of the flood's, against a flood of twice the device's speed.
fn wait_in_a_flood(lone: &Ask) -> (f64, u64) {
    let mut sim = Sim::warm(Policy::Steps);
    let (mut dice, mut at) = (Dice(11), 0.0);
    let mut asks = Vec::new();
    while at < 300.0 {
        at += dice.gap(0.08);
        asks.push(Ask { tenant: Tenant::new("flood"), ..ask(at, 2, 20) });
    }
    let here = asks.iter().position(|ask| ask.submitted >= lone.submitted).unwrap();
    asks.insert(here, lone.clone());
    sim.run(asks);
    let fate = &sim.fates[&here];
    ((fate.ended[0].0 - lone.submitted).as_secs_f64(), fate.ticks_waited)
}

#[test]
fn a_lone_job_of_the_same_key_does_not_queue_behind_a_flood() {
    let lone = Ask { tenant: Tenant::new("lone"), ..ask(150.0, 2, 20) };
    let (seconds, ticks) = wait_in_a_flood(&lone);
    println!("a lone job of the flood's key: {seconds:.2} s, {ticks} ticks before it began");
    assert!(seconds < 4.0 && ticks <= 40, "{seconds} s, {ticks} ticks");
}

#[test]
fn a_lone_job_of_another_key_waits_for_older_jobs_alone() {
    let price = Price { key: key(32), rows: 2, evaluations: 20 };
    let lone = Ask { tenant: Tenant::new("lone"), price, ..ask(150.0, 2, 20) };
    let (seconds, ticks) = wait_in_a_flood(&lone);
    println!("a lone job of another key: {seconds:.2} s, {ticks} ticks before it began");
    // Whoever goes before it was submitted before its latest start: the flood's backlog of then.
    assert!(ticks <= 40 && seconds < 160.0, "{seconds} s, {ticks} ticks");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    /// In an overload of one key and tenant, a job is overtaken only by jobs submitted at most 60 s, or three solo times, after
    /// it; so it waits at most as many ticks as these, and those before it, have evaluations.
    #[test]
    fn nobody_is_overtaken_for_ever(seed in any::<u64>()) {
        let (mut dice, mut at) = (Dice(seed), 0.0);
        let mut asks = Vec::new();
        while at < 150.0 {
            at += dice.gap(0.15);
            let mut ask = ask(at, 2, 5 + (40.0 * dice.roll()) as u32);
            // One in three is not needed for a long time, one in three at once.
            ask.deadline = match (3.0 * dice.roll()) as u32 {
                0 => Some(ask.submitted + Duration::from_secs_f64(1000.0 * dice.roll())),
                1 => Some(ask.submitted + Duration::from_millis(100)),
                _ => None,
            };
            asks.push(ask);
        }
        let mut sim = Sim::warm(Policy::Steps);
        sim.run(asks);
        let patience = Duration::from_secs(60);
        let fates: Vec<_> = sim.fates.values().collect();
        let mut overtaken = false;
        for fate in &fates {
            let solo = Duration::from_secs_f64(sim.costs.solo(&fate.ask.price));
            let until = fate.ask.submitted + patience.max(solo * 3);
            let later = fates.iter().filter(|other| other.started < fate.started && other.ask.submitted > fate.ask.submitted);
            for other in later {
                overtaken = true;
                prop_assert!(other.ask.submitted <= until, "{:?} after {:?}", other.ask.submitted, fate.ask.submitted);
            }
            let sooner = fates.iter().filter(|other| other.ask.submitted <= until);
            let bound: u64 = sooner.map(|other| u64::from(other.ask.price.evaluations)).sum();
            prop_assert!(fate.ticks_waited <= bound);
        }
        prop_assert!(overtaken);
    }
}
