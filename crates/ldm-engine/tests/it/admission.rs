//! Places are bounded; full is an answer; several requests are accepted together or not at all.

use std::time::Duration;

use ldm_core::{Draft, FailureKind};
use ldm_engine::{Load, Refused};

use crate::rig::{Rig, draft};

#[tokio::test]
async fn full_is_an_answer() {
    let rig = Rig::new(2, 1).await;
    rig.control.steps.close();
    let first = rig.submit(draft(1, 1));
    let second = rig.submit(draft(2, 1));
    rig.control.steps.wait_blocked();
    let refused = rig.service.submit(rig.requests(draft(3, 1))).unwrap_err();
    assert_eq!(refused, Refused::Full { limit: 2, retry_after: Duration::from_secs(1) });
    assert_eq!(rig.service.load(), Load { queued: 1, running: 1, limit: 2, bytes: 2 * 12_288 });
    rig.control.steps.open();
    // Whoever has seen an ending finds the place free.
    first.finished().await;
    let third = rig.submit(draft(3, 1));
    second.finished().await;
    third.finished().await;
    assert_eq!(rig.service.load(), Load { queued: 0, running: 0, limit: 2, bytes: 0 });
}

#[tokio::test]
async fn all_or_nothing() {
    let rig = Rig::new(3, 1).await;
    rig.control.steps.close();
    let _first = rig.submit(draft(1, 1));
    let several = |images| rig.requests(Draft { images: Some(images), ..draft(10, 1) });
    assert!(matches!(rig.service.submit(several(3)), Err(Refused::Full { limit: 3, .. })));
    assert_eq!(rig.tally.accepted(), 1);
    let tickets = rig.service.submit(several(2)).unwrap();
    assert_eq!(tickets.iter().map(|ticket| ticket.request().seed).collect::<Vec<_>>(), [10, 11]);
    assert_eq!(rig.tally.accepted(), 3);
    assert!(rig.service.submit(Vec::new()).unwrap().is_empty());
}

#[tokio::test]
async fn more_than_there_are_places_never_fit() {
    let rig = Rig::new(3, 1).await;
    let four = rig.requests(Draft { images: Some(4), ..draft(1, 1) });
    assert_eq!(rig.service.submit(four).unwrap_err(), Refused::TooMany { asked: 4, limit: 3 });
}

#[tokio::test]
async fn a_model_of_another_catalogue_is_refused() {
    let rig = Rig::new(3, 1).await;
    let mut requests = rig.requests(draft(1, 1));
    requests[0].model = "gone".to_owned();
    let refused = rig.service.submit(requests).unwrap_err();
    assert!(matches!(refused, Refused::Unsupported(failure) if failure.kind == FailureKind::Unsupported));
    assert_eq!(rig.service.load().queued, 0);
}
