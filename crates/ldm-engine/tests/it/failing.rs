//! What goes wrong stays with the jobs of that call.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ldm_core::{Draft, Ending, FailureKind};
use ldm_engine::fake::{FakeExecutor, FakeOptions};
use ldm_engine::{Batch, Limits, Monitor, Readiness, Refused, Service};

use crate::rig::{Rig, draft, prompted};

fn kind(ending: Ending) -> FailureKind {
    match ending {
        Ending::Failed(failure) => failure.kind,
        other => panic!("expected a failure, got {}", other.reason()),
    }
}

#[tokio::test]
async fn a_panic_in_a_step_harms_no_neighbour() {
    let rig = Rig::new(8, 8).await;
    rig.control.steps.close();
    let first = rig.submit(draft(1, 5));
    rig.control.steps.wait_blocked();
    // One shares the call that panics, one has another size, one waits.
    let bad = rig.submit(prompted(2, 5, "!panic@2"));
    let other = rig.submit(Draft { width: Some(128), ..draft(3, 5) });
    rig.control.steps.open();
    assert_eq!(kind(bad.finished().await), FailureKind::Panicked);
    for good in [first, other] {
        let Ending::Finished(output) = good.finished().await else { panic!("a neighbour was harmed") };
        let request = &output.request;
        assert_eq!(output.image, FakeExecutor::picture(request.seed, request.width, request.height));
    }
    assert!(rig.tally.incidents().iter().any(|incident| incident == "Survived(Panicked)"), "{:?}", rig.tally.incidents());
    // Once together, once alone.
    assert_eq!(rig.control.probes(), 2);
    let broken: Vec<_> = rig.seeds().into_iter().filter(|seeds| seeds.contains(&2)).collect();
    assert!(broken.iter().rev().take(2).all(|seeds| *seeds == [2]), "who may have broken a call shares none: {broken:?}");
    assert_eq!(rig.submit(draft(4, 2)).finished().await.reason(), "finished");
    assert_eq!(rig.service.readiness(), Readiness::Ready);
}

#[tokio::test]
async fn a_call_that_is_too_large_is_made_in_parts() {
    let options = FakeOptions { memory_rows: 2, ..FakeOptions::default() };
    let rig = Rig::with(Limits { queue: 16, running: 16, rows: 16, ..Limits::default() }, options).await;
    let tickets = rig.service.submit(rig.requests(Draft { images: Some(8), ..draft(1, 6) })).unwrap();
    for ticket in tickets {
        assert_eq!(ticket.finished().await.reason(), "finished");
    }
    assert!((1..9).all(|seed| rig.control.steps_of(seed) == 6), "no step is lost, none is made twice");
    let incidents = rig.tally.incidents();
    assert!(incidents.contains(&"Survived(OutOfMemory)".to_owned()), "{incidents:?}");
    // What did not fit is learned.
    rig.control.clear();
    let tickets = rig.service.submit(rig.requests(Draft { images: Some(4), ..draft(1, 6) })).unwrap();
    for ticket in tickets {
        assert_eq!(ticket.finished().await.reason(), "finished");
    }
    let too_large = rig.control.calls().iter().filter(|call| call.rows > 2).count();
    assert!(too_large <= 2, "{too_large} calls were too large again");
}

#[tokio::test]
async fn a_job_that_alone_is_too_large_fails() {
    let rig = Rig::new(4, 4).await;
    assert_eq!(kind(rig.submit(prompted(1, 3, "!fail@2")).finished().await), FailureKind::OutOfMemory);
    let tried: Vec<_> = rig.seeds().into_iter().filter(|seeds| seeds.contains(&1)).collect();
    assert_eq!(
        (tried.len(), rig.control.reliefs()),
        (3, 2),
        "the second step is tried once more with the memory that was let go of"
    );
    assert_eq!(rig.submit(draft(2, 2)).finished().await.reason(), "finished");
}

#[tokio::test]
async fn a_preparation_without_memory_is_tried_once_more() {
    let rig = Rig::new(4, 4).await;
    assert_eq!(rig.submit(prompted(1, 2, "!fail@first")).finished().await.reason(), "finished");
    assert_eq!((rig.control.preparations(), rig.control.reliefs()), (vec![1, 1], 1));
    assert_eq!(rig.tally.incidents(), ["Survived(OutOfMemory)"]);
    rig.control.clear();
    assert_eq!(kind(rig.submit(prompted(2, 2, "!fail@prepare")).finished().await), FailureKind::OutOfMemory);
    assert_eq!(rig.control.preparations(), [2, 2]);
}

#[tokio::test]
async fn a_decoding_that_is_too_large_is_made_frugally() {
    let rig = Rig::new(4, 4).await;
    assert_eq!(rig.submit(prompted(1, 2, "!fail@usual")).finished().await.reason(), "finished");
    assert_eq!((rig.control.reliefs(), rig.tally.incidents()), (1, vec!["Survived(OutOfMemory)".to_owned()]));
    assert_eq!(kind(rig.submit(prompted(1, 2, "!fail@decode")).finished().await), FailureKind::OutOfMemory);
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
        // Tried again as long as the device says that it is well.
        ("!device@1", FailureKind::Device, 3),
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
    let rig = Rig::with(Limits { queue: 8, running: 2, ..Limits::default() }, options).await;
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
    let rig = Rig::with(Limits { queue: 1, running: 1, ..Limits::default() }, options).await;
    assert_eq!(kind(rig.submit(prompted(1, 1, "!panic@price")).finished().await), FailureKind::Panicked);
    rig.service.ended().await;
    assert!(matches!(rig.service.readiness(), Readiness::Failed(_)));
}

/// Breaks the device thread itself, outside every executor call, once it is lit.
#[derive(Default)]
struct Bomb(AtomicBool);

impl Monitor for Bomb {
    fn batch(&self, _: Batch<'_>) {
        assert!(!self.0.load(Ordering::SeqCst), "the engine itself broke");
    }
}

#[tokio::test]
async fn when_the_thread_itself_dies_every_job_is_told() {
    let fake = FakeExecutor::new(FakeOptions::default());
    let control = fake.control();
    let bomb = Arc::new(Bomb::default());
    let limits = Limits { queue: 8, running: 1, ..Limits::default() };
    let service = Service::start(limits, Arc::clone(&bomb) as Arc<dyn Monitor>, fake.loader());
    let catalogue = service.wait_ready().await.unwrap();
    control.steps.close();
    let tickets = service.submit(Draft { images: Some(2), ..draft(1, 5) }.check(&catalogue).unwrap()).unwrap();
    control.steps.wait_blocked();
    // Before its second step the thread has read of both.
    control.steps.allow(1);
    control.steps.wait_blocked();
    bomb.0.store(true, Ordering::SeqCst);
    let unread = service.submit(draft(9, 5).check(&catalogue).unwrap()).unwrap();
    control.steps.open();
    for ticket in tickets {
        assert_eq!(kind(ticket.finished().await), FailureKind::Panicked);
    }
    for ticket in unread {
        assert_eq!(kind(ticket.finished().await), FailureKind::Device, "it was on its way there");
    }
    service.drain(std::time::Duration::ZERO).await;
    assert_eq!(service.load().queued + service.load().running, 0);
}
