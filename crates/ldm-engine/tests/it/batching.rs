//! Jobs share network calls, join and leave at step boundaries.

use ldm_core::{Draft, Ending, Raster, Task};
use ldm_engine::Limits;
use ldm_engine::fake::{FakeExecutor, FakeOptions};

use crate::rig::{Rig, draft};

#[tokio::test]
async fn two_jobs_with_different_steps_share_calls() {
    let rig = Rig::new(8, 4).await;
    rig.control.steps.close();
    let long = rig.submit(draft(1, 4));
    rig.control.steps.wait_blocked();
    let short = rig.submit(draft(2, 2));
    rig.control.steps.open();
    assert_eq!(short.finished().await.reason(), "finished");
    assert_eq!(long.finished().await.reason(), "finished");
    assert_eq!(rig.seeds(), [vec![1], vec![1, 2], vec![1, 2], vec![1]]);
    assert_eq!(rig.tally.batches(), [(1, 1), (2, 2), (2, 2), (1, 1)]);
}

#[tokio::test]
async fn task_sampler_and_guidance_do_not_separate_jobs() {
    let rig = Rig::new(8, 4).await;
    rig.control.steps.close();
    let plain = rig.submit(draft(1, 10));
    rig.control.steps.wait_blocked();
    let img2img = Draft {
        task: Task::Img2Img,
        init_image: Some(Raster::filled(64, 64, [9; 3])),
        strength: Some(0.5),
        guidance: Some(7.5),
        sampler: Some("heun".to_owned()),
        ..draft(2, 4)
    };
    let edited = rig.submit(img2img);
    rig.control.steps.open();
    assert_eq!(edited.finished().await.reason(), "finished");
    assert_eq!(plain.finished().await.reason(), "finished");
    assert_eq!(rig.control.steps_of(2), 4, "half of four steps, twice evaluated");
    assert!(rig.control.calls().iter().any(|call| call.seeds == [1, 2] && call.rows == 3));
}

#[tokio::test]
async fn sizes_separate_jobs() {
    let rig = Rig::new(8, 4).await;
    rig.control.steps.close();
    let small = rig.submit(draft(1, 3));
    rig.control.steps.wait_blocked();
    let large = rig.submit(Draft { width: Some(128), ..draft(2, 2) });
    rig.control.steps.open();
    assert_eq!(large.finished().await.reason(), "finished");
    assert_eq!(small.finished().await.reason(), "finished");
    assert!(rig.seeds().iter().all(|seeds| seeds.len() == 1), "{:?}", rig.seeds());
    assert_eq!((rig.control.steps_of(1), rig.control.steps_of(2)), (3, 2));
}

#[tokio::test]
async fn the_row_cap_is_kept() {
    let options = FakeOptions::default();
    let rig = Rig::with(Limits { queue: 8, running: 8, rows: 3, ..Limits::default() }, options).await;
    let guided = Draft { guidance: Some(7.5), images: Some(4), ..draft(1, 5) };
    let tickets = rig.service.submit(rig.requests(guided)).unwrap();
    let single = rig.submit(draft(9, 5));
    for ticket in tickets {
        assert_eq!(ticket.finished().await.reason(), "finished");
    }
    assert_eq!(single.finished().await.reason(), "finished");
    let calls = rig.control.calls();
    assert!(calls.iter().all(|call| call.rows <= 3), "{calls:?}");
    assert!((1..=4).chain([9]).all(|seed| rig.control.steps_of(seed) == 5));
}

#[tokio::test]
async fn no_more_run_than_may() {
    let rig = Rig::new(8, 2).await;
    rig.control.steps.close();
    let first = rig.submit(draft(1, 5));
    rig.control.steps.wait_blocked();
    let others: Vec<_> = (2..5).map(|seed| rig.submit(draft(seed, 2))).collect();
    assert_eq!(rig.service.load().running, 1);
    assert_eq!(rig.service.load().queued, 3);
    rig.control.steps.open();
    assert_eq!(first.finished().await.reason(), "finished");
    for other in others {
        assert_eq!(other.finished().await.reason(), "finished");
    }
    assert!(rig.seeds().iter().all(|seeds| seeds.len() <= 2));
    assert_eq!(rig.control.preparations(), [1, 2, 3, 4], "first come, first started");
}

#[tokio::test]
async fn a_seed_gives_its_picture_with_timings() {
    let rig = Rig::new(2, 2).await;
    let ticket = rig.submit(draft(5, 3));
    let request = ticket.request().clone();
    let Ending::Finished(output) = ticket.finished().await else { panic!("not finished") };
    assert_eq!(output.image, FakeExecutor::picture(5, 64, 64));
    assert_eq!(output.request, request);
    assert!(output.timings.total() > std::time::Duration::ZERO);
    assert_eq!(rig.tally.stages(), ["queue", "prepare", "step", "step", "step", "decode"]);
    assert_eq!(rig.tally.ended(), [("finished", 1)].into());
}
