//! Each rule by hand.

use std::time::Duration;

use ldm_core::{Priority, Tenant};

use super::sim::{End, Sim, TRUTH, Truth, ask, key, measured};
use crate::cost::Costs;
use crate::scheduler::{Ask, Bounds, Policy, Scheduler, Work};
use crate::{BatchKey, Price};

const NOW: Duration = Duration::ZERO;

fn of_key(side: u32, ask: Ask) -> Ask {
    let key: BatchKey = key(side);
    Ask { price: Price { key, ..ask.price }, ..ask }
}

fn batch(ask: Ask) -> Ask {
    Ask { priority: Priority::Batch, ..ask }
}

fn of(tenant: &str, ask: Ask) -> Ask {
    Ask { tenant: Tenant::new(tenant), ..ask }
}

/// A table whose knee for 64 x 64 latents is that many rows.
fn capped(cap: u32) -> Sim {
    let costs = measured(&TRUTH, &[key(32), key(64), key(96)], cap);
    assert_eq!(costs.cap(&key(64)), cap);
    Sim::new(TRUTH, costs, 8, Policy::Steps)
}

#[test]
fn nothing_to_do() {
    let mut scheduler = Scheduler::<usize>::new(Bounds { running: 1 }, Policy::Steps);
    assert!(scheduler.is_empty());
    assert_eq!(scheduler.next(NOW, &Costs::new(4)), Work::Idle);
    scheduler.remove(3);
    scheduler.stepped(3, 0);
}

#[test]
fn one_job_from_arrival_to_decoding() {
    let costs = Costs::new(8);
    let mut scheduler = Scheduler::new(Bounds { running: 1 }, Policy::Steps);
    let ask = ask(0.0, 2, 2);
    scheduler.admit(7, ask.clone(), &costs);
    assert_eq!(scheduler.waiting(), [7]);
    assert_eq!(scheduler.next(NOW, &costs), Work::Prepare(7));
    assert!(scheduler.waiting().is_empty());
    scheduler.prepared(7, ask.price, &costs);
    assert_eq!(scheduler.next(NOW, &costs), Work::Evaluate(vec![7]));
    scheduler.stepped(7, 1);
    assert_eq!(scheduler.next(NOW, &costs), Work::Evaluate(vec![7]));
    scheduler.stepped(7, 0);
    assert_eq!(scheduler.next(NOW, &costs), Work::Decode(7));
    scheduler.remove(7);
    assert!(scheduler.is_empty() && scheduler.lanes.is_empty() && scheduler.index.is_empty());
}

/// The same on a device whose prepares take that many seconds.
fn preparing(seconds: f64, cap: u32) -> Sim {
    let truth = Truth { prepare: seconds, ..TRUTH };
    Sim::new(truth, measured(&truth, &[key(64)], cap), 64, Policy::Steps)
}

#[test]
fn newcomers_join_at_step_boundaries() {
    // A prepare that takes longer than half an evaluation comes once per tick.
    let mut sim = preparing(0.02, 8);
    (0..3).for_each(|id| sim.admit(id, ask(0.0, 1, 3)));
    sim.drain();
    assert_eq!(sim.seeds(), [vec![0], vec![0, 1], vec![0, 1, 2], vec![1, 2], vec![2]]);
    // Of those that take 10 ms two fit into an evaluation of 27 ms.
    let mut sim = preparing(0.01, 8);
    (0..3).for_each(|id| sim.admit(id, ask(0.0, 1, 3)));
    sim.drain();
    assert_eq!(sim.seeds(), [vec![0, 1], vec![0, 1, 2], vec![0, 1, 2], vec![2]]);
}

#[test]
fn jobs_of_few_steps_fill_their_calls() {
    let mean_rows = |prepare: f64| {
        let mut sim = preparing(prepare, 16);
        (0..64).for_each(|id| sim.admit(id, ask(0.0, 1, 4)));
        sim.drain();
        256.0 / sim.calls.len() as f64
    };
    assert!(mean_rows(0.002) > 12.0, "{}", mean_rows(0.002));
    // Prepares as long as evaluations bound the jobs abreast by their evaluations.
    assert!((3.0..4.0).contains(&mean_rows(0.03)), "{}", mean_rows(0.03));
}

#[test]
fn who_runs_stays_until_done_and_the_cap_is_kept() {
    let mut sim = capped(4);
    (0..4).for_each(|id| sim.admit(id, ask(0.0, 2, 3)));
    sim.drain();
    assert_eq!(sim.seeds(), [[0, 1], [0, 1], [0, 1], [2, 3], [2, 3], [2, 3]]);
}

#[test]
fn a_job_beyond_the_cap_goes_alone_and_is_not_slipped_past() {
    let mut sim = capped(2);
    sim.admit(0, ask(0.0, 1, 3));
    (0..2).for_each(|_| assert!(sim.work()));
    sim.admit(1, ask(0.0, 3, 2));
    sim.admit(2, ask(10.0, 1, 2));
    sim.drain();
    assert_eq!(sim.seeds(), [vec![0], vec![0], vec![0], vec![1], vec![1], vec![2], vec![2]]);
}

#[test]
fn a_job_that_is_alone_shares_no_call() {
    let mut sim = capped(8);
    sim.admit(0, ask(0.0, 1, 6));
    sim.admit(1, Ask { alone: true, ..ask(0.0, 1, 6) });
    sim.admit(2, ask(0.0, 1, 6));
    sim.drain();
    assert!(sim.calls.iter().all(|call| !call.ids.contains(&1) || call.ids == [1]));
    assert!(sim.calls.iter().any(|call| call.ids == [0, 2]));
}

#[test]
fn the_key_with_least_slack_goes_first_and_keeps_its_turn() {
    let mut sim = capped(8);
    sim.admit(0, Ask { deadline: Some(Duration::from_secs(40)), ..of_key(96, ask(0.0, 1, 4)) });
    sim.admit(1, Ask { deadline: Some(Duration::from_secs(2)), ..of_key(32, ask(0.0, 1, 4)) });
    sim.admit(2, Ask { deadline: Some(Duration::from_secs(20)), ..ask(0.0, 1, 4) });
    sim.drain();
    let order: Vec<usize> = sim.calls.iter().map(|call| call.ids[0]).collect();
    assert_eq!(order, [1, 1, 1, 1, 2, 2, 2, 2, 0, 0, 0, 0]);
}

#[test]
fn a_turn_ends_for_a_job_that_comes_to_its_latest_start() {
    let mut sim = capped(8);
    sim.admit(0, of_key(96, ask(0.0, 1, 200)));
    assert!(sim.work() && sim.work());
    let second = of_key(32, ask(sim.now.as_secs_f64(), 1, 3));
    sim.admit(1, second.clone());
    sim.drain();
    let calls = sim.seeds();
    let first = calls.iter().position(|ids| ids == &[1]).unwrap();
    assert!(first > 1 && first < 30, "not at once, for it can wait, and not after 200 evaluations: {first}");
    assert_eq!(calls[first + 2], [1], "its own turn lasts until it is done");
    assert!(sim.fates[&1].latency() < 5.0 * sim.costs.solo(&second.price));
}

#[test]
fn within_a_tenant_deadlines_come_first_then_arrival() {
    let mut sim = capped(1);
    sim.admit(0, ask(0.0, 1, 2));
    sim.admit(1, ask(0.0, 1, 2));
    sim.admit(2, Ask { deadline: Some(Duration::from_millis(300)), ..ask(0.0, 1, 2) });
    assert_eq!(sim.scheduler.waiting(), [2, 0, 1]);
    sim.drain();
    assert_eq!(sim.calls.iter().step_by(2).map(|call| call.ids[0]).collect::<Vec<_>>(), [2, 0, 1]);
}

#[test]
fn tenants_take_turns_by_cost() {
    let mut sim = capped(1);
    (0..6).for_each(|id| sim.admit(id, of("many", ask(0.0, 1, 2))));
    sim.admit(6, of("few", ask(0.0, 1, 4)));
    sim.admit(7, of("few", ask(0.0, 1, 4)));
    let order = sim.scheduler.waiting();
    sim.drain();
    let mut started: Vec<usize> = (0..8).collect();
    started.sort_by_key(|id| sim.fates[id].started);
    assert_eq!(started, [0, 1, 6, 2, 3, 7, 4, 5], "two short jobs for a long one");
    let place = |id: usize| order.iter().position(|other| *other == id).unwrap();
    assert!(place(6) <= 3 && place(7) <= 6, "the predicted order is about that: {order:?}");
}

#[test]
fn interactive_jobs_come_before_batch_jobs_and_displace_them() {
    let mut sim = capped(2);
    (0..2).for_each(|id| sim.admit(id, batch(ask(0.0, 1, 8))));
    (0..5).for_each(|_| assert!(sim.work()));
    assert_eq!(sim.seeds().last().unwrap(), &[0, 1]);
    sim.admit(2, ask(sim.now.as_secs_f64(), 1, 3));
    let before = sim.calls.len();
    sim.drain();
    let after = &sim.seeds()[before..];
    assert_eq!(&after[..4], [[0, 2], [0, 2], [0, 2], [0, 1]], "the displaced job returns when the rows are free: {after:?}");
    assert!(sim.fates.values().all(|fate| fate.ended[0].1 == End::Finished));
}

#[test]
fn a_smaller_cap_parks_jobs_and_memory_failures_lower_it() {
    let mut sim = capped(8);
    (0..4).for_each(|id| sim.admit(id, ask(0.0, 2, 12)));
    while sim.calls.last().is_none_or(|call| call.rows < 8) {
        assert!(sim.work());
    }
    sim.costs.out_of_memory(&key(64), 8);
    let before = sim.calls.len();
    sim.drain();
    assert!(sim.calls[before..].iter().all(|call| call.rows <= 4));
}

#[test]
fn removed_jobs_leave_every_place() {
    let mut sim = capped(2);
    (0..4).for_each(|id| sim.admit(id, ask(0.0, 1, 3)));
    (0..3).for_each(|_| assert!(sim.work()));
    sim.end(3, End::Cancelled);
    sim.end(0, End::Cancelled);
    sim.drain();
    assert!(sim.calls.last().unwrap().ids != [3] && sim.fates[&2].ended[0].1 == End::Finished);
    assert!(sim.scheduler.is_empty() && sim.scheduler.lanes.is_empty());
    assert_eq!((sim.scheduler.on_device, sim.scheduler.batch_on_device), (0, 0));
}

#[test]
fn a_job_that_changes_its_shape_changes_its_company() {
    let mut sim = capped(8);
    sim.admit(0, ask(0.0, 1, 4));
    sim.admit(1, of_key(96, ask(0.0, 1, 4)));
    (0..2).for_each(|_| assert!(sim.work()));
    let price = Price { key: key(96), rows: 1, evaluations: sim.fates[&0].left };
    sim.fate(0).ask.price = price.clone();
    sim.scheduler.moved(0, price, &sim.costs);
    sim.drain();
    assert!(sim.calls.iter().any(|call| call.ids.len() == 2), "{:?}", sim.seeds());
    assert!(sim.fates.values().all(|fate| fate.ended.len() == 1));
}

#[test]
fn deadlines_pass() {
    let mut sim = capped(1);
    sim.admit(0, Ask { deadline: Some(Duration::from_millis(40)), ..ask(0.0, 1, 9) });
    sim.admit(1, Ask { deadline: Some(Duration::from_millis(90)), ..ask(0.0, 1, 9) });
    assert!(sim.work());
    assert!(sim.scheduler.overdue(Duration::from_millis(39)).is_empty());
    assert_eq!(sim.scheduler.overdue(Duration::from_millis(40)), [0]);
    let mut both = sim.scheduler.overdue(Duration::from_millis(90));
    both.sort_unstable();
    assert_eq!(both, [0, 1]);
    assert_eq!(sim.scheduler.oldest_wait(Duration::from_secs(2)), [Some(Duration::from_secs(2)), None]);
}

#[test]
fn batches_of_requests_wait_run_and_end_together() {
    let policy = Policy::RequestBatches { size: 3, window: Duration::from_millis(100) };
    let mut sim = Sim::warm(policy);
    sim.admit(0, ask(0.0, 1, 1));
    sim.admit(1, ask(0.0, 1, 3));
    assert_eq!(sim.scheduler.next(NOW, &sim.costs), Work::Wait(Duration::from_millis(100)));
    sim.now = Duration::from_millis(100);
    (0..3).for_each(|_| assert!(sim.work()));
    sim.admit(2, ask(0.1, 1, 1));
    sim.now += Duration::from_millis(100);
    sim.drain();
    assert_eq!(sim.seeds(), [vec![0, 1], vec![1], vec![1], vec![2]]);
    assert!(sim.fates[&0].ended[0].0 > sim.calls[2].at, "the first ends with the last");
    let mut sim = Sim::warm(policy);
    (0..4).for_each(|id| sim.admit(id, ask(0.0, 1, 1)));
    assert!((0..4).all(|_| sim.work()), "a full batch waits for nobody");
    assert_eq!(sim.seeds(), [[0, 1, 2]]);
}

#[test]
fn one_at_a_time() {
    let mut sim = Sim::warm(Policy::OneAtATime);
    sim.run(vec![ask(0.0, 2, 2), of_key(32, ask(0.0, 1, 2)), ask(0.0, 2, 1)]);
    assert_eq!(sim.seeds(), [[0], [0], [1], [1], [2]]);
}
