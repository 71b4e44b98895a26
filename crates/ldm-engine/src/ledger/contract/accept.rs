//! Contract: what is accepted, what is the same, what is too much.

use std::time::Duration;

use ldm_core::{JobId, Tenant};

use super::{Bench, SECOND, job, wide};
use crate::ledger::{Bound, LedgerError, LedgerLimits, MAX_SPEC, NewJob, Submitted, TOMBSTONE};

type Make = fn(LedgerLimits) -> Bench;

/// The same key with the same body is the same job, with another body a conflict; other tenants' keys are others.
pub async fn same_key_is_one_job(make: Make) {
    let bench = make(wide());
    let keyed = |tenant: &str, fingerprint| NewJob { key: Some("k".into()), fingerprint, ..job(tenant) };
    let id = bench.accept(keyed("a", [1; 32])).await;
    let again = bench.ledger.submit(keyed("a", [1; 32])).await.unwrap();
    assert!(matches!(again, Submitted::Existing(view) if view.id == id));
    assert_eq!(bench.ledger.submit(keyed("a", [2; 32])).await.unwrap(), Submitted::Conflict(id));
    assert_ne!(bench.accept(keyed("b", [2; 32])).await, id);
}

/// Handing the same job in twice, as after an answer that was lost, accepts it once.
pub async fn same_id_is_one_job(make: Make) {
    let bench = make(wide());
    let one = job("a");
    let id = bench.accept(one.clone()).await;
    assert!(matches!(bench.ledger.submit(one.clone()).await.unwrap(), Submitted::Existing(view) if view.id == id));
    let other = NewJob { tenant: Tenant::new("b"), ..one };
    assert_eq!(bench.ledger.submit(other).await.unwrap(), Submitted::Conflict(id));
}

/// Fifty callers with one key: one job.
pub async fn fifty_racers_are_one_job(make: Make) {
    let bench = make(wide());
    let racers: Vec<_> = (0..50)
        .map(|_| {
            let ledger = bench.ledger.clone();
            tokio::spawn(async move { ledger.submit(NewJob { key: Some("k".into()), ..job("a") }).await.unwrap() })
        })
        .collect();
    let mut ids = Vec::new();
    let mut fresh = 0;
    for racer in racers {
        match racer.await.unwrap() {
            Submitted::New(view) => (fresh, _) = (fresh + 1, ids.push(view.id)),
            Submitted::Existing(view) => ids.push(view.id),
            other => panic!("{other:?}"),
        }
    }
    ids.dedup();
    assert_eq!((fresh, ids.len()), (1, 1));
}

/// A tenant finds its job by the name that it gave.
pub async fn names_are_found_again(make: Make) {
    let bench = make(wide());
    let id = bench.accept(NewJob { name: Some("cat".into()), ..job("a") }).await;
    let named = |tenant| {
        let tenant = Tenant::new(tenant);
        let ledger = &bench.ledger;
        async move { ledger.named(&tenant, "cat").await.unwrap() }
    };
    assert_eq!(named("a").await.map(|view| (view.id, view.name)), Some((id, Some("cat".into()))));
    assert_eq!(named("b").await, None);
    let other = NewJob { name: Some("cat".into()), fingerprint: [9; 32], ..job("a") };
    assert_eq!(bench.ledger.submit(other).await.unwrap(), Submitted::Conflict(id));
}

/// A place is free again when a job has ended.
pub async fn bounds_are_answers(make: Make) {
    let bench = make(LedgerLimits { jobs: 2, ..wide() });
    let first = bench.accept(job("a")).await;
    bench.accept(job("b")).await;
    assert!(matches!(bench.ledger.submit(job("c")).await.unwrap(), Submitted::Full(_)));
    bench.ledger.cancel(first).await.unwrap();
    bench.accept(job("c")).await;
}

/// The answer says which bound was reached, and when to come again.
pub async fn a_full_ledger_says_which_bound(make: Make) {
    let one = rule_bytes();
    let cases = [
        (LedgerLimits { jobs: 1, ..wide() }, Bound::Jobs, 1),
        (LedgerLimits { tenant_jobs: 1, ..wide() }, Bound::TenantJobs, 1),
        (LedgerLimits { bytes: one + 1, ..wide() }, Bound::Bytes, one + 1),
        (LedgerLimits { records: 1, ..wide() }, Bound::Records, 1),
    ];
    for (limits, bound, limit) in cases {
        let bench = make(limits);
        bench.node().await;
        bench.accept(NewJob { cost_ms: 40_000, ..job("a") }).await;
        let Submitted::Full(full) = bench.ledger.submit(job("a")).await.unwrap() else { panic!("not full: {bound:?}") };
        // One job of 40 s on a node that runs four at once.
        assert_eq!((full.bound, full.limit, full.retry_after), (bound, limit, Duration::from_secs(10)));
    }
}

fn rule_bytes() -> u64 {
    crate::ledger::rules::live_bytes(&job("a"))
}

/// What is out of bounds is refused, by name.
pub async fn what_is_too_large_is_named(make: Make) {
    let bench = make(wide());
    let field = |outcome| match outcome {
        Err(LedgerError::Invalid { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(bench.ledger.submit(NewJob { spec: "x".repeat(MAX_SPEC + 1), ..job("a") }).await), "spec");
    assert_eq!(field(bench.ledger.submit(NewJob { name: Some("x".repeat(257)), ..job("a") }).await), "name");
    bench.accept(NewJob { spec: "x".repeat(MAX_SPEC), ..job("a") }).await;
}

/// A job that was canceled before it came ends canceled, but not long after.
pub async fn canceled_before_it_came(make: Make) {
    let bench = make(wide());
    let (soon, late) = (job("a"), job("a"));
    for id in [soon.id, late.id, JobId::new()] {
        assert_eq!(bench.ledger.cancel(id).await.unwrap(), None);
    }
    let id = bench.accept(soon).await;
    assert_eq!(bench.state(id).await, "canceled");
    bench.clock.advance(TOMBSTONE + SECOND);
    let id = bench.accept(late).await;
    assert_eq!(bench.state(id).await, "queued");
}
