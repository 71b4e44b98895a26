//! Tenants, priorities, deadlines, bytes, checkpoints: the terms under which jobs run.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ldm_core::{Checkpoint, Draft, Ending, FailureKind, Priority, Tenant, Terms};
use ldm_engine::fake::{FakeExecutor, FakeOptions};
use ldm_engine::{Keeper, Limits, Refused, Submission};

use crate::rig::{Rig, draft};

fn within(deadline: Duration) -> Terms {
    Terms { deadline: Some(deadline), ..Terms::default() }
}

#[tokio::test]
async fn a_deadline_that_passes_ends_the_job() {
    let rig = Rig::new(8, 2).await;
    rig.control.steps.close();
    let running = rig.service.submit_under(rig.requests(draft(1, 5)), &within(Duration::from_millis(30))).unwrap().remove(0);
    rig.control.steps.wait_blocked();
    let waiting = rig.service.submit_under(rig.requests(draft(2, 5)), &within(Duration::from_millis(30))).unwrap().remove(0);
    let patient = rig.submit(draft(3, 5));
    tokio::time::sleep(Duration::from_millis(40)).await;
    rig.control.steps.open();
    for late in [running, waiting] {
        let Ending::Failed(failure) = late.finished().await else { panic!("it was late") };
        assert_eq!(failure.kind, FailureKind::DeadlineExceeded);
    }
    assert_eq!(patient.finished().await.reason(), "finished");
    assert!(rig.control.steps_of(1) <= 1 && rig.control.steps_of(2) == 0, "at most one step is wasted");
}

#[tokio::test]
async fn a_deadline_that_cannot_be_met_is_refused_at_once() {
    let options = FakeOptions { step: Duration::from_millis(10), ..FakeOptions::default() };
    let rig = Rig::with(Limits::default(), options).await;
    // What a step takes is measured.
    assert_eq!(rig.submit(draft(1, 20)).finished().await.reason(), "finished");
    let refused = rig.service.submit_under(rig.requests(draft(2, 20)), &within(Duration::from_millis(50))).unwrap_err();
    let Refused::Deadline { needed, retry_after, .. } = refused else { panic!("{refused}") };
    assert!((Duration::from_millis(150)..Duration::from_millis(1000)).contains(&needed), "{needed:?}");
    assert_eq!(retry_after, None, "it takes longer by itself");
    let fine = rig.service.submit_under(rig.requests(draft(3, 20)), &within(Duration::from_secs(20))).unwrap().remove(0);
    assert_eq!(fine.finished().await.reason(), "finished");
    assert_eq!(rig.service.load().bytes, 0);
}

#[tokio::test]
async fn an_estimate_says_what_a_job_takes_without_running_it() {
    let options = FakeOptions { step: Duration::from_millis(5), ..FakeOptions::default() };
    let rig = Rig::with(Limits::default(), options).await;
    assert_eq!(rig.submit(draft(1, 20)).finished().await.reason(), "finished");
    rig.control.clear();
    let request = rig.requests(draft(2, 40)).remove(0);
    let estimate = rig.service.estimate(&request, &Terms::default()).unwrap();
    assert_eq!((estimate.rows, estimate.evaluations), (1, 40));
    assert!((0.15..0.6).contains(&estimate.p50.as_secs_f64()), "{estimate:?}");
    assert!(estimate.p95 >= estimate.p50 && estimate.queue <= estimate.p50, "{estimate:?}");
    // The fake needs a byte for each pixel and row, and its model has a hundred.
    assert_eq!(estimate.peak_bytes, Some(100 + u64::from(request.width) * u64::from(request.height)));
    let large = rig.requests(Draft { width: Some(256), height: Some(128), ..draft(3, 40) }).remove(0);
    let estimate = rig.service.estimate(&large, &Terms::default()).unwrap();
    assert_eq!(estimate.peak_bytes, Some(100 + 256 * 128), "of a size that nobody asked for");
    assert!(rig.control.calls().is_empty());
}

#[tokio::test]
async fn before_the_first_job_an_estimate_knows_the_usual_size() {
    let rig = Rig::new(8, 1).await;
    let request = rig.requests(Draft { guidance: None, ..draft(1, 10) }).remove(0);
    let estimate = rig.service.estimate(&request, &Terms::default()).unwrap();
    assert_eq!(estimate.peak_bytes, Some(100 + 2 * u64::from(request.width) * u64::from(request.height)));
}

#[tokio::test]
async fn a_tenant_has_its_own_bound() {
    let rig = Rig::with(Limits { per_tenant: 2, queue: 8, ..Limits::default() }, FakeOptions::default()).await;
    rig.control.steps.close();
    let greedy = Terms { tenant: Tenant::new("greedy"), ..Terms::default() };
    let held = rig.service.submit_under(rig.requests(Draft { images: Some(2), ..draft(1, 2) }), &greedy).unwrap();
    let refused = rig.service.submit_under(rig.requests(draft(9, 2)), &greedy).unwrap_err();
    assert!(matches!(refused, Refused::TenantFull { held: 2, limit: 2, .. }), "{refused}");
    let other = rig.submit(draft(3, 2));
    rig.control.steps.open();
    for ticket in held.into_iter().chain([other]) {
        assert_eq!(ticket.finished().await.reason(), "finished");
    }
    let worked = rig.tally.worked();
    assert!(worked.contains_key("greedy") && worked.contains_key("anonymous"), "{worked:?}");
}

#[tokio::test]
async fn bytes_are_bounded() {
    let rig = Rig::with(Limits { bytes: 40_000, queue: 8, ..Limits::default() }, FakeOptions::default()).await;
    rig.control.steps.close();
    // 64 x 64 x 3 bytes each.
    let held: Vec<_> = (0..3).map(|seed| rig.submit(draft(seed, 2))).collect();
    let refused = rig.service.submit(rig.requests(draft(9, 2))).unwrap_err();
    assert!(matches!(refused, Refused::NoRoom { limit: 40_000, needed: 12_288, .. }), "{refused}");
    rig.control.steps.open();
    for ticket in held {
        assert_eq!(ticket.finished().await.reason(), "finished");
    }
    assert_eq!(rig.submit(draft(9, 2)).finished().await.reason(), "finished");
}

#[tokio::test]
async fn interactive_jobs_go_before_batches() {
    let rig = Rig::with(Limits { running: 1, queue: 32, ..Limits::default() }, FakeOptions::default()).await;
    rig.control.steps.close();
    let first = rig.submit(draft(0, 2));
    rig.control.steps.wait_blocked();
    let batch = Terms { priority: Priority::Batch, ..Terms::default() };
    let slow: Vec<_> =
        (1..8).map(|seed| rig.service.submit_under(rig.requests(draft(seed, 2)), &batch).unwrap().remove(0)).collect();
    let urgent: Vec<_> = (11..18).map(|seed| rig.submit(draft(seed, 2))).collect();
    rig.control.steps.open();
    for ticket in urgent.into_iter().chain(slow).chain([first]) {
        assert_eq!(ticket.finished().await.reason(), "finished");
    }
    let order = rig.control.preparations();
    let place = |seed: u64| order.iter().position(|&prepared| prepared == seed).unwrap();
    // The long first step has earned the batch class a share: two of its jobs at most, and one in ten after that.
    assert!((11..18).all(|seed| place(seed) < place(5)), "{order:?}");
}

/// Remembers the last checkpoint.
#[derive(Default)]
struct Drawer(Mutex<Option<Checkpoint>>);

impl Keeper for Drawer {
    fn keep(&self, checkpoint: Checkpoint) {
        *self.0.lock().unwrap() = Some(checkpoint);
    }
}

#[tokio::test]
async fn what_a_shutdown_leaves_half_done_goes_on_in_another_process() {
    let rig = Rig::new(4, 4).await;
    let drawer = Arc::new(Drawer::default());
    let request = rig.requests(draft(7, 10)).remove(0);
    let kept = Submission { keeper: Some(Arc::clone(&drawer) as _), ..Submission::new(request.clone(), &Terms::default()) };
    rig.control.steps.close();
    let ticket = rig.service.accept(vec![kept]).unwrap().remove(0);
    rig.control.steps.wait_blocked();
    rig.control.steps.allow(3);
    rig.control.steps.wait_blocked();
    let service = rig.service.clone();
    let drain = tokio::spawn(async move { service.drain(Duration::ZERO).await });
    while rig.service.readiness() == ldm_engine::Readiness::Ready {
        tokio::task::yield_now().await;
    }
    rig.control.steps.open();
    drain.await.unwrap();
    assert!(matches!(ticket.finished().await, Ending::Failed(failure) if failure.kind == FailureKind::ShuttingDown));
    let checkpoint = drawer.0.lock().unwrap().take().expect("it was kept");
    assert_eq!(checkpoint.step, 4);

    let next = Rig::new(4, 4).await;
    let resumed = Submission { checkpoint: Some(checkpoint), ..Submission::new(request, &Terms::default()) };
    let ticket = next.service.accept(vec![resumed]).unwrap().remove(0);
    let Ending::Finished(output) = ticket.finished().await else { panic!("not finished") };
    assert_eq!(output.image, FakeExecutor::picture(7, 64, 64));
    assert_eq!(next.control.steps_of(7), 6, "the four steps are not made again");
}

#[tokio::test]
async fn long_jobs_are_kept_as_they_go() {
    let options = FakeOptions { step: Duration::from_millis(1), ..FakeOptions::default() };
    let rig = Rig::with(Limits { checkpoint_every: Duration::from_millis(3), ..Limits::default() }, options).await;
    let drawer = Arc::new(Drawer::default());
    let request = rig.requests(draft(7, 30)).remove(0);
    let kept = Submission { keeper: Some(Arc::clone(&drawer) as _), ..Submission::new(request, &Terms::default()) };
    assert_eq!(rig.service.accept(vec![kept]).unwrap().remove(0).finished().await.reason(), "finished");
    assert!(drawer.0.lock().unwrap().as_ref().is_some_and(|checkpoint| checkpoint.step > 3));
}

#[tokio::test]
async fn a_cancelled_job_tells_how_much_was_wasted() {
    let rig = Rig::new(2, 2).await;
    rig.control.steps.close();
    let ticket = rig.submit(draft(1, 10));
    rig.control.steps.wait_blocked();
    rig.control.steps.allow(2);
    rig.control.steps.wait_blocked();
    ticket.cancel();
    rig.control.steps.open();
    assert_eq!(ticket.finished().await.reason(), "cancelled");
    assert_eq!(rig.tally.wasted(), 3);
}
