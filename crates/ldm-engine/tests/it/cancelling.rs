//! Letting go of a ticket cancels the job, by the next step.

use ldm_core::{Ending, Event};

use crate::rig::{Rig, draft};

#[tokio::test]
async fn dropped_while_running() {
    let rig = Rig::new(2, 2).await;
    rig.control.steps.close();
    let ticket = rig.submit(draft(1, 10));
    rig.control.steps.wait_blocked();
    drop(ticket);
    assert_eq!(rig.service.load().running, 1, "a step is not interrupted");
    rig.control.steps.allow(1);
    rig.tally.load_is(0, 0).await;
    assert_eq!(rig.control.steps_of(1), 1);
    rig.control.steps.open();
    // The next job is alone in its calls.
    assert_eq!(rig.submit(draft(2, 1)).finished().await.reason(), "finished");
    assert_eq!(rig.seeds(), [[1], [2]]);
    assert_eq!(rig.tally.ended(), [("cancelled", 1), ("finished", 1)].into());
}

#[tokio::test]
async fn dropped_while_queued() {
    let rig = Rig::new(2, 1).await;
    rig.control.steps.close();
    let running = rig.submit(draft(1, 3));
    rig.control.steps.wait_blocked();
    let queued = rig.submit(draft(2, 3));
    drop(queued);
    rig.control.steps.allow(1);
    rig.tally.load_is(0, 1).await;
    rig.control.steps.open();
    assert_eq!(running.finished().await.reason(), "finished");
    assert_eq!(rig.control.preparations(), [1], "a cancelled job is never prepared");
}

#[tokio::test]
async fn told_to_stop() {
    let rig = Rig::new(2, 1).await;
    rig.control.steps.close();
    let mut ticket = rig.submit(draft(1, 10));
    rig.control.steps.wait_blocked();
    ticket.cancel();
    ticket.cancel();
    rig.control.steps.open();
    let ending = loop {
        match ticket.next().await {
            Some(Event::Ended(ending)) => break ending,
            Some(Event::Progress(_)) => {}
            None => panic!("no ending"),
        }
    };
    assert!(matches!(ending, Ending::Cancelled));
    assert!(ticket.next().await.is_none());
    ticket.cancel();
    assert_eq!(rig.control.steps_of(1), 1);
}

#[tokio::test]
async fn cancelled_between_the_last_step_and_the_picture() {
    let rig = Rig::new(2, 2).await;
    rig.control.steps.close();
    let ticket = rig.submit(draft(1, 1));
    rig.control.steps.wait_blocked();
    ticket.cancel();
    rig.control.steps.open();
    assert!(matches!(ticket.finished().await, Ending::Cancelled));
    assert!(!rig.tally.stages().contains(&"decode"));
}
