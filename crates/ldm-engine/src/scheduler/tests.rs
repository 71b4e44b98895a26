//! The scheduler alone: who goes when, and that nobody is forgotten.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::BatchKey;

fn price(key: u32, rows: u32, row_cap: u32) -> Price {
    Price { key: BatchKey { model: "m".to_owned(), latent: [4, key, key], cross: [77, 8] }, rows, row_cap }
}

/// A scheduler with prepared jobs `0..`, one per key given.
fn stepping(prices: &[Price]) -> Scheduler<usize> {
    let mut scheduler = Scheduler::new(prices.len());
    for (id, price) in prices.iter().enumerate() {
        scheduler.admit(id, price.clone());
        assert_eq!(scheduler.next(), Work::Prepare(id));
        scheduler.prepared(id);
        scheduler.prepared_in_tick = false;
    }
    scheduler
}

#[test]
fn nothing_to_do() {
    let mut scheduler = Scheduler::<usize>::new(1);
    assert!(scheduler.is_empty());
    assert_eq!(scheduler.next(), Work::Idle);
}

#[test]
fn one_job_from_arrival_to_decoding() {
    let mut scheduler = Scheduler::new(1);
    scheduler.admit(7, price(1, 2, 8));
    assert_eq!(scheduler.next(), Work::Prepare(7));
    scheduler.prepared(7);
    assert_eq!(scheduler.next(), Work::Evaluate(vec![7]));
    scheduler.stepped(7, false);
    assert_eq!(scheduler.next(), Work::Evaluate(vec![7]));
    scheduler.stepped(7, true);
    assert_eq!(scheduler.next(), Work::Decode(7));
    scheduler.remove(7);
    assert!(scheduler.is_empty());
}

#[test]
fn a_newcomer_joins_at_the_next_boundary_one_at_a_time() {
    let mut scheduler = stepping(&[price(1, 1, 8)]);
    scheduler.limit = 3;
    scheduler.admit(1, price(1, 1, 8));
    scheduler.admit(2, price(1, 1, 8));
    assert_eq!(scheduler.next(), Work::Prepare(1));
    scheduler.prepared(1);
    assert_eq!(scheduler.next(), Work::Evaluate(vec![0, 1]));
    assert_eq!(scheduler.next(), Work::Prepare(2));
    scheduler.prepared(2);
    assert_eq!(scheduler.next(), Work::Evaluate(vec![0, 1, 2]));
}

#[test]
fn the_row_cap_rotates_those_who_did_not_fit() {
    let mut scheduler = stepping(&[price(1, 2, 4), price(1, 2, 4), price(1, 2, 4)]);
    assert_eq!(scheduler.next(), Work::Evaluate(vec![0, 1]));
    assert_eq!(scheduler.next(), Work::Evaluate(vec![2, 0]));
    assert_eq!(scheduler.next(), Work::Evaluate(vec![1, 2]));
}

#[test]
fn a_job_beyond_the_row_cap_goes_alone() {
    let mut scheduler = stepping(&[price(1, 2, 1), price(1, 1, 1)]);
    assert_eq!(scheduler.next(), Work::Evaluate(vec![0]));
    assert_eq!(scheduler.next(), Work::Evaluate(vec![1]));
}

#[test]
fn keys_take_turns() {
    let mut scheduler = stepping(&[price(1, 1, 8), price(2, 1, 8), price(1, 1, 8)]);
    assert_eq!(scheduler.next(), Work::Evaluate(vec![0, 2]));
    assert_eq!(scheduler.next(), Work::Evaluate(vec![1]));
    assert_eq!(scheduler.next(), Work::Evaluate(vec![0, 2]));
}

#[test]
fn one_decode_per_tick_while_others_step() {
    let mut scheduler = stepping(&[price(1, 1, 8), price(1, 1, 8), price(1, 1, 8)]);
    assert_eq!(scheduler.next(), Work::Evaluate(vec![0, 1, 2]));
    scheduler.stepped(0, true);
    scheduler.stepped(1, true);
    assert_eq!(scheduler.next(), Work::Decode(0));
    scheduler.remove(0);
    assert_eq!(scheduler.next(), Work::Evaluate(vec![2]));
    assert_eq!(scheduler.next(), Work::Decode(1));
}

#[test]
fn removed_jobs_leave_every_place() {
    let mut scheduler = stepping(&[price(1, 1, 8)]);
    scheduler.admit(1, price(1, 1, 8));
    scheduler.admit(2, price(1, 1, 8));
    scheduler.remove(1);
    assert_eq!(scheduler.waiting().collect::<Vec<_>>(), [2]);
    scheduler.remove(0);
    scheduler.remove(0);
    assert_eq!(scheduler.next(), Work::Prepare(2));
    scheduler.remove(2);
    assert!(scheduler.is_empty());
}

/// A job of the simulation: when it comes, what it costs, how many evaluations it takes, when it is cancelled.
#[derive(Clone, Debug)]
struct Plan {
    arrival: usize,
    key: u32,
    rows: u32,
    evaluations: u32,
    cancelled: Option<usize>,
}

fn plan() -> impl Strategy<Value = Plan> {
    (0..40usize, 0..3u32, 1..3u32, 1..6u32, proptest::option::weighted(0.2, 0..60usize))
        .prop_map(|(arrival, key, rows, evaluations, cancelled)| Plan { arrival, key, rows, evaluations, cancelled })
}

proptest! {
    #[test]
    fn every_job_is_served_in_turn(plans in proptest::collection::vec(plan(), 1..20), limit in 1..6usize, cap in 1..6u32) {
        let mut scheduler = Scheduler::new(limit);
        let mut started: Vec<usize> = Vec::new();
        let mut on_device: HashMap<usize, (u32, usize)> = HashMap::new(); // evaluations left, calls since the last of its own
        let mut decodable: Vec<usize> = Vec::new();
        let mut done = vec![false; plans.len()];
        let (mut prepares, mut decodes) = (0, 0);
        let mut now = 0;
        while now < 60 || !scheduler.is_empty() {
            prop_assert!(now < 1000, "the scheduler never comes to rest");
            for (id, plan) in plans.iter().enumerate() {
                if plan.arrival == now {
                    scheduler.admit(id, price(plan.key, plan.rows, cap));
                }
                if plan.cancelled == Some(now) && plan.arrival <= now {
                    scheduler.remove(id);
                    on_device.remove(&id);
                    decodable.retain(|other| *other != id);
                    done[id] = true;
                }
            }
            now += 1;
            let stepping = !on_device.is_empty();
            match scheduler.next() {
                Work::Idle => prop_assert!(scheduler.is_empty()),
                Work::Prepare(id) => {
                    prepares += 1;
                    prop_assert!(!stepping || prepares <= 1, "one prepare between two evaluations");
                    prop_assert!(on_device.len() + decodable.len() < limit);
                    started.push(id);
                    scheduler.prepared(id);
                    on_device.insert(id, (plans[id].evaluations, 0));
                }
                Work::Evaluate(ids) => {
                    (prepares, decodes) = (0, 0);
                    let rows: u32 = ids.iter().map(|id| plans[*id].rows).sum();
                    prop_assert!(rows <= cap || ids.len() == 1);
                    prop_assert!(ids.iter().all(|id| plans[*id].key == plans[ids[0]].key));
                    let present = on_device.len() + decodable.len();
                    for (_, waited) in on_device.values_mut() {
                        *waited += 1;
                        prop_assert!(*waited <= present.max(limit), "starved for {waited} calls");
                    }
                    for id in ids {
                        let entry = on_device.get_mut(&id);
                        prop_assert!(entry.is_some(), "job {id} is not on the device");
                        let (left, waited) = entry.unwrap();
                        (*left, *waited) = (*left - 1, 0);
                        let finished = *left == 0;
                        scheduler.stepped(id, finished);
                        if finished {
                            on_device.remove(&id);
                            decodable.push(id);
                        }
                    }
                }
                Work::Decode(id) => {
                    decodes += 1;
                    prop_assert!(!stepping || decodes <= 1, "one decode between two evaluations");
                    prop_assert!(decodable.contains(&id));
                    decodable.retain(|other| *other != id);
                    scheduler.remove(id);
                    prop_assert!(!done[id]);
                    done[id] = true;
                }
            }
        }
        prop_assert!(done.iter().all(|done| *done), "every job ends");
        let arrivals: Vec<_> = started.iter().map(|id| plans[*id].arrival).collect();
        prop_assert!(arrivals.is_sorted(), "first come, first started");
    }
}
