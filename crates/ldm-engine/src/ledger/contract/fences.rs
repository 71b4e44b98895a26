//! Contract: a job has one holder and one ending.

use super::{Bench, SECOND, done, job, object, stale, wide};
use crate::ledger::{
    Fence, Finish, JobState, Kept, LedgerLimits, MAX_PAGE, NewJob, Order, Outcome, REFUSED_PAUSE, Release, Retention,
};

type Make = fn(LedgerLimits) -> Bench;

/// All that a holder may say, said with a fence that does not hold.
async fn can_do_nothing(bench: &Bench, fence: &Fence) {
    let ledger = &bench.ledger;
    assert_eq!(ledger.finish(fence, done()).await.unwrap(), Finish::Superseded);
    for why in [Release::Drained { ckpt: None, step: 9 }, Release::Refused, Release::Expired] {
        assert_eq!(ledger.release(fence, why).await.unwrap(), Finish::Superseded);
    }
    assert_eq!(ledger.checkpoint(fence, object("ckpt/x/1"), 9).await.unwrap(), Kept::Superseded);
}

/// Who lost a job can change nothing of it, whether it waits, has another holder or has ended.
pub async fn a_stale_epoch_can_do_nothing(make: Make) {
    let bench = make(wide());
    let id = bench.accept(job("a")).await;
    let node = bench.node().await;
    let old = bench.take(&node).await;
    can_do_nothing(&bench, &stale(old.fence)).await;
    bench.lose_all().await;
    let waiting = bench.view(id).await;
    can_do_nothing(&bench, &old.fence).await;
    assert_eq!(bench.view(id).await, waiting);
    let new = bench.take(&bench.node().await).await;
    assert!(new.fence.epoch > old.fence.epoch && new.ckpt.is_none() && new.step == 0);
    can_do_nothing(&bench, &old.fence).await;
    assert_eq!(bench.ledger.finish(&new.fence, done()).await.unwrap(), Finish::Recorded);
    can_do_nothing(&bench, &old.fence).await;
    assert_eq!(bench.beat(&node, std::slice::from_ref(&old)).await, [Order::Lost(old.fence)]);
}

/// The first ending stays.
pub async fn finished_twice_is_superseded(make: Make) {
    let bench = make(wide());
    let id = bench.accept(job("a")).await;
    let claim = bench.take(&bench.node().await).await;
    assert_eq!(bench.ledger.finish(&claim.fence, done()).await.unwrap(), Finish::Recorded);
    let failed = Outcome::Failed { reason: "device".into(), message: "gone".into() };
    assert_eq!(bench.ledger.finish(&claim.fence, failed).await.unwrap(), Finish::Superseded);
    let view = bench.view(id).await;
    assert_eq!((view.state, view.ended), (JobState::Ended(done()), Some(bench.now())));
}

/// Whose answer was lost reads the row: ended with my epoch means that it was me.
pub async fn a_lost_answer_can_be_read(make: Make) {
    let bench = make(wide());
    let (mine, other) = (bench.accept(job("a")).await, bench.accept(job("a")).await);
    let node = bench.node().await;
    let claims = bench.claim(&node, 2).await;
    bench.ledger.finish(&claims[0].fence, done()).await.unwrap();
    bench.lose_all().await;
    bench.ledger.cancel(other).await.unwrap();
    let (mine, other) = (bench.view(mine).await, bench.view(other).await);
    assert!(mine.state.is_terminal() && mine.epoch == claims[0].fence.epoch);
    assert!(other.state.is_terminal() && other.epoch != claims[1].fence.epoch);
}

/// A waiting job ends at once, a running one's holder is told, an ended one stays.
pub async fn cancel_in_every_state(make: Make) {
    let bench = make(wide());
    let cancel = async |id| bench.ledger.cancel(id).await.unwrap().expect("known");
    let waiting = bench.accept(job("a")).await;
    assert_eq!(cancel(waiting).await.state, JobState::Ended(Outcome::Canceled));
    let node = bench.node().await;
    assert_eq!(bench.claim(&node, 1).await, []);

    let id = bench.accept(job("a")).await;
    let claim = bench.take(&node).await;
    let view = cancel(id).await;
    assert!(view.cancel && view.state.name() == "running");
    assert_eq!(bench.beat(&node, std::slice::from_ref(&claim)).await, [Order::Cancel(claim.fence)]);
    assert_eq!(bench.ledger.finish(&claim.fence, Outcome::Canceled).await.unwrap(), Finish::Recorded);
    assert_eq!(cancel(id).await, cancel(id).await);

    // It ended before the order came.
    let id = bench.accept(job("a")).await;
    let claim = bench.take(&node).await;
    cancel(id).await;
    bench.ledger.finish(&claim.fence, done()).await.unwrap();
    let view = cancel(id).await;
    assert_eq!((view.state, view.cancel), (JobState::Ended(done()), false));

    // Its holder lets go before it is told.
    let id = bench.accept(job("a")).await;
    let claim = bench.take(&node).await;
    cancel(id).await;
    bench.ledger.release(&claim.fence, Release::Drained { ckpt: None, step: 0 }).await.unwrap();
    assert_eq!(bench.state(id).await, "canceled");

    // Not due yet.
    let id = bench.accept(NewJob { not_before: Some(bench.now().after(SECOND)), ..job("a") }).await;
    cancel(id).await;
    bench.clock.advance(2 * SECOND);
    assert_eq!(bench.claim(&node, 1).await, []);
}

/// The next holder gets the checkpoint as it was noted, and the one before it can be deleted.
pub async fn a_release_goes_on_where_it_stopped(make: Make) {
    let bench = make(wide());
    let id = bench.accept(job("a")).await;
    let node = bench.node().await;
    let claim = bench.take(&node).await;
    let (first, second, third) = (object("ckpt/x/1"), object("ckpt/x/2"), object("ckpt/x/3"));
    let kept = async |ckpt, step| bench.ledger.checkpoint(&claim.fence, ckpt, step).await.unwrap();
    assert_eq!(kept(first.clone(), 5).await, Kept::Recorded { replaced: None });
    assert_eq!(kept(second.clone(), 7).await, Kept::Recorded { replaced: Some(first) });
    let drained = Release::Drained { ckpt: Some(third.clone()), step: 9 };
    assert_eq!(bench.ledger.release(&claim.fence, drained).await.unwrap(), Finish::Recorded);
    let next = bench.take(&node).await;
    assert_eq!((next.ckpt, next.step, next.crashes, next.alone), (Some(third.clone()), 9, 0, false));
    assert_eq!((&next.spec, &next.inputs), (&claim.spec, &claim.inputs));
    let without = Release::Drained { ckpt: None, step: 0 };
    bench.ledger.release(&next.fence, without).await.unwrap();
    let last = bench.take(&node).await;
    assert_eq!((last.ckpt, last.step), (Some(third.clone()), 9));
    bench.ledger.finish(&last.fence, done()).await.unwrap();
    let none = Retention { ttl: SECOND, count: 0, bytes: 0 };
    let stale = bench.ledger.prune(&none).await.unwrap();
    assert_eq!((stale.len(), stale[0].id), (1, id));
    assert_eq!(stale[0].keys, [format!("in/{id}/0"), third.key, "out/x/0.png".into()]);
    assert!(stale.len() <= MAX_PAGE as usize);
}

/// A refused job is not offered for a second, so that nobody spins, and that is no crash.
pub async fn a_refused_job_pauses(make: Make) {
    let bench = make(wide());
    bench.accept(job("a")).await;
    let node = bench.node().await;
    let claim = bench.take(&node).await;
    bench.ledger.release(&claim.fence, Release::Refused).await.unwrap();
    assert_eq!(bench.claim(&node, 1).await, []);
    bench.clock.advance(REFUSED_PAUSE);
    let again = bench.take(&node).await;
    assert_eq!((again.fence.id, again.crashes), (claim.fence.id, 0));
}

/// The holder says that the deadline has passed.
pub async fn a_held_job_can_expire(make: Make) {
    let bench = make(wide());
    let id = bench.accept(NewJob { deadline: Some(bench.now().after(SECOND)), ..job("a") }).await;
    let claim = bench.take(&bench.node().await).await;
    assert_eq!(claim.deadline, Some(bench.now().after(SECOND)));
    bench.clock.advance(SECOND);
    assert_eq!(bench.ledger.reap().await.unwrap().expired, 0);
    assert_eq!(bench.ledger.release(&claim.fence, Release::Expired).await.unwrap(), Finish::Recorded);
    assert_eq!(bench.state(id).await, "expired");
    assert_eq!(bench.ledger.finish(&claim.fence, done()).await.unwrap(), Finish::Superseded);
}
