//! Loading, warming up, becoming ready or not.

use std::sync::Arc;
use std::time::Duration;

use ldm_core::{Draft, Failure, FailureKind, Task};
use ldm_engine::fake::{FakeExecutor, FakeOptions};
use ldm_engine::{Limits, Readiness, Refused, Service, Silent};

#[tokio::test]
async fn loads_warms_up_and_is_ready() {
    let fake = FakeExecutor::new(FakeOptions::default());
    let control = fake.control();
    control.loading.close();
    control.steps.close();
    let service = Service::start(Limits::default(), Arc::new(Silent), fake.loader());
    control.loading.wait_blocked();
    assert_eq!(service.readiness(), Readiness::Loading);
    assert!(service.catalogue().is_none());
    let draft = || Draft::new(Task::Txt2Img).check(&FakeExecutor::catalogue_example()).unwrap();
    assert_eq!(service.submit(draft()).unwrap_err(), Refused::NotReady);
    control.loading.open();
    control.steps.wait_blocked();
    assert_eq!(service.readiness(), Readiness::WarmingUp);
    assert!(service.catalogue().is_some());
    assert_eq!(service.submit(draft()).unwrap_err(), Refused::NotReady);
    control.steps.open();
    assert_eq!(*service.wait_ready().await.unwrap(), FakeExecutor::catalogue_example());
    assert_eq!(service.readiness(), Readiness::Ready);
    assert_eq!(control.calls().len(), 1, "the warm-up takes one step");
}

#[tokio::test]
async fn a_load_that_fails_or_panics() {
    let options = FakeOptions { load_failure: Some("no such file".to_owned()), ..FakeOptions::default() };
    let failing = Service::start(Limits::default(), Arc::new(Silent), FakeExecutor::new(options).loader());
    let panicking = Service::start::<FakeExecutor, _>(Limits::default(), Arc::new(Silent), || panic!("no such {}", "file"));
    let refusing = Service::start::<FakeExecutor, _>(Limits::default(), Arc::new(Silent), || {
        Err(Failure::new(FailureKind::OutOfMemory, "no such file"))
    });
    for service in [failing, panicking, refusing] {
        assert_eq!(service.wait_ready().await, Err("no such file".to_owned()));
        assert_eq!(service.readiness(), Readiness::Failed("no such file".to_owned()));
        let request = Draft::new(Task::Txt2Img).check(&FakeExecutor::catalogue_example()).unwrap();
        assert_eq!(service.submit(request).unwrap_err(), Refused::Failed("no such file".to_owned()));
        service.drain(Duration::ZERO).await;
    }
}

#[tokio::test]
async fn shut_down_while_loading() {
    let fake = FakeExecutor::new(FakeOptions::default());
    let control = fake.control();
    control.loading.close();
    let service = Service::start(Limits::default(), Arc::new(Silent), fake.loader());
    let drain = service.drain(Duration::ZERO);
    tokio::join!(drain, async { control.loading.open() });
    assert_eq!(service.readiness(), Readiness::Draining);
    assert!(service.wait_ready().await.is_err());
    assert!(control.calls().is_empty(), "no warm-up any more");
}
