//! Contract: who gets which job, and in what order.

use std::collections::HashSet;
use std::time::Duration;

use ldm_core::Priority;

use super::{Bench, MODEL, SECOND, done, job, want, wide};
use crate::ledger::{Lane, LedgerError, LedgerLimits, NewJob, NodeId, NodeState, Wake, Want};

type Make = fn(LedgerLimits) -> Bench;

/// A node gets jobs of the lanes it names, not more than its credit, and none while it drains.
pub async fn lanes_and_credit(make: Make) {
    let bench = make(wide());
    let node = bench.node().await;
    for _ in 0..3 {
        bench.accept(job("a")).await;
        bench.accept(NewJob { model: "other".into(), ..job("a") }).await;
        bench.accept(NewJob { priority: Priority::Batch, ..job("a") }).await;
    }
    let lane = Lane { model: MODEL.into(), priority: Priority::Batch, hot: Vec::new() };
    let claims = bench.ledger.claim(&node, &Want { lanes: vec![lane], credit: 9 }).await.unwrap();
    assert_eq!(claims.len(), 3);
    assert!(claims.iter().all(|claim| claim.priority == Priority::Batch && claim.model == MODEL && !claim.alone));
    assert_eq!(bench.claim(&node, 0).await, []);
    assert_eq!(bench.claim(&node, 2).await.len(), 2);
    bench.ledger.beat(&node, NodeState { draining: true, ..NodeState::default() }).await.unwrap();
    assert_eq!(bench.claim(&node, 2).await, []);
}

/// A node without a lease is told to beat first.
pub async fn no_lease_no_claim(make: Make) {
    let bench = make(wide());
    let stranger = NodeId::new("stranger");
    let refused = |node: NodeId| Err(LedgerError::NoLease(node));
    assert_eq!(bench.ledger.claim(&stranger, &want(1)).await, refused(stranger.clone()));
    let node = bench.node().await;
    bench.clock.advance(crate::ledger::LEASE);
    assert_eq!(bench.ledger.claim(&node, &want(1)).await, refused(node.clone()));
}

/// Interactive jobs go first, and one claim of ten is the lower class's.
pub async fn a_share_for_the_lower_class(make: Make) {
    let bench = make(wide());
    let node = bench.node().await;
    for _ in 0..40 {
        bench.accept(NewJob { priority: Priority::Batch, ..job("a") }).await;
        bench.accept(job("b")).await;
    }
    let mut batch = 0;
    for round in 0..30 {
        let claim = bench.claim(&node, 1).await.remove(0);
        batch += u32::from(claim.priority == Priority::Batch);
        assert!(round > 0 || claim.priority == Priority::Interactive);
        bench.ledger.finish(&claim.fence, done()).await.unwrap();
    }
    assert_eq!(batch, 3);
}

/// Two tenants, one of which hands in a hundred times as much: each gets half while both wait.
pub async fn tenants_share_fairly(make: Make) {
    let bench = make(wide());
    let node = bench.node().await;
    for _ in 0..300 {
        bench.accept(job("greedy")).await;
    }
    let mut got = [0.0_f64; 2];
    let mut modest = 0;
    for _ in 0..3 {
        bench.accept(job("modest")).await;
    }
    for _ in 0..6 {
        for claim in bench.claim(&node, 1).await {
            let is_modest = claim.tenant.name() == "modest";
            modest += i32::from(is_modest);
            got[usize::from(is_modest)] += 1.0;
            bench.ledger.finish(&claim.fence, done()).await.unwrap();
        }
    }
    let jain = (got[0] + got[1]).powi(2) / (2.0 * (got[0].powi(2) + got[1].powi(2)));
    assert!(jain >= 0.95, "Jain's index is {jain}: {got:?}, {modest} of the modest one");
}

/// A tenant that was idle comes to its turn at once, and has saved up nothing.
pub async fn an_idle_tenant_saves_nothing(make: Make) {
    let bench = make(wide());
    let node = bench.node().await;
    for _ in 0..20 {
        bench.accept(job("a")).await;
    }
    for claim in bench.claim(&node, 10).await {
        bench.ledger.finish(&claim.fence, done()).await.unwrap();
    }
    for _ in 0..20 {
        bench.accept(job("b")).await;
    }
    let next = bench.claim(&node, 10).await;
    let b = next.iter().filter(|claim| claim.tenant.name() == "b").count();
    assert!((4..=6).contains(&b), "{b} of 10");
}

/// A job of a running bucket overtakes by two seconds of virtual time, not by more.
pub async fn a_hot_bucket_overtakes_a_little(make: Make) {
    let bench = make(wide());
    let node = bench.node().await;
    for bucket in ["cold", "cold", "hot", "cold", "cold", "cold", "hot"] {
        bench.accept(NewJob { bucket: bucket.into(), ..job("a") }).await;
    }
    let lane = Lane { model: MODEL.into(), priority: Priority::Interactive, hot: vec!["hot".into()] };
    let claims = bench.ledger.claim(&node, &Want { lanes: vec![lane], credit: 7 }).await.unwrap();
    let order: Vec<_> = claims.iter().map(|claim| claim.bucket.as_str()).collect();
    // Virtual times 1 to 7; those of the hot ones, 3 and 7, count as 1 and 5. Of equals the older one goes first.
    assert_eq!(order, ["cold", "hot", "cold", "cold", "cold", "hot", "cold"]);
}

/// A job is not begun before its time, and does not hold up the others.
pub async fn not_before_its_time(make: Make) {
    let bench = make(wide());
    let node = bench.node().await;
    let early = bench.accept(NewJob { not_before: Some(bench.now().after(5 * SECOND)), ..job("a") }).await;
    let other = bench.accept(job("a")).await;
    assert_eq!(bench.take(&node).await.fence.id, other);
    bench.clock.advance(5 * SECOND);
    bench.ledger.reap().await.unwrap();
    assert_eq!(bench.ledger.idle(&node, Duration::ZERO).await.unwrap(), Wake::Rung);
    assert_eq!(bench.take(&node).await.fence.id, early);
}

/// Sixteen claimers at once: every job has one holder.
pub async fn sixteen_claimers_claim_once(make: Make) {
    let bench = make(wide());
    for _ in 0..200 {
        bench.accept(job("a")).await;
    }
    let mut claimers = Vec::new();
    for _ in 0..16 {
        let (node, ledger) = (bench.node().await, bench.ledger.clone());
        claimers.push(tokio::spawn(async move {
            let mut mine = Vec::new();
            loop {
                let claims = ledger.claim(&node, &want(3)).await.unwrap();
                if claims.is_empty() {
                    return mine;
                }
                mine.extend(claims.into_iter().map(|claim| claim.fence.id));
            }
        }));
    }
    let mut all = Vec::new();
    for claimer in claimers {
        all.extend(claimer.await.unwrap());
    }
    assert_eq!(all.len(), 200);
    assert_eq!(all.into_iter().collect::<HashSet<_>>().len(), 200);
}

/// A job whose deadline has passed is not begun: the claim or the reaper ends it.
pub async fn late_jobs_expire(make: Make) {
    let bench = make(wide());
    let node = bench.node().await;
    let due = |seconds: u32| NewJob { deadline: Some(bench.now().after(seconds * SECOND)), ..job("a") };
    let (first, second, third) = (due(1), due(2), due(20));
    let first = bench.accept(first).await;
    bench.clock.advance(SECOND);
    assert_eq!(bench.claim(&node, 1).await, []);
    assert_eq!(bench.state(first).await, "expired");
    let (second, third) = (bench.accept(second).await, bench.accept(third).await);
    bench.clock.advance(SECOND);
    assert_eq!(bench.ledger.reap().await.unwrap().expired, 1);
    assert_eq!((bench.state(second).await, bench.state(third).await), ("expired", "queued"));
    assert_eq!(bench.take(&node).await.fence.id, third);
}

/// A job that comes between an empty claim and the wait rings; without one nothing does.
pub async fn the_doorbell_is_never_lost(make: Make) {
    let bench = make(wide());
    let node = bench.node().await;
    assert_eq!(bench.claim(&node, 1).await, []);
    assert_eq!(bench.ledger.idle(&node, Duration::from_millis(20)).await.unwrap(), Wake::TimedOut);
    bench.accept(job("a")).await;
    assert_eq!(bench.ledger.idle(&node, 60 * SECOND).await.unwrap(), Wake::Rung);
    bench.take(&node).await;
    let (ledger, waiter) = (bench.ledger.clone(), node.clone());
    let waiting = tokio::spawn(async move { ledger.idle(&waiter, 60 * SECOND).await.unwrap() });
    tokio::task::yield_now().await;
    bench.accept(job("a")).await;
    assert_eq!(waiting.await.unwrap(), Wake::Rung);
}
