//! What a ticket tells: positions, steps, previews, one ending.

use ldm_core::{Draft, Event, Progress};

use crate::rig::{Rig, draft, progress, prompted};

#[tokio::test]
async fn positions_follow_the_queue() {
    let rig = Rig::new(8, 1).await;
    rig.control.steps.close();
    let first = rig.submit(draft(1, 3));
    rig.control.steps.wait_blocked();
    let (second, mut third, mut fourth) = (rig.submit(draft(2, 1)), rig.submit(draft(3, 1)), rig.submit(draft(4, 1)));
    assert_eq!(progress(&mut third).await, Progress::Queued { position: 1 });
    assert_eq!(progress(&mut fourth).await, Progress::Queued { position: 2 });
    drop(second);
    rig.control.steps.allow(1);
    assert_eq!(progress(&mut third).await, Progress::Queued { position: 0 });
    assert_eq!(progress(&mut fourth).await, Progress::Queued { position: 1 });
    drop(first);
    rig.control.steps.allow(1);
    assert_eq!(progress(&mut fourth).await, Progress::Queued { position: 0 });
    rig.control.steps.open();
    assert_eq!(third.finished().await.reason(), "finished");
    assert_eq!(fourth.finished().await.reason(), "finished");
}

#[tokio::test]
async fn steps_one_by_one() {
    let rig = Rig::new(8, 1).await;
    rig.control.steps.close();
    rig.control.decoding.close();
    let mut ticket = rig.submit(draft(1, 2));
    rig.control.steps.wait_blocked();
    assert_eq!(progress(&mut ticket).await, Progress::Preparing);
    rig.control.steps.allow(1);
    assert_eq!(progress(&mut ticket).await, Progress::Step { step: 1, steps: 2, preview: None });
    rig.control.steps.allow(1);
    rig.control.decoding.wait_blocked();
    assert_eq!(progress(&mut ticket).await, Progress::Decoding, "the latest wins");
    rig.control.decoding.open();
    assert!(matches!(ticket.next().await, Some(Event::Ended(_))));
    assert!(ticket.next().await.is_none());
    assert!(ticket.next().await.is_none());
}

#[tokio::test]
async fn previews_every_so_many_steps() {
    let rig = Rig::new(8, 1).await;
    rig.control.steps.close();
    rig.control.decoding.close();
    let mut ticket = rig.submit(Draft { preview_every: Some(2), ..draft(1, 4) });
    rig.control.steps.wait_blocked();
    assert_eq!(progress(&mut ticket).await, Progress::Preparing);
    let mut previews = Vec::new();
    for expected in 1..=3 {
        rig.control.steps.allow(1);
        let Progress::Step { step, steps, preview } = progress(&mut ticket).await else { panic!("not a step") };
        assert_eq!((step, steps), (expected, 4));
        previews.push(preview.as_ref().map(|preview| (preview.step, preview.image.width())));
    }
    assert_eq!(previews, [None, Some((2, 8)), Some((2, 8))], "the newest stays; the last step has the picture itself");
    rig.control.steps.open();
    rig.control.decoding.open();
    assert_eq!(ticket.finished().await.reason(), "finished");
}

#[tokio::test]
async fn a_step_evaluated_twice_is_previewed_once() {
    let rig = Rig::new(8, 1).await;
    let ticket = rig.submit(Draft { preview_every: Some(1), sampler: Some("heun".to_owned()), ..draft(1, 3) });
    assert_eq!(ticket.finished().await.reason(), "finished");
    assert_eq!(rig.control.steps_of(1), 6);
    assert_eq!(rig.control.previews(), [1, 1]);
}

#[tokio::test]
async fn a_failed_preview_is_no_failure() {
    for deed in ["!fail@preview", "!panic@preview"] {
        let rig = Rig::new(8, 1).await;
        let ticket = rig.submit(Draft { preview_every: Some(1), ..prompted(1, 3, deed) });
        assert_eq!(ticket.finished().await.reason(), "finished", "{deed}");
    }
}

#[tokio::test]
async fn an_event_is_not_lost_with_the_call_that_waited_for_it() {
    let rig = Rig::new(8, 1).await;
    rig.control.steps.close();
    let mut ticket = rig.submit(draft(1, 1));
    rig.control.steps.wait_blocked();
    assert_eq!(progress(&mut ticket).await, Progress::Preparing);
    tokio::select! {
        biased;
        event = ticket.next() => panic!("nothing was to be told, got {event:?}"),
        () = std::future::ready(()) => {}
    }
    rig.control.steps.open();
    let mut endings = 0;
    while let Some(event) = ticket.next().await {
        endings += usize::from(matches!(event, Event::Ended(_)));
    }
    assert_eq!(endings, 1);
}
