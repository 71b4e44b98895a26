//! Contract: what follows when a node dies, goes, or was not heard.

use super::{Bench, done, job, queued_at, wide};
use crate::ledger::{Claim, Finish, JobState, LEASE, LedgerLimits, Outcome, Reaped, Release, WORKER_LOST};

type Make = fn(LedgerLimits) -> Bench;

/// A job whose holder died waits again, at its old place, with one crash more and the next epoch.
pub async fn a_lost_lease_keeps_the_place(make: Make) {
    let bench = make(wide());
    let (first, second) = (bench.accept(job("a")).await, bench.accept(job("a")).await);
    let claim = bench.claim(&bench.node().await, 1).await.remove(0);
    assert_eq!(claim.fence.id, first);
    assert_eq!(bench.ledger.reap().await.unwrap(), Reaped::default());
    assert_eq!(bench.lose_all().await, Reaped { requeued: 1, ..Reaped::default() });
    assert_eq!(bench.lose_all().await, Reaped::default());
    let view = bench.view(first).await;
    assert!(queued_at(&view, 0) && queued_at(&bench.view(second).await, 1));
    assert_eq!((view.crashes, view.epoch), (1, claim.fence.epoch + 1));
}

/// A node that comes again under its name is another one: it does not keep its dead self's jobs alive.
pub async fn a_restarted_node_is_another(make: Make) {
    let bench = make(wide());
    let id = bench.accept(job("a")).await;
    bench.take(&bench.node().await).await;
    bench.clock.advance(LEASE / 2);
    let again = bench.node().await;
    bench.clock.advance(LEASE / 2);
    assert_eq!(bench.ledger.reap().await.unwrap().requeued, 1);
    // The dead self's row is gone now; what it held is not hidden by that.
    assert_eq!(bench.take(&again).await.fence.id, id);
}

/// A lease that has ended and was not reaped is renewed: an outage of the ledger starts no storm.
pub async fn a_late_beat_revives(make: Make) {
    let bench = make(wide());
    bench.accept(job("a")).await;
    let node = bench.node().await;
    let claim = bench.take(&node).await;
    bench.clock.advance(3 * LEASE);
    assert_eq!(bench.beat(&node, std::slice::from_ref(&claim)).await, []);
    assert_eq!(bench.ledger.reap().await.unwrap(), Reaped::default());
    assert_eq!(bench.ledger.finish(&claim.fence, done()).await.unwrap(), Finish::Recorded);
}

/// After a crash a job runs alone: nothing else is given to the node that has it.
pub async fn the_second_try_runs_alone(make: Make) {
    let bench = make(wide());
    let poison = bench.accept(job("a")).await;
    bench.take(&bench.node().await).await;
    bench.lose_all().await;
    for _ in 0..3 {
        bench.accept(job("b")).await;
    }
    let node = bench.node().await;
    let claims = bench.claim(&node, 4).await;
    assert_eq!(claims.len(), 1);
    assert_eq!((claims[0].fence.id, claims[0].alone, claims[0].crashes), (poison, true, 1));
    assert_eq!(bench.claim(&node, 4).await, []);
    assert_eq!(bench.claim(&bench.node().await, 4).await.len(), 3);
    bench.ledger.finish(&claims[0].fence, done()).await.unwrap();
    bench.accept(job("b")).await;
    assert_eq!(bench.claim(&node, 4).await.len(), 1);
}

/// A node that holds jobs gets nothing more when a lone job is next, until it holds none: the lone one is not passed for ever.
pub async fn a_lone_job_waits_for_an_empty_node(make: Make) {
    let bench = make(wide());
    let poison = bench.accept(job("a")).await;
    bench.take(&bench.node().await).await;
    let node = bench.node().await;
    let other = bench.accept(job("b")).await;
    let busy = bench.take(&node).await;
    assert_eq!(busy.fence.id, other);
    bench.clock.advance(LEASE - super::SECOND);
    bench.beat(&node, std::slice::from_ref(&busy)).await;
    bench.clock.advance(super::SECOND);
    assert_eq!(bench.ledger.reap().await.unwrap().requeued, 1);
    bench.accept(job("b")).await;
    assert_eq!(bench.claim(&node, 4).await, []);
    bench.ledger.finish(&busy.fence, done()).await.unwrap();
    let claims = bench.claim(&node, 4).await;
    assert_eq!(claims.iter().map(|claim| claim.fence.id).collect::<Vec<_>>(), [poison]);
}

/// The third death is the end.
pub async fn the_third_crash_fails(make: Make) {
    let bench = make(wide());
    let id = bench.accept(job("a")).await;
    for crash in 1..=3 {
        let claim = bench.take(&bench.node().await).await;
        assert_eq!((claim.crashes, claim.alone), (crash - 1, crash > 1));
        bench.lose_all().await;
    }
    let view = bench.view(id).await;
    assert!(matches!(&view.state, JobState::Ended(Outcome::Failed { reason, .. }) if reason == WORKER_LOST), "{view:?}");
    assert_eq!(view.crashes, 3);
    assert_eq!(bench.claim(&bench.node().await, 1).await, []);
}

/// Draining keeps the count of crashes as it is.
pub async fn draining_is_no_crash(make: Make) {
    let bench = make(wide());
    bench.accept(job("a")).await;
    bench.take(&bench.node().await).await;
    bench.lose_all().await;
    let node = bench.node().await;
    for _ in 0..5 {
        let claim = bench.take(&node).await;
        assert_eq!(claim.crashes, 1);
        bench.ledger.release(&claim.fence, Release::Drained { ckpt: None, step: 0 }).await.unwrap();
    }
}

/// A node that leaves gives back what it still holds, and that is no crash.
pub async fn leaving_is_no_crash(make: Make) {
    let bench = make(wide());
    let id = bench.accept(job("a")).await;
    let node = bench.node().await;
    let claim = bench.take(&node).await;
    bench.ledger.leave(&node).await.unwrap();
    let view = bench.view(id).await;
    assert!(queued_at(&view, 0) && view.crashes == 0 && view.epoch > claim.fence.epoch);
    assert_eq!(bench.ledger.load().await.unwrap().nodes, 0);
}

/// A claim whose answer never came to the node is not lost: after a lease in which the node does not name it, it waits again.
pub async fn a_lost_claim_comes_back(make: Make) {
    let bench = make(wide());
    let (heard, unheard) = (bench.accept(job("a")).await, bench.accept(job("a")).await);
    let node = bench.node().await;
    let claims: Vec<Claim> = bench.claim(&node, 2).await;
    let known = &claims[..1];
    for _ in 0..2 {
        bench.beat(&node, known).await;
        bench.clock.advance(LEASE / 2);
        assert_eq!(bench.state(unheard).await, "running");
    }
    bench.beat(&node, known).await;
    let view = bench.view(unheard).await;
    assert!(queued_at(&view, 0) && view.crashes == 0);
    assert_eq!(bench.state(heard).await, "running");
}

/// A job that was to be stopped when its holder died does not run again.
pub async fn a_lost_job_that_was_canceled_ends(make: Make) {
    let bench = make(wide());
    let id = bench.accept(job("a")).await;
    bench.take(&bench.node().await).await;
    bench.ledger.cancel(id).await.unwrap();
    assert_eq!(bench.lose_all().await, Reaped { canceled: 1, ..Reaped::default() });
    assert_eq!(bench.state(id).await, "canceled");
}
