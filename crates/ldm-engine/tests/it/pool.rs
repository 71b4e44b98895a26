//! Several devices: jobs go where they are ready first, and elsewhere when their device is lost.

use std::sync::Arc;
use std::time::Duration;

use ldm_core::{Catalogue, Ending, FailureKind};
use ldm_engine::fake::{FakeControl, FakeExecutor, FakeOptions};
use ldm_engine::{Limits, Monitor, Readiness, Service, Ticket, Worker};

use crate::rig::{Tally, draft, prompted};

struct Two {
    service: Service,
    controls: [Arc<FakeControl>; 2],
    tally: Arc<Tally>,
    catalogue: Arc<Catalogue>,
}

impl Two {
    async fn new(options: [FakeOptions; 2], restarts: u32) -> Self {
        let tally = Arc::new(Tally::default());
        let fakes = options.map(FakeExecutor::new);
        let controls = [fakes[0].control(), fakes[1].control()];
        let mut names = ["one", "two"].into_iter();
        let workers = fakes.map(|fake| Worker::new(names.next().unwrap(), fake.maker()).restarts(restarts));
        let service = Service::pool(Limits::default(), Arc::clone(&tally) as Arc<dyn Monitor>, workers.into());
        let catalogue = service.wait_ready().await.unwrap();
        while service.workers().iter().any(|worker| worker.readiness != Readiness::Ready) {
            tokio::task::yield_now().await;
        }
        controls.iter().for_each(|control| control.clear());
        Self { service, controls, tally, catalogue }
    }

    fn submit(&self, seed: i64, prompt: &str) -> Ticket {
        self.service.submit(prompted(seed, 5, prompt).check(&self.catalogue).unwrap()).unwrap().remove(0)
    }
}

impl Drop for Two {
    fn drop(&mut self) {
        self.controls.iter().for_each(|control| control.steps.open());
    }
}

fn slow() -> FakeOptions {
    FakeOptions { step: Duration::from_millis(2), ..FakeOptions::default() }
}

#[tokio::test]
async fn both_work() {
    let two = Two::new([slow(), slow()], 0).await;
    let tickets: Vec<_> = (1..9).map(|seed| two.submit(seed, "")).collect();
    for ticket in tickets {
        assert_eq!(ticket.finished().await.reason(), "finished");
    }
    let done: Vec<usize> = two.controls.iter().map(|control| control.preparations().len()).collect();
    assert_eq!(done.iter().sum::<usize>(), 8);
    assert!(done.iter().all(|&done| done >= 2), "{done:?}");
}

#[tokio::test]
async fn the_jobs_of_a_lost_device_end_on_another() {
    let broken = FakeOptions { probe_fails: true, ..slow() };
    let two = Two::new([broken, slow()], 0).await;
    // Enough of them that the one that breaks for good has some.
    let breaks = |seed: i64| (3..7).contains(&seed);
    two.controls.iter().for_each(|control| control.steps.close());
    let tickets: Vec<_> = (1..9).map(|seed| two.submit(seed, if breaks(seed) { "!device@2" } else { "" })).collect();
    two.controls.iter().for_each(|control| control.steps.open());
    for ticket in tickets {
        let seed = ticket.request().seed;
        match ticket.finished().await {
            Ending::Finished(output) => assert_eq!(output.image, FakeExecutor::picture(seed, 64, 64)),
            // Its prompt breaks whatever device it is on.
            Ending::Failed(failure) if breaks(seed as i64) => assert_eq!(failure.kind, FailureKind::Device),
            other => panic!("job {seed}: {}", other.reason()),
        }
    }
    assert_eq!(two.service.readiness(), Readiness::Ready, "one device is enough");
    let retired = |worker: &ldm_engine::WorkerStatus| matches!(worker.readiness, Readiness::Failed(_));
    assert_eq!(two.service.workers().iter().map(retired).collect::<Vec<_>>(), [true, false]);
    two.service.drain(Duration::MAX).await;
    assert_eq!(two.tally.ended().values().sum::<usize>(), 8);
}

#[tokio::test]
async fn a_lost_device_comes_back_and_takes_the_jobs_that_waited() {
    let fake = FakeExecutor::new(FakeOptions { probe_fails: true, ..slow() });
    let (control, tally) = (fake.control(), Arc::new(Tally::default()));
    let worker = Worker::new("one", fake.maker());
    let service = Service::pool(Limits::default(), Arc::clone(&tally) as Arc<dyn Monitor>, vec![worker]);
    let catalogue = service.wait_ready().await.unwrap();
    control.steps.close();
    let bad = service.submit(prompted(1, 5, "!device@1").check(&catalogue).unwrap()).unwrap().remove(0);
    control.steps.wait_blocked();
    let good = service.submit(draft(2, 5).check(&catalogue).unwrap()).unwrap().remove(0);
    let unwanted = service.submit(draft(3, 5).check(&catalogue).unwrap()).unwrap().remove(0);
    unwanted.cancel();
    control.steps.open();
    assert_eq!(good.finished().await.reason(), "finished");
    assert_eq!(unwanted.finished().await.reason(), "cancelled");
    assert!(matches!(bad.finished().await, Ending::Failed(failure) if failure.kind == FailureKind::Device));
    assert!(tally.incidents().contains(&"Restarted(\"one\")".to_owned()), "{:?}", tally.incidents());
}

/// One device that is broken after every fault, and begins again so often.
fn weak(limits: Limits, restarts: u32) -> (Service, Arc<FakeControl>, Arc<Tally>) {
    let fake = FakeExecutor::new(FakeOptions { probe_fails: true, ..FakeOptions::default() });
    let (control, tally) = (fake.control(), Arc::new(Tally::default()));
    let worker = Worker::new("one", fake.maker()).restarts(restarts);
    (Service::pool(limits, Arc::clone(&tally) as Arc<dyn Monitor>, vec![worker]), control, tally)
}

#[tokio::test]
async fn the_jobs_of_a_lost_device_go_on_from_their_last_checkpoint() {
    let (service, control, tally) = weak(Limits { checkpoint_every: Duration::ZERO, ..Limits::default() }, 1);
    let catalogue = service.wait_ready().await.unwrap();
    control.clear();
    control.steps.close();
    let good = service.submit(draft(1, 10).check(&catalogue).unwrap()).unwrap().remove(0);
    control.steps.wait_blocked();
    control.steps.allow(6);
    control.steps.wait_blocked();
    let bad = service.submit(prompted(2, 10, "!panic@prepare").check(&catalogue).unwrap()).unwrap().remove(0);
    control.steps.open();
    assert!(matches!(good.finished().await, Ending::Finished(output) if output.image == FakeExecutor::picture(1, 64, 64)));
    assert!(matches!(bad.finished().await, Ending::Failed(failure) if failure.kind == FailureKind::Panicked));
    assert!(tally.incidents().contains(&"Retired(\"one\")".to_owned()), "{:?}", tally.incidents());
    assert_eq!(control.preparations().iter().filter(|seed| **seed == 1).count(), 2, "it was taken up once");
    assert_eq!(control.steps_of(1), 10, "no step was made twice");
}

#[tokio::test]
async fn a_device_that_breaks_again_and_again_is_given_up() {
    let (service, control, tally) = weak(Limits::default(), 1);
    let catalogue = service.wait_ready().await.unwrap();
    control.steps.close();
    let tickets: Vec<_> = (1..4).map(|seed| prompted(seed, 5, "!device@1").check(&catalogue).unwrap()).collect();
    let tickets: Vec<_> = tickets.into_iter().map(|requests| service.submit(requests).unwrap().remove(0)).collect();
    control.steps.open();
    for ticket in tickets {
        assert!(matches!(ticket.finished().await, Ending::Failed(failure) if failure.kind == FailureKind::Device));
    }
    service.ended().await;
    assert!(matches!(service.readiness(), Readiness::Failed(_)));
    assert_eq!(tally.incidents().iter().filter(|incident| *incident == "Retired(\"one\")").count(), 2);
    assert_eq!(tally.incidents().iter().filter(|incident| *incident == "Restarted(\"one\")").count(), 1);
}

#[tokio::test]
async fn a_device_that_never_comes_back_leaves_nobody_waiting() {
    let broken = FakeOptions { probe_fails: true, ..slow() };
    let two = Two::new([broken.clone(), broken], 0).await;
    two.controls.iter().for_each(|control| control.steps.close());
    let tickets: Vec<_> = (1..7).map(|seed| two.submit(seed, "!device@1")).collect();
    two.controls.iter().for_each(|control| control.steps.open());
    for ticket in tickets {
        assert!(matches!(ticket.finished().await, Ending::Failed(failure) if failure.kind == FailureKind::Device));
    }
    two.service.ended().await;
    assert!(matches!(two.service.readiness(), Readiness::Failed(_)));
    assert_eq!(two.service.load().queued + two.service.load().running, 0);
}
