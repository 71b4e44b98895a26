//! What goes wrong stays with the jobs of that call.

use std::sync::Arc;

use ldm_core::{Draft, Ending, FailureKind};
use ldm_engine::fake::{FakeExecutor, FakeOptions};
use ldm_engine::{Limits, Monitor, Readiness, Refused, Service};

use crate::rig::{Rig, draft, prompted};

fn kind(ending: Ending) -> FailureKind {
    match ending {
        Ending::Failed(failure) => failure.kind,
        other => panic!("expected a failure, got {}", other.reason()),
    }
}

#[tokio::test]
async fn a_panic_in_a_step_fails_that_batch_alone() {
    let rig = Rig::new(8, 8).await;
    rig.control.steps.close();
    let first = rig.submit(draft(1, 5));
    rig.control.steps.wait_blocked();
    // One shares the call that panics, one has another size, one waits.
    let bad = rig.submit(prompted(2, 5, "!panic@2"));
    let other = rig.submit(Draft { width: Some(128), ..draft(3, 5) });
    rig.control.steps.open();
    assert_eq!(kind(bad.finished().await), FailureKind::Panicked);
    assert_eq!(kind(first.finished().await), FailureKind::Panicked);
    assert_eq!(other.finished().await.reason(), "finished");
    assert_eq!(rig.control.probes(), 1);
    assert_eq!(rig.submit(draft(4, 2)).finished().await.reason(), "finished");
    assert_eq!(rig.service.readiness(), Readiness::Ready);
}

#[tokio::test]
async fn a_failure_in_a_step_fails_that_job_alone() {
    let rig = Rig::new(8, 8).await;
    rig.control.steps.close();
    let good = rig.submit(draft(1, 5));
    rig.control.steps.wait_blocked();
    let bad = rig.submit(prompted(2, 5, "!nan@2"));
    rig.control.steps.open();
    assert_eq!(kind(bad.finished().await), FailureKind::NotFinite);
    assert_eq!(good.finished().await.reason(), "finished");
    assert_eq!(rig.control.probes(), 0);
}

#[tokio::test]
async fn every_call_may_fail() {
    let rig = Rig::new(8, 8).await;
    let cases = [
        ("!unsupported@price", FailureKind::Unsupported, 0),
        ("!panic@price", FailureKind::Panicked, 1),
        ("!fail@prepare", FailureKind::OutOfMemory, 0),
        ("!panic@prepare", FailureKind::Panicked, 1),
        ("!fail@decode", FailureKind::OutOfMemory, 0),
        ("!panic@decode", FailureKind::Panicked, 1),
        ("!device@1", FailureKind::Device, 1),
    ];
    for (prompt, expected, probes) in cases {
        rig.control.clear();
        assert_eq!(kind(rig.submit(prompted(1, 2, prompt)).finished().await), expected, "{prompt}");
        // Behind the next job every probe has been made.
        assert_eq!(rig.submit(draft(2, 1)).finished().await.reason(), "finished");
        assert_eq!(rig.control.probes(), probes, "{prompt}");
    }
    assert_eq!(rig.service.load().queued + rig.service.load().running, 0);
}

#[tokio::test]
async fn a_broken_device_is_retired_with_all_its_jobs() {
    let options = FakeOptions { probe_fails: true, ..FakeOptions::default() };
    let rig = Rig::with(Limits { queue: 8, running: 2 }, options).await;
    rig.control.steps.close();
    let bad = rig.submit(prompted(1, 5, "!panic@1"));
    rig.control.steps.wait_blocked();
    let queued: Vec<_> = (2..5).map(|seed| rig.submit(draft(seed, 5))).collect();
    rig.control.steps.open();
    assert_eq!(kind(bad.finished().await), FailureKind::Panicked);
    for ticket in queued {
        let Ending::Failed(failure) = ticket.finished().await else { panic!("not failed") };
        assert_eq!(failure.kind, FailureKind::Device);
        assert!(failure.message.contains("retired"), "{failure}");
    }
    assert!(matches!(rig.service.readiness(), Readiness::Failed(_)));
    assert!(matches!(rig.service.submit(rig.requests(draft(9, 1))), Err(Refused::Failed(_))));
    assert!(rig.service.wait_ready().await.is_err());
    rig.service.drain(std::time::Duration::MAX).await;
    assert_eq!(rig.tally.ended(), [("panicked", 1), ("device", 3)].into());
}

#[tokio::test]
async fn a_panic_while_idle_is_probed_at_once() {
    let options = FakeOptions { probe_fails: true, ..FakeOptions::default() };
    let rig = Rig::with(Limits { queue: 1, running: 1 }, options).await;
    assert_eq!(kind(rig.submit(prompted(1, 1, "!panic@price")).finished().await), FailureKind::Panicked);
    rig.service.ended().await;
    assert!(matches!(rig.service.readiness(), Readiness::Failed(_)));
}

/// Breaks the device thread itself, outside every executor call.
struct Bomb;

impl Monitor for Bomb {
    fn batch(&self, _: usize, _: u32) {
        panic!("the engine itself broke");
    }
}

#[tokio::test]
async fn when_the_thread_itself_dies_every_job_is_told() {
    let fake = FakeExecutor::new(FakeOptions::default());
    let control = fake.control();
    let service = Service::start(Limits { queue: 8, running: 1 }, Arc::new(Bomb), fake.loader());
    let catalogue = service.wait_ready().await.unwrap();
    control.steps.close();
    let tickets = service.submit(Draft { images: Some(2), ..draft(1, 5) }.check(&catalogue).unwrap()).unwrap();
    control.steps.wait_blocked();
    let unread = service.submit(draft(9, 5).check(&catalogue).unwrap()).unwrap();
    control.steps.open();
    for ticket in tickets.into_iter().chain(unread) {
        assert_eq!(kind(ticket.finished().await), FailureKind::Panicked);
    }
    service.drain(std::time::Duration::ZERO).await;
    assert_eq!(service.load().queued + service.load().running, 0);
}
