//! Contract: the end of a job that somebody wants to hear of is told until it is settled, whatever happens in between.

use ldm_core::Tenant;

use super::{Bench, SECOND, done, job, wide};
use crate::ledger::{
    Bound, Delivery, HOOK_LEASE, Hook, LEASE, LedgerLimits, MAX_CRASHES, MAX_URL, NewJob, Outcome, Phase, Submitted,
};

type Make = fn(LedgerLimits) -> Bench;

const URL: &str = "https://example.org/hook";

fn hooked(endings: &[Phase]) -> NewJob {
    NewJob { hook: Some(Hook { url: URL.into(), endings: endings.to_vec() }), ..job("a") }
}

async fn take(bench: &Bench) -> Vec<Delivery> {
    bench.ledger.take_hooks(10).await.unwrap()
}

/// An end is due from its moment on, taken for a while, due again when its teller is silent, put off, and gone once settled.
pub async fn an_end_is_told_until_it_is_settled(make: Make) {
    let bench = make(wide());
    let node = bench.node().await;
    let id = bench.accept(hooked(&Phase::ENDINGS)).await;
    let claim = bench.take(&node).await;
    assert_eq!(take(&bench).await, [], "it runs");
    bench.ledger.finish(&claim.fence, done()).await.unwrap();
    let ended = bench.now();
    assert_eq!(bench.ledger.load().await.unwrap().untold, 1);

    let first = take(&bench).await.remove(0);
    let expected = Delivery { job: id, tenant: Tenant::new("a"), url: URL.into(), phase: Phase::Succeeded, ended, attempt: 1 };
    assert_eq!(first, expected);
    assert_eq!(take(&bench).await, [], "it is taken");
    bench.clock.advance(HOOK_LEASE - SECOND);
    assert_eq!(take(&bench).await, []);
    bench.clock.advance(SECOND);
    let second = take(&bench).await.remove(0);
    assert_eq!(second, Delivery { attempt: 2, ..expected.clone() });
    assert!(!bench.ledger.settle_hook(&first, None).await.unwrap(), "somebody else has it");

    assert!(bench.ledger.settle_hook(&second, Some(bench.now().after(5 * SECOND))).await.unwrap());
    bench.clock.advance(4 * SECOND);
    assert_eq!(take(&bench).await, [], "it is put off");
    bench.clock.advance(SECOND);
    let third = take(&bench).await.remove(0);
    assert_eq!(third, Delivery { attempt: 3, ..expected });
    assert!(bench.ledger.settle_hook(&third, None).await.unwrap());
    assert!(!bench.ledger.settle_hook(&third, None).await.unwrap());
    bench.clock.advance(10 * HOOK_LEASE);
    assert_eq!((take(&bench).await, bench.ledger.load().await.unwrap().untold), (vec![], 0));
    // A second ending would be a second word.
    bench.ledger.finish(&claim.fence, done()).await.unwrap();
    bench.ledger.cancel(id).await.unwrap();
    assert_eq!(take(&bench).await, []);
}

/// However a job ends, it is told.
pub async fn every_way_of_ending_is_told(make: Make) {
    let bench = make(wide());
    let node = bench.node().await;
    let told = async |phase: Phase| {
        let taken = take(&bench).await;
        assert_eq!(taken.iter().map(|delivery| delivery.phase).collect::<Vec<_>>(), [phase]);
        assert!(bench.ledger.settle_hook(&taken[0], None).await.unwrap());
    };
    let waiting = bench.accept(hooked(&Phase::ENDINGS)).await;
    bench.ledger.cancel(waiting).await.unwrap();
    told(Phase::Canceled).await;

    let early = hooked(&Phase::ENDINGS);
    bench.ledger.cancel(early.id).await.unwrap();
    bench.accept(early).await;
    told(Phase::Canceled).await;

    bench.accept(hooked(&Phase::ENDINGS)).await;
    let failed = Outcome::Failed { reason: "device".into(), message: String::new() };
    bench.ledger.finish(&bench.take(&node).await.fence, failed).await.unwrap();
    told(Phase::Failed).await;

    for claimed in [true, false] {
        bench.accept(NewJob { deadline: Some(bench.now().after(SECOND)), ..hooked(&Phase::ENDINGS) }).await;
        bench.clock.advance(SECOND);
        if claimed {
            assert_eq!(bench.claim(&node, 1).await, [], "it is late");
        } else {
            bench.ledger.reap().await.unwrap();
        }
        told(Phase::Expired).await;
    }

    bench.accept(hooked(&Phase::ENDINGS)).await;
    for _ in 0..MAX_CRASHES {
        assert_eq!(take(&bench).await, []);
        bench.take(&bench.node().await).await;
        bench.clock.advance(LEASE);
        bench.ledger.reap().await.unwrap();
    }
    told(Phase::Failed).await;
}

/// Other ends than those that somebody asked for are told to nobody, and hold no place.
pub async fn only_wanted_ends_are_told(make: Make) {
    let bench = make(LedgerLimits { hooks: 1, ..wide() });
    let node = bench.node().await;
    let id = bench.accept(hooked(&[Phase::Succeeded, Phase::Failed])).await;
    bench.ledger.cancel(id).await.unwrap();
    assert_eq!((take(&bench).await, bench.ledger.load().await.unwrap().untold), (vec![], 0));
    bench.accept(hooked(&[Phase::Succeeded])).await;
    bench.ledger.finish(&bench.take(&node).await.fence, done()).await.unwrap();
    assert_eq!(take(&bench).await.len(), 1);
}

/// An end is told even when its record has gone by then.
pub async fn an_end_outlives_its_record(make: Make) {
    let bench = make(wide());
    let id = bench.accept(hooked(&Phase::ENDINGS)).await;
    bench.ledger.cancel(id).await.unwrap();
    bench.ledger.forget(&[id]).await.unwrap();
    assert_eq!(take(&bench).await.remove(0).job, id);
}

/// Whoever takes at the same time takes different ends.
pub async fn sixteen_tellers_tell_once(make: Make) {
    let bench = make(wide());
    for _ in 0..40 {
        let id = bench.accept(hooked(&Phase::ENDINGS)).await;
        bench.ledger.cancel(id).await.unwrap();
    }
    let tellers: Vec<_> = (0..16)
        .map(|_| {
            let ledger = bench.ledger.clone();
            tokio::spawn(async move { ledger.take_hooks(3).await.unwrap() })
        })
        .collect();
    let mut taken = Vec::new();
    for teller in tellers {
        taken.extend(teller.await.unwrap().into_iter().map(|delivery| delivery.job));
    }
    let all = taken.len();
    taken.sort_unstable();
    taken.dedup();
    assert_eq!((taken.len(), all), (40, 40));
}

/// What is to be told is bounded, and so is a URL.
pub async fn ends_to_be_told_are_bounded(make: Make) {
    let bench = make(LedgerLimits { hooks: 2, ..wide() });
    bench.accept(hooked(&Phase::ENDINGS)).await;
    let second = bench.accept(hooked(&Phase::ENDINGS)).await;
    bench.ledger.cancel(second).await.unwrap();
    let full = match bench.ledger.submit(hooked(&Phase::ENDINGS)).await.unwrap() {
        Submitted::Full(full) => full,
        other => panic!("{other:?}"),
    };
    assert_eq!((full.bound, full.limit), (Bound::Hooks, 2));
    bench.accept(job("a")).await;
    let told = take(&bench).await.remove(0);
    bench.ledger.settle_hook(&told, None).await.unwrap();
    bench.accept(hooked(&Phase::ENDINGS)).await;
    let long = Hook { url: "x".repeat(MAX_URL + 1), endings: Vec::new() };
    bench.ledger.submit(NewJob { hook: Some(long), ..job("a") }).await.unwrap_err();
}
