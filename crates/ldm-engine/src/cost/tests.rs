//! The cost table alone.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn key(model: &str, side: u32) -> BatchKey {
    BatchKey { model: model.to_owned(), latent: [4, side, side], cross: [77, 8] }
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// Records that row count often enough to be believed.
fn measure(costs: &mut Costs, key: &BatchKey, rows: u32, took: f64) {
    (0..4).for_each(|_| costs.record_evaluation(key, rows, seconds(took)));
}

/// Makes full calls, as demand would, until the cap no longer changes.
fn explore(costs: &mut Costs, key: &BatchKey, truth: impl Fn(u32) -> f64) -> u32 {
    (0..64).for_each(|_| {
        let rows = costs.cap(key);
        costs.record_evaluation(key, rows, seconds(truth(rows)));
    });
    costs.cap(key)
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 + 1e-6 * b.abs()
}

#[test]
fn unknown_rows_are_fitted_and_unknown_keys_scaled() {
    let (mut costs, known) = (Costs::new(64), key("m", 64));
    assert!(!costs.is_known(&known));
    assert!(close(costs.evaluation(&known, 2), 0.1), "the default: {}", costs.evaluation(&known, 2));
    measure(&mut costs, &known, 2, 0.04);
    assert!(close(costs.evaluation(&known, 2), 0.04));
    assert!(close(costs.evaluation(&known, 4), 0.07), "a quarter is fixed: {}", costs.evaluation(&known, 4));
    measure(&mut costs, &known, 8, 0.10);
    assert!(close(costs.evaluation(&known, 5), 0.07), "0.02 + 0.01 per row: {}", costs.evaluation(&known, 5));
    costs.record_decode(&known, seconds(0.2));
    let wide = key("m", 128);
    assert!(close(costs.evaluation(&wide, 5), 0.02 + 4.0 * 0.05), "four times the area: {}", costs.evaluation(&wide, 5));
    assert!(close(costs.rates(&wide).decode, 0.8));
    assert!(close(costs.evaluation(&key("other", 64), 1), 0.05), "another model tells nothing");
    measure(&mut costs, &key("m", 32), 1, 0.5);
    assert!(close(costs.evaluation(&wide, 5), 0.22), "the nearest area counts");
}

#[test]
fn a_jobs_time_is_its_evaluations_and_what_is_around_them() {
    let (mut costs, key) = (Costs::new(64), key("m", 64));
    measure(&mut costs, &key, 2, 0.04);
    costs.record_prepare(&key, seconds(0.1));
    costs.record_decode(&key, seconds(0.3));
    let price = Price { key, rows: 2, evaluations: 20 };
    assert!(close(costs.solo(&price), 1.2));
    assert!(close(costs.remaining(&Price { evaluations: 5, ..price }), 0.5));
}

#[test]
fn a_slow_first_call_and_outliers_hardly_count() {
    let (mut costs, key) = (Costs::new(64), key("m", 64));
    costs.record_evaluation(&key, 1, seconds(30.0));
    costs.record_evaluation(&key, 1, seconds(0.1));
    assert!(close(costs.evaluation(&key, 1), 0.1), "the compilation is forgotten");
    (0..20).for_each(|_| costs.record_evaluation(&key, 1, seconds(0.1)));
    costs.record_evaluation(&key, 1, seconds(30.0));
    assert!(costs.evaluation(&key, 1) < 0.13, "{}", costs.evaluation(&key, 1));
    let spread = costs.spread(&key, 1).unwrap();
    assert!(spread.p95() > spread.mean() && spread.count() == 23);
}

#[test]
fn a_slower_machine_is_noticed() {
    let (mut costs, key) = (Costs::new(64), key("m", 64));
    (0..50).for_each(|_| costs.record_evaluation(&key, 1, seconds(0.1)));
    (0..50).for_each(|_| costs.record_evaluation(&key, 1, seconds(0.5)));
    assert!(costs.evaluation(&key, 1) > 0.4);
}

#[test]
fn demand_finds_the_knee() {
    let mut costs = Costs::new(64);
    let at = |knee: u32| move |rows: u32| 0.1 * f64::from(rows.max(knee));
    assert_eq!(costs.cap(&key("m", 64)), 4, "where it starts");
    assert_eq!(explore(&mut costs, &key("m", 64), at(16)), 16);
    assert_eq!(explore(&mut costs, &key("m", 32), at(1)), 4, "flat from the start: no more than was begun with");
    assert_eq!(explore(&mut costs, &key("m", 16), |_| 0.1), 64, "never flat: the ceiling");
    assert_eq!(explore(&mut costs, &key("m", 8), |_| 0.0), 64, "too short to be told apart: the ceiling");
    measure(&mut costs, &key("m", 32), 1, 0.1);
    measure(&mut costs, &key("m", 32), 2, 0.2);
    assert_eq!(costs.cap(&key("m", 32)), 1, "smaller calls have shown that sharing gains nothing");
}

#[test]
fn no_ceiling_is_passed() {
    let mut costs = Costs::new(3);
    assert_eq!(costs.cap(&key("m", 64)), 3);
    assert_eq!(explore(&mut costs, &key("m", 64), |_| 0.1), 3);
    measure(&mut costs, &key("m", 64), 12, 0.1);
    assert_eq!(costs.cap(&key("m", 64)), 3);
}

#[test]
fn what_lies_beyond_the_knee_is_tried_again_after_a_while() {
    let (mut costs, key) = (Costs::new(64), key("m", 64));
    let knee = explore(&mut costs, &key, |rows| 0.1 * f64::from(rows.max(8)));
    assert_eq!(knee, 8);
    let mut tried = 0;
    for _ in 0..3000 {
        let rows = costs.cap(&key);
        tried = tried.max(rows);
        costs.record_evaluation(&key, rows, seconds(0.1 * f64::from(rows.max(16)) / 2.0));
    }
    assert!(tried >= 16 && costs.cap(&key) == 16, "{tried}, {}", costs.cap(&key));
}

#[test]
fn memory_halves_the_cap_and_gives_it_back_slowly() {
    let (mut costs, key) = (Costs::new(64), key("m", 64));
    assert_eq!(explore(&mut costs, &key, |_| 0.1), 64);
    costs.out_of_memory(&key, 32);
    assert_eq!(costs.cap(&key), 16);
    (0..4999).for_each(|_| costs.record_evaluation(&key, 16, seconds(0.1)));
    assert_eq!(costs.cap(&key), 16);
    costs.record_evaluation(&key, 16, seconds(0.1));
    assert_eq!(costs.cap(&key), 20);
    costs.out_of_memory(&key, 20);
    assert_eq!(costs.cap(&key), 10);
    (0..9999).for_each(|_| costs.record_evaluation(&key, 10, seconds(0.1)));
    assert_eq!(costs.cap(&key), 10, "twice as patient");
    costs.out_of_memory(&key, 1);
    assert_eq!(costs.cap(&key), 1);
}

#[test]
fn a_profile_goes_out_and_comes_back() {
    let mut costs = Costs::new(64);
    explore(&mut costs, &key("m", 64), |rows| 0.1 * f64::from(rows.max(16)));
    costs.record_prepare(&key("m", 64), seconds(0.1));
    costs.record_decode(&key("m", 64), seconds(0.2));
    costs.out_of_memory(&key("m", 32), 8);
    let profile = costs.profile();
    let mut other = Costs::new(64);
    other.import(&profile);
    assert_eq!(other.profile(), profile);
    assert_eq!(other.rates(&key("m", 64)), costs.rates(&key("m", 64)));
    assert_eq!((other.cap(&key("m", 64)), other.cap(&key("m", 32))), (16, 4));
}

#[test]
fn nonsense_in_a_profile_is_left_out() {
    let point = |rows, mean, count| PointProfile { rows, mean, deviation: 0.0, count };
    let points = vec![point(0, 1.0, 9), point(2, f64::NAN, 9), point(3, -1.0, 9), point(4, f64::INFINITY, 9), point(5, 0.1, 0)];
    let (prepare, decode) = (point(0, f64::NAN, 1), point(0, 0.0, 0));
    let mut costs = Costs::new(64);
    costs.import(&Profile { keys: vec![KeyProfile { key: key("m", 64), points, prepare, decode, memory_rows: Some(0) }] });
    assert!(!costs.is_known(&key("m", 64)));
    assert_eq!(costs.cap(&key("m", 64)), 1);
    assert!(costs.solo(&Price { key: key("m", 64), rows: 2, evaluations: 9 }).is_finite());
}

#[test]
fn the_table_is_bounded() {
    let mut costs = Costs::new(64);
    (1..=MOST_KEYS as u32 + 9).for_each(|side| costs.record_evaluation(&key("m", side), 1, seconds(0.1)));
    assert_eq!(costs.profile().keys.len(), MOST_KEYS);
    assert!(!costs.is_known(&key("m", 1)) && costs.is_known(&key("m", MOST_KEYS as u32)));
}

proptest! {
    /// Whatever is measured: caps stay within their bounds, times are finite and grow with the rows.
    #[test]
    fn the_table_stays_sane(
        calls in proptest::collection::vec((1..5u32, 1..80u32, 0.0..5.0f64, proptest::bool::weighted(0.05)), 1..200),
        max_rows in 1..40u32,
    ) {
        let mut costs = Costs::new(max_rows);
        for (side, rows, took, fails) in calls {
            let key = key("m", 16 * side);
            if fails { costs.out_of_memory(&key, rows) } else { costs.record_evaluation(&key, rows, seconds(took)) }
            let (cap, rates) = (costs.cap(&key), costs.rates(&key));
            prop_assert!((1..=max_rows).contains(&cap));
            prop_assert!(rates.base >= 0.0 && rates.per_row >= 0.0 && rates.evaluation(64).is_finite());
        }
    }
}
