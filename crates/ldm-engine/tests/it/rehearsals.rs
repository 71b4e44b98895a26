//! Calls are measured while nothing else is to be done, and kept.

use std::sync::Arc;
use std::time::Duration;

use ldm_core::Ending;
use ldm_engine::fake::{FakeControl, FakeExecutor, FakeOptions};
use ldm_engine::{BatchKey, Limits, ModelChange, Service, Silent};

use crate::rig::draft;

const MILLISECOND: Duration = Duration::from_millis(1);

/// Calls of a tenth of a second, and a millisecond for each row: more rows are always worth it.
fn options() -> FakeOptions {
    FakeOptions { rehearses: true, step: 10 * MILLISECOND, row: MILLISECOND / 10, ..FakeOptions::default() }
}

async fn start(options: FakeOptions, limits: Limits) -> (Service, Arc<FakeControl>) {
    let fake = FakeExecutor::new(options);
    let control = fake.control();
    let service = Service::start(limits, Arc::new(Silent), fake.loader());
    service.wait_ready().await.expect("ready");
    (service, control)
}

/// Waits until a profile is kept.
async fn kept(control: &FakeControl) {
    while control.profile().is_none() {
        tokio::time::sleep(MILLISECOND).await;
    }
}

fn rows_of(control: &FakeControl) -> Vec<u32> {
    let mut rows = control.rehearsals();
    rows.dedup();
    rows
}

#[tokio::test]
async fn row_counts_are_tried_up_to_the_most_and_kept() {
    let (_service, control) = start(options(), Limits { rows: 16, ..Limits::default() }).await;
    kept(&control).await;
    assert_eq!(rows_of(&control), [1, 2, 4, 8, 16]);
    assert_eq!(control.rehearsals().len(), 15, "three of each");
    let profile = control.profile().unwrap();
    let points: Vec<_> = profile.keys[0].points.iter().map(|point| (point.rows, point.count)).collect();
    assert_eq!(points, [(1, 3), (2, 3), (4, 3), (8, 3), (16, 3)]);
}

#[tokio::test]
async fn beyond_the_knee_nothing_is_tried() {
    let options = FakeOptions { step: Duration::ZERO, row: 20 * MILLISECOND, ..options() };
    let (_service, control) = start(options, Limits { rows: 16, ..Limits::default() }).await;
    kept(&control).await;
    assert_eq!(rows_of(&control), [1, 2], "two rows take as long as twice one");
}

#[tokio::test]
async fn long_calls_and_a_spent_budget_end_it() {
    let slow = FakeOptions { step: 700 * MILLISECOND, ..options() };
    let (_service, control) = start(slow, Limits::default()).await;
    kept(&control).await;
    assert_eq!(rows_of(&control), [1], "a call of two rows might keep a job waiting for more than a second");
    let (_service, control) = start(options(), Limits { rehearsal: 100 * MILLISECOND, ..Limits::default() }).await;
    kept(&control).await;
    assert_eq!(rows_of(&control), [1, 2], "three calls of four rows might take 60 of the 38 ms that are left");
    let (service, control) = start(options(), Limits { rehearsal: Duration::ZERO, ..Limits::default() }).await;
    service.drain(Duration::MAX).await;
    assert!(control.rehearsals().is_empty());
}

#[tokio::test]
async fn what_is_recalled_is_not_measured_again() {
    let (service, control) = start(options(), Limits::default()).await;
    kept(&control).await;
    service.drain(Duration::MAX).await;
    let profile = control.profile().unwrap();
    let fake = FakeExecutor::new(options());
    let second = fake.control();
    second.keep(profile);
    let service = Service::start(Limits::default(), Arc::new(Silent), fake.loader());
    let catalogue = service.wait_ready().await.unwrap();
    let request = draft(1, 10).check(&catalogue).unwrap().remove(0);
    let ticket = service.submit(vec![request.clone()]).unwrap().remove(0);
    assert!(matches!(ticket.finished().await, Ending::Finished(_)));
    let estimate = service.estimate(&request, &ldm_core::Terms::default()).unwrap();
    assert!(second.rehearsals().is_empty());
    assert!(estimate.p50 >= 90 * MILLISECOND, "ten calls of ten milliseconds, by the profile: {estimate:?}");
}

#[tokio::test]
async fn a_job_comes_between_two_calls() {
    let fake = FakeExecutor::new(options());
    let control = fake.control();
    control.rehearsing.close();
    let service = Service::start(Limits::default(), Arc::new(Silent), fake.loader());
    let catalogue = service.wait_ready().await.unwrap();
    control.rehearsing.wait_blocked();
    let ticket = service.submit(draft(1, 2).check(&catalogue).unwrap()).unwrap().remove(0);
    control.rehearsing.allow(1);
    assert!(matches!(ticket.finished().await, Ending::Finished(_)));
    control.rehearsing.wait_blocked();
    assert_eq!(control.rehearsals(), [1, 1], "the one before the job, and the one after it");
    control.rehearsing.open();
    kept(&control).await;
}

#[tokio::test]
async fn memory_that_ends_is_the_bound() {
    let (_service, control) = start(FakeOptions { memory_rows: 4, ..options() }, Limits::default()).await;
    while control.rehearsals().last() != Some(&8) || control.reliefs() == 0 {
        tokio::time::sleep(MILLISECOND).await;
    }
    kept(&control).await;
    let profile = control.profile().unwrap();
    assert_eq!(profile.keys[0].memory_rows, Some(4));
}

#[tokio::test]
async fn weights_that_are_new_are_measured_too() {
    let (service, control) = start(options(), Limits::default()).await;
    kept(&control).await;
    service.change_models(ModelChange::Put(Arc::new("other".to_owned()))).await.unwrap();
    let is_other = |key: &BatchKey| key.model == "other";
    while !control.profile().is_some_and(|profile| profile.keys.iter().any(|key| is_other(&key.key))) {
        tokio::time::sleep(MILLISECOND).await;
    }
    assert_eq!(control.rehearsals().len(), 30);
    assert!(control.profile().unwrap().keys.iter().all(|key| is_other(&key.key)), "each model's are its own");
}
