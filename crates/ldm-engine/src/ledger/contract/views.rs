//! Contract: what can be looked at, and what is kept.

use ldm_core::{JobId, Priority, Tenant};

use super::{Bench, SECOND, done, job, queued_at, wide};
use crate::ledger::{LedgerLimits, NewJob, Outcome, Phase, Query, Retention};

type Make = fn(LedgerLimits) -> Bench;

/// A position is the number of jobs of its model and class that come before.
pub async fn positions_count(make: Make) {
    let bench = make(wide());
    let first = bench.accept(job("a")).await;
    let second = bench.accept(job("a")).await;
    // Another tenant's first job comes before this one's second.
    let other = bench.accept(NewJob { cost_ms: 1_500, ..job("b") }).await;
    bench.accept(NewJob { model: "other".into(), ..job("c") }).await;
    bench.accept(NewJob { priority: Priority::Batch, ..job("d") }).await;
    let views = bench.ledger.get(&[second, JobId::new(), first, other]).await.unwrap();
    assert_eq!(views.len(), 3);
    assert!(queued_at(&views[0], 2) && queued_at(&views[1], 0) && queued_at(&views[2], 1), "{views:?}");
    assert_eq!((views[1].spec.as_str(), views[1].created), ("{\"of\":\"a\"}", bench.now()));
}

/// Pages show a tenant's own jobs, the newest first, and what comes or goes meanwhile shifts nothing.
pub async fn pages_are_stable(make: Make) {
    let bench = make(wide());
    let mut ids = Vec::new();
    for _ in 0..7 {
        ids.push(bench.accept(job("a")).await);
        bench.accept(job("b")).await;
    }
    let mut seen = Vec::new();
    let mut query = Query { tenant: Tenant::new("a"), before: None, phases: Vec::new(), limit: 3 };
    loop {
        let page = bench.ledger.list(&query).await.unwrap();
        seen.extend(page.jobs.iter().map(|view| view.id));
        bench.accept(job("a")).await;
        bench.ledger.cancel(ids[0]).await.unwrap();
        match page.next {
            Some(next) => query.before = Some(next),
            None => break,
        }
    }
    ids.reverse();
    assert_eq!(seen, ids);
}

/// Pages show the wanted phases alone, and go on where they stopped.
pub async fn pages_of_one_phase(make: Make) {
    let bench = make(wide());
    let node = bench.node().await;
    let mut ids = Vec::new();
    for _ in 0..9 {
        ids.push(bench.accept(job("a")).await);
    }
    bench.accept(job("b")).await;
    let failed = || Outcome::Failed { reason: "device".into(), message: String::new() };
    let fences: Vec<_> =
        bench.claim(&node, 6).await.into_iter().map(|claim| claim.fence).filter(|f| ids.contains(&f.id)).collect();
    bench.ledger.finish(&fences[0], done()).await.unwrap();
    bench.ledger.finish(&fences[1], failed()).await.unwrap();
    bench.ledger.finish(&fences[2], done()).await.unwrap();
    bench.ledger.cancel(ids[8]).await.unwrap();
    let listed = async |phases: &[Phase]| {
        let mut seen: Vec<JobId> = Vec::new();
        let mut query = Query { tenant: Tenant::new("a"), before: None, phases: phases.to_vec(), limit: 1 };
        loop {
            let page = bench.ledger.list(&query).await.unwrap();
            assert!(page.jobs.iter().all(|view| phases.is_empty() || phases.contains(&view.state.phase())));
            seen.extend(page.jobs.iter().map(|view| view.id));
            match page.next {
                Some(next) => query.before = Some(next),
                None => return seen,
            }
        }
    };
    let mut good = vec![fences[0].id, fences[2].id];
    good.sort_by_key(|id| std::cmp::Reverse(*id));
    assert_eq!(listed(&[Phase::Succeeded]).await, good);
    assert_eq!(listed(&[Phase::Failed, Phase::Canceled]).await.len(), 2);
    assert_eq!(listed(&[Phase::Canceled]).await, [ids[8]]);
    assert_eq!(listed(&[Phase::Expired]).await, []);
    assert_eq!(listed(&[Phase::Queued]).await.len() + listed(&[Phase::Running]).await.len(), 5);
    assert_eq!((listed(&Phase::ALL).await.len(), listed(&[]).await.len()), (9, 9));
}

/// The load is the sum of what was handed in.
pub async fn load_is_the_sum(make: Make) {
    let bench = make(wide());
    let node = bench.node().await;
    bench.node().await;
    for cost_ms in [1, 10, 100] {
        bench.accept(NewJob { cost_ms, ..job("a") }).await;
    }
    let batch = NewJob { cost_ms: 7, priority: Priority::Batch, ..job("a") };
    let bytes = 4 * crate::ledger::rules::live_bytes(&batch);
    bench.accept(batch).await;
    let claim = bench.claim(&node, 1).await.remove(0);
    let load = bench.ledger.load().await.unwrap();
    let lanes: Vec<_> = load.lanes.iter().map(|lane| (lane.priority, lane.queued, lane.running, lane.outstanding_ms)).collect();
    assert_eq!(lanes, [(Priority::Interactive, 2, 1, 111), (Priority::Batch, 1, 0, 7)]);
    assert_eq!((load.bytes, load.capacity, load.nodes, load.ended), (bytes, 8, 2, 0));
    bench.ledger.finish(&claim.fence, done()).await.unwrap();
    let load = bench.ledger.load().await.unwrap();
    assert_eq!((load.lanes[0].outstanding_ms, load.bytes, load.ended), (110, bytes / 4 * 3, 1));
}

/// Records of ended jobs go by age, count and bytes, the longest ended first, and free their keys and names.
pub async fn old_records_go(make: Make) {
    let bench = make(wide());
    let keep = Retention { ttl: 10 * SECOND, count: 100, bytes: u64::MAX };
    let mut ids = Vec::new();
    for i in 0..6 {
        let id = bench.accept(NewJob { name: Some(format!("n{i}")), ..job("a") }).await;
        bench.ledger.cancel(id).await.unwrap();
        bench.clock.advance(SECOND);
        ids.push(id);
    }
    let stale = async |keep: Retention| -> Vec<JobId> {
        bench.ledger.prune(&keep).await.unwrap().into_iter().map(|stale| stale.id).collect()
    };
    assert_eq!(stale(keep.clone()).await, []);
    assert_eq!(stale(Retention { count: 4, ..keep.clone() }).await, ids[..2]);
    let each = crate::ledger::rules::live_bytes(&job("a"));
    assert_eq!(stale(Retention { bytes: 3 * each, ..keep.clone() }).await, ids[..3]);
    bench.clock.advance(5 * SECOND);
    let old = stale(keep.clone()).await;
    assert_eq!(old, ids[..2]);
    assert_eq!(stale(keep.clone()).await, old, "they stay until they are forgotten");
    bench.ledger.forget(&old).await.unwrap();
    assert_eq!(stale(keep).await, []);
    assert_eq!(bench.ledger.get(&ids).await.unwrap().len(), 4);
    bench.accept(NewJob { name: Some("n0".into()), fingerprint: [9; 32], ..job("a") }).await;
}

/// Who asks for a forgotten job of theirs hears that it was there, by id and by name, for as many jobs as are remembered.
pub async fn the_departed_are_remembered(make: Make) {
    let bench = make(LedgerLimits { departed: 3, ..wide() });
    let (a, b) = (Tenant::new("a"), Tenant::new("b"));
    let departed = async |tenant: &Tenant, handle: &str| bench.ledger.departed(tenant, handle).await.unwrap();
    let mut ids = Vec::new();
    for n in 0..4 {
        let id = bench.accept(NewJob { name: Some(format!("n{n}")), ..job("a") }).await;
        bench.ledger.cancel(id).await.unwrap();
        assert!(!departed(&a, &id.to_string()).await && !departed(&a, &format!("n{n}")).await, "it is still there");
        ids.push(id);
    }
    bench.ledger.forget(&ids[..3]).await.unwrap();
    for (n, id) in ids.iter().take(3).enumerate() {
        assert!(departed(&a, &id.to_string()).await && departed(&a, &format!("n{n}")).await);
        assert!(!departed(&b, &id.to_string()).await && !departed(&b, &format!("n{n}")).await, "another tenant's");
    }
    bench.ledger.forget(&[ids[3], ids[3], JobId::new()]).await.unwrap();
    assert!(!departed(&a, &ids[0].to_string()).await && !departed(&a, "n0").await, "three are remembered");
    assert!(departed(&a, &ids[1].to_string()).await && departed(&a, "n3").await);
    assert!(!departed(&a, &JobId::new().to_string()).await && !departed(&a, "nobody").await);
}

/// A job that has not ended is neither pruned nor forgotten.
pub async fn unfinished_jobs_are_not_forgotten(make: Make) {
    let bench = make(wide());
    let (running, waiting) = (bench.accept(job("a")).await, bench.accept(job("a")).await);
    bench.claim(&bench.node().await, 1).await;
    bench.clock.advance(100 * SECOND);
    let nothing = Retention { ttl: SECOND, count: 0, bytes: 0 };
    assert_eq!(bench.ledger.prune(&nothing).await.unwrap(), []);
    bench.ledger.forget(&[running, waiting]).await.unwrap();
    assert_eq!((bench.state(running).await, bench.state(waiting).await), ("running", "queued"));
}
