//! Contract: whatever is called in whatever order, a job that was accepted ends once, and its epoch never falls.

use std::collections::{BTreeMap, HashSet};

use ldm_core::{JobId, Priority};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};

use super::{Bench, SECOND, done, job, object, wide};
use crate::ledger::{
    Claim, Fence, Finish, JobState, JobView, Kept, LedgerLimits, MAX_CRASHES, NewJob, NodeId, NodeState, Outcome, Release,
    Retention, Submitted,
};

type Make = fn(LedgerLimits) -> Bench;

/// Cases, and calls of each.
const CASES: usize = 24;
const CALLS: usize = 60;

#[derive(Clone, Debug)]
enum Call {
    Submit { key: Option<u8>, batch: bool, deadline: Option<u8>, not_before: Option<u8> },
    Claim { node: usize, credit: u32 },
    Beat { node: usize, forgets: bool },
    Checkpoint { claim: usize },
    Release { claim: usize, why: u8 },
    Finish { claim: usize, outcome: u8 },
    Cancel { job: usize },
    Leave { node: usize },
    Restart { node: usize },
    Pass { seconds: u8 },
    Reap,
    Prune,
}

fn call() -> impl Strategy<Value = Call> {
    let submit =
        (prop::option::of(0..4_u8), any::<bool>(), prop::option::weighted(0.2, 0..30_u8), prop::option::weighted(0.2, 0..9_u8));
    let submit = submit.prop_map(|(key, batch, deadline, not_before)| Call::Submit { key, batch, deadline, not_before });
    prop_oneof![
        6 => submit,
        6 => (0..3_usize, 0..4_u32).prop_map(|(node, credit)| Call::Claim { node, credit }),
        4 => (0..3_usize, any::<bool>()).prop_map(|(node, forgets)| Call::Beat { node, forgets }),
        2 => (0..64_usize).prop_map(|claim| Call::Checkpoint { claim }),
        2 => (0..64_usize, 0..3_u8).prop_map(|(claim, why)| Call::Release { claim, why }),
        3 => (0..64_usize, 0..3_u8).prop_map(|(claim, outcome)| Call::Finish { claim, outcome }),
        2 => (0..64_usize).prop_map(|job| Call::Cancel { job }),
        1 => (0..3_usize).prop_map(|node| Call::Leave { node }),
        1 => (0..3_usize).prop_map(|node| Call::Restart { node }),
        4 => (0..12_u8).prop_map(|seconds| Call::Pass { seconds }),
        3 => Just(Call::Reap),
        1 => Just(Call::Prune),
    ]
}

/// What is known from outside.
struct Model {
    bench: Bench,
    nodes: Vec<NodeId>,
    claims: Vec<(NodeId, Claim)>,
    fences: HashSet<Fence>,
    jobs: BTreeMap<JobId, JobView>,
}

impl Model {
    fn pick<T: Clone>(of: &[T], at: usize) -> Option<T> {
        (!of.is_empty()).then(|| of[at % of.len()].clone())
    }

    /// Whether that fence holds its job now.
    async fn holds(&self, fence: &Fence) -> bool {
        let view = self.bench.ledger.get(&[fence.id]).await.unwrap().pop();
        view.is_some_and(|view| matches!(view.state, JobState::Running { .. }) && view.epoch == fence.epoch)
    }

    async fn apply(&mut self, call: Call) {
        let ledger = self.bench.ledger.clone();
        match call {
            Call::Submit { key, batch, deadline, not_before } => {
                let at = |seconds: u8| self.bench.now().after(u32::from(seconds) * SECOND);
                let job = NewJob {
                    key: key.map(|key| key.to_string()),
                    priority: Priority::ALL[usize::from(batch)],
                    deadline: deadline.map(at),
                    not_before: not_before.map(at),
                    ..job(["a", "b"][usize::from(batch)])
                };
                match ledger.submit(job).await.unwrap() {
                    Submitted::New(view) => assert!(self.jobs.insert(view.id, view).is_none()),
                    Submitted::Existing(view) => assert!(self.jobs.contains_key(&view.id)),
                    other => panic!("{other:?}"),
                }
            }
            Call::Claim { node, credit } => self.claim(node, credit).await,
            Call::Beat { node, forgets } => {
                let node = self.nodes[node].clone();
                let mine = self.claims.iter().filter(|(holder, _)| *holder == node && !forgets);
                let held = mine.map(|(_, claim)| claim.fence).collect();
                ledger.beat(&node, NodeState { capacity: 1, draining: false, held }).await.unwrap();
            }
            Call::Checkpoint { claim } => {
                let Some((_, claim)) = Self::pick(&self.claims, claim) else { return };
                let holds = self.holds(&claim.fence).await;
                let kept = ledger.checkpoint(&claim.fence, object("ckpt/x/1"), claim.step + 1).await.unwrap();
                assert_eq!(matches!(kept, Kept::Recorded { .. }), holds);
            }
            Call::Release { claim, why } => {
                let why =
                    [Release::Drained { ckpt: None, step: 0 }, Release::Refused, Release::Expired][usize::from(why)].clone();
                let Some((_, claim)) = Self::pick(&self.claims, claim) else { return };
                let expected = if self.holds(&claim.fence).await { Finish::Recorded } else { Finish::Superseded };
                assert_eq!(ledger.release(&claim.fence, why).await.unwrap(), expected);
            }
            Call::Finish { claim, outcome } => {
                let failed = Outcome::Failed { reason: "device".into(), message: String::new() };
                let outcome = [done(), failed, Outcome::Canceled][usize::from(outcome)].clone();
                let Some((_, claim)) = Self::pick(&self.claims, claim) else { return };
                let expected = if self.holds(&claim.fence).await { Finish::Recorded } else { Finish::Superseded };
                assert_eq!(ledger.finish(&claim.fence, outcome).await.unwrap(), expected);
            }
            Call::Cancel { job } => {
                let ids: Vec<JobId> = self.jobs.keys().copied().collect();
                let Some(id) = Self::pick(&ids, job) else { return };
                let view = ledger.cancel(id).await.unwrap().expect("known");
                assert!(view.state.is_terminal() || view.cancel);
            }
            Call::Leave { node } => ledger.leave(&self.nodes[node]).await.unwrap(),
            Call::Restart { node } => self.nodes[node] = NodeId::new("node"),
            Call::Pass { seconds } => self.bench.clock.advance(u32::from(seconds) * SECOND),
            Call::Reap => drop(ledger.reap().await.unwrap()),
            Call::Prune => {
                let keep = Retention { ttl: 60 * SECOND, count: 3, bytes: u64::MAX };
                let ids: Vec<JobId> = ledger.prune(&keep).await.unwrap().iter().map(|stale| stale.id).collect();
                ledger.forget(&ids).await.unwrap();
                for id in ids {
                    assert!(self.jobs.remove(&id).expect("known").state.is_terminal(), "seen at the last look");
                }
            }
        }
        self.look().await;
    }

    async fn claim(&mut self, node: usize, credit: u32) {
        let node = self.nodes[node].clone();
        let Ok(claims) = self.bench.ledger.claim(&node, &super::want(credit)).await else { return };
        assert!(claims.len() <= credit as usize);
        assert!(claims.len() <= 1 || claims.iter().all(|claim| !claim.alone));
        for claim in claims {
            assert!(self.fences.insert(claim.fence), "claimed twice: {claim:?}");
            self.claims.push((node.clone(), claim));
        }
    }

    /// What holds after every call.
    async fn look(&mut self) {
        let ids: Vec<JobId> = self.jobs.keys().copied().collect();
        let views = self.bench.ledger.get(&ids).await.unwrap();
        assert_eq!(views.len(), ids.len(), "nothing is lost");
        let load = self.bench.ledger.load().await.unwrap();
        let (mut live, mut bytes) = (0, 0);
        for view in views {
            let before = self.jobs.get_mut(&view.id).expect("asked for");
            assert!(view.epoch >= before.epoch && view.crashes >= before.crashes && view.crashes <= MAX_CRASHES);
            if before.state.is_terminal() {
                assert_eq!(view, *before, "an ending stays");
            }
            if !view.state.is_terminal() {
                live += 1;
                bytes += view.spec.len() as u64 + 10;
            }
            *before = view;
        }
        assert_eq!(load.lanes.iter().map(|lane| lane.queued + lane.running).sum::<u64>(), live);
        assert_eq!(load.lanes.iter().map(|lane| lane.outstanding_ms).sum::<u64>(), live * 1_000);
        assert_eq!((load.bytes, load.ended), (bytes, self.jobs.len() as u64 - live));
    }

    /// One good node works on: everything ends.
    async fn settle(&mut self) {
        self.bench.clock.advance(30 * SECOND);
        self.nodes[0] = NodeId::new("last");
        for _ in 0..=self.jobs.len() * 2 {
            self.apply(Call::Reap).await;
            self.apply(Call::Beat { node: 0, forgets: true }).await;
            let before = self.claims.len();
            self.claim(0, 8).await;
            for (_, claim) in self.claims.split_off(before) {
                assert_eq!(self.bench.ledger.finish(&claim.fence, done()).await.unwrap(), Finish::Recorded);
            }
            self.bench.clock.advance(SECOND);
        }
        self.look().await;
        assert!(self.jobs.values().all(|view| view.state.is_terminal()), "{:?}", self.jobs);
    }
}

/// Random calls, the same at every run; then everything that was accepted ends.
pub async fn any_order_of_calls(make: Make) {
    let mut runner =
        TestRunner::new_with_rng(Config::default(), proptest::test_runner::TestRng::deterministic_rng(Default::default()));
    for _ in 0..CASES {
        let calls = prop::collection::vec(call(), CALLS).new_tree(&mut runner).expect("calls").current();
        let nodes = (0..3).map(|i| NodeId::new(&i.to_string())).collect();
        let (claims, fences, jobs) = (Vec::new(), HashSet::new(), BTreeMap::new());
        let mut model = Model { bench: make(wide()), nodes, claims, fences, jobs };
        for call in calls {
            model.apply(call).await;
        }
        model.settle().await;
    }
}
