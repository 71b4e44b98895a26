//! Several models under a bound of memory: loaded when asked for, evicted when others are, changed while serving.

use std::sync::Arc;

use ldm_core::{Draft, FailureKind};
use ldm_engine::fake::FakeOptions;
use ldm_engine::{Limits, ModelChange};

use crate::rig::{Rig, draft};

fn of(model: &str, seed: i64) -> Draft {
    Draft { model: Some(model.to_owned()), ..draft(seed, 3) }
}

async fn three(memory: u64) -> Rig {
    let models = vec![("a".to_owned(), true), ("b".to_owned(), false), ("c".to_owned(), false)];
    let limits = Limits { model_memory: memory, queue: 64, running: 8, ..Limits::default() };
    Rig::with(limits, FakeOptions { models, ..FakeOptions::default() }).await
}

fn loaded(rig: &Rig) -> Vec<String> {
    let residents = rig.service.workers().remove(0).residents;
    residents.into_iter().filter(|resident| resident.loaded).map(|resident| resident.id).collect()
}

#[tokio::test]
async fn a_model_is_loaded_when_it_is_asked_for_and_the_least_used_leaves() {
    let rig = three(200).await;
    assert_eq!(rig.submit(of("b", 1)).finished().await.reason(), "finished");
    assert_eq!(loaded(&rig), ["a", "b"]);
    assert_eq!(rig.submit(of("a", 2)).finished().await.reason(), "finished");
    assert_eq!(rig.submit(of("c", 3)).finished().await.reason(), "finished");
    assert_eq!(loaded(&rig), ["a", "c"]);
    assert_eq!(rig.control.models(), ["+b", "-b", "+c"]);
    assert!(rig.tally.incidents().contains(&"Evicted(\"b\")".to_owned()));
}

#[tokio::test]
async fn three_models_share_the_memory_of_one() {
    let rig = three(100).await;
    let tickets: Vec<_> = (0..12).map(|seed| rig.submit(of(["a", "b", "c"][seed as usize % 3], seed))).collect();
    for ticket in tickets {
        assert_eq!(ticket.finished().await.reason(), "finished");
    }
    assert!(rig.control.models().len() <= 8, "jobs of one model run together: {:?}", rig.control.models());
    assert_eq!(loaded(&rig).len(), 1);
}

#[tokio::test]
async fn a_stream_of_jobs_of_one_model_does_not_lock_another_out() {
    let rig = three(100).await;
    let mut stream: Vec<_> = (0..4).map(|seed| rig.submit(of("a", seed))).collect();
    let other = rig.submit(of("b", 100));
    let done = other.finished();
    tokio::pin!(done);
    let mut seed = 4;
    let reason = loop {
        tokio::select! {
            ending = &mut done => break ending.reason(),
            ending = stream.remove(0).finished() => {
                assert_eq!(ending.reason(), "finished");
                stream.push(rig.submit(of("a", seed)));
                seed += 1;
            }
        }
    };
    assert_eq!(reason, "finished");
}

#[tokio::test]
async fn models_are_added_removed_and_reloaded_while_serving() {
    let rig = three(300).await;
    rig.control.steps.close();
    let running = rig.submit(of("a", 1));
    rig.control.steps.wait_blocked();
    let added = rig.service.change_models(ModelChange::Put(Arc::new("d".to_owned())));
    tokio::pin!(added);
    // It is made between two steps.
    assert!(futures_now(&mut added).is_none());
    rig.control.steps.open();
    added.await.unwrap();
    assert_eq!(running.finished().await.reason(), "finished");
    let catalogue = rig.service.catalogue().unwrap();
    assert_eq!(catalogue.models.iter().map(|model| model.id.as_str()).collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    let request = of("d", 2).check(&catalogue).unwrap();
    assert_eq!(rig.service.submit(request).unwrap().remove(0).finished().await.reason(), "finished");
    rig.service.change_models(ModelChange::Remove("d".to_owned())).await.unwrap();
    let refused = rig.service.submit(of("d", 3).check(&catalogue).unwrap()).unwrap_err();
    assert!(refused.to_string().contains("\"d\" is not served"), "{refused}");
    let wrong = rig.service.change_models(ModelChange::Put(Arc::new(7))).await.unwrap_err();
    assert_eq!(wrong.kind, FailureKind::Unsupported);
}

/// The future's value if it is there already.
fn futures_now<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::Pin::new(future).poll(&mut context) {
        std::task::Poll::Ready(value) => Some(value),
        std::task::Poll::Pending => None,
    }
}
