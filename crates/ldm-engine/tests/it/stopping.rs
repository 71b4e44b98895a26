//! Draining, and letting go of everything.

use std::sync::Arc;
use std::time::Duration;

use ldm_core::{Ending, FailureKind};
use ldm_engine::{Readiness, Refused};

use crate::rig::{Rig, draft};

#[tokio::test]
async fn within_the_grace_accepted_jobs_finish() {
    let rig = Rig::new(8, 1).await;
    rig.control.steps.close();
    let (running, queued) = (rig.submit(draft(1, 3)), rig.submit(draft(2, 3)));
    rig.control.steps.wait_blocked();
    tokio::join!(rig.service.drain(Duration::MAX), async {
        assert_eq!(rig.service.readiness(), Readiness::Draining);
        assert_eq!(rig.service.submit(rig.requests(draft(3, 1))).unwrap_err(), Refused::Draining);
        rig.control.steps.open();
    });
    assert_eq!(running.finished().await.reason(), "finished");
    assert_eq!(queued.finished().await.reason(), "finished");
    rig.service.drain(Duration::ZERO).await;
}

#[tokio::test]
async fn after_the_grace_the_rest_fails() {
    let rig = Rig::new(8, 1).await;
    rig.control.steps.close();
    let (running, queued) = (rig.submit(draft(1, 3)), rig.submit(draft(2, 3)));
    rig.control.steps.wait_blocked();
    // Two drains at once: the shorter grace counts.
    tokio::join!(rig.service.drain(Duration::MAX), rig.service.drain(Duration::ZERO), async { rig.control.steps.open() });
    for ticket in [running, queued] {
        let Ending::Failed(failure) = ticket.finished().await else { panic!("not failed") };
        assert_eq!(failure.kind, FailureKind::ShuttingDown);
    }
    assert_eq!(rig.control.steps_of(1), 1, "the step under way was the last");
    assert_eq!(rig.control.preparations(), [1]);
    assert_eq!(rig.service.load().queued + rig.service.load().running, 0);
}

#[tokio::test]
async fn the_thread_ends_with_the_last_handle_and_ticket() {
    let rig = Rig::new(8, 1).await;
    let (control, service) = (Arc::clone(&rig.control), rig.service.clone());
    let ticket = rig.submit(draft(1, 3));
    drop(service);
    drop(rig);
    assert_eq!(ticket.finished().await.reason(), "finished", "a ticket keeps its job alive");
    // The executor holds the other end of the control; when the thread ends, it lets go.
    while Arc::strong_count(&control) > 1 {
        tokio::task::yield_now().await;
    }
}
