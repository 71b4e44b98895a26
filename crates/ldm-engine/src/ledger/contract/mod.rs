//! What every ledger has to do, as tests over the trait: [`ledger_contract!`](crate::ledger_contract) makes one of each.

pub mod accept;
pub mod claims;
pub mod fences;
pub mod hooks;
pub mod losses;
pub mod random;
pub mod views;

use std::sync::Arc;
use std::time::Duration;

use ldm_core::{JobId, Priority, Tenant};

use super::{
    Claim, Clock, Fence, JobState, JobView, Lane, Ledger, LedgerLimits, ManualClock, NewJob, NodeId, NodeState, ObjectRef,
    Outcome, Submitted, Timestamp, Want,
};

/// An empty ledger on a clock that the tests turn.
pub struct Bench {
    /// The ledger.
    pub ledger: Arc<dyn Ledger>,
    /// Its clock.
    pub clock: ManualClock,
    /// What keeps it alive: a folder, perhaps.
    pub keep: Box<dyn std::any::Any + Send + Sync>,
}

/// The moment at which the clocks of tests begin.
pub const START: Timestamp = Timestamp(1_800_000_000_000);

/// The model of most test jobs.
pub const MODEL: &str = "tiny";

/// A second.
pub const SECOND: Duration = Duration::from_secs(1);

/// A job of that tenant: interactive, a second long.
pub fn job(tenant: &str) -> NewJob {
    let id = JobId::new();
    NewJob {
        id,
        tenant: Tenant::new(tenant),
        priority: Priority::Interactive,
        model: MODEL.into(),
        bucket: "64".into(),
        cost_ms: 1_000,
        spec: format!("{{\"of\":\"{tenant}\"}}"),
        inputs: vec![object(&format!("in/{id}/0"))],
        fingerprint: [7; 32],
        key: None,
        name: None,
        deadline: None,
        not_before: None,
        note: String::new(),
        hook: None,
    }
}

/// An object of ten bytes.
pub fn object(key: &str) -> ObjectRef {
    ObjectRef { key: key.into(), bytes: 10, digest: "00".repeat(32) }
}

/// A good ending.
pub fn done() -> Outcome {
    Outcome::Succeeded { outputs: vec![object("out/x/0.png")], detail: "{}".into() }
}

/// What takes jobs of [`MODEL`] of both classes.
pub fn want(credit: u32) -> Want {
    let lanes = Priority::ALL.map(|priority| Lane { model: MODEL.into(), priority, hot: Vec::new() });
    Want { lanes: lanes.into(), credit }
}

impl Bench {
    /// Hands a job in that has to be accepted; its id.
    pub async fn accept(&self, job: NewJob) -> JobId {
        match self.ledger.submit(job).await.unwrap() {
            Submitted::New(view) => view.id,
            other => panic!("not accepted: {other:?}"),
        }
    }

    /// A node with a lease.
    pub async fn node(&self) -> NodeId {
        let node = NodeId::new("node");
        self.beat(&node, &[]).await;
        node
    }

    /// Renews a node's lease; it holds these.
    pub async fn beat(&self, node: &NodeId, held: &[Claim]) -> Vec<super::Order> {
        let held = held.iter().map(|claim| claim.fence).collect();
        self.ledger.beat(node, NodeState { capacity: 4, draining: false, held }).await.unwrap()
    }

    /// Claims so many at most.
    pub async fn claim(&self, node: &NodeId, credit: u32) -> Vec<Claim> {
        self.ledger.claim(node, &want(credit)).await.unwrap()
    }

    /// Claims the one job that is to be had.
    pub async fn take(&self, node: &NodeId) -> Claim {
        let mut claims = self.claim(node, 2).await;
        assert_eq!(claims.len(), 1, "one job is waiting");
        claims.remove(0)
    }

    /// A job.
    pub async fn view(&self, id: JobId) -> JobView {
        self.ledger.get(&[id]).await.unwrap().pop().expect("the job is known")
    }

    /// Where a job is, as a word.
    pub async fn state(&self, id: JobId) -> &'static str {
        self.view(id).await.state.name()
    }

    /// All leases end and are reaped.
    pub async fn lose_all(&self) -> super::Reaped {
        self.clock.advance(super::LEASE);
        self.ledger.reap().await.unwrap()
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// Whether a job waits at that place.
pub fn queued_at(view: &JobView, position: u64) -> bool {
    view.state == JobState::Queued { position }
}

/// A fence of another life of the job.
pub fn stale(fence: Fence) -> Fence {
    Fence { epoch: fence.epoch - 1, ..fence }
}

/// Bounds that no test reaches by chance.
pub fn wide() -> LedgerLimits {
    LedgerLimits::default()
}

/// Runs a test on a runtime of two threads.
pub fn block_on<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build();
    runtime.expect("a runtime").block_on(test);
}

/// One test per point of the contract; `$make` makes a [`Bench`] of [`LedgerLimits`].
#[macro_export]
macro_rules! ledger_contract {
    ($make:expr) => {
        $crate::ledger_contract! { @each $make;
            accept: same_key_is_one_job, same_id_is_one_job, fifty_racers_are_one_job, names_are_found_again, bounds_are_answers,
                a_full_ledger_says_which_bound, what_is_too_large_is_named, canceled_before_it_came;
            claims: lanes_and_credit, no_lease_no_claim, a_share_for_the_lower_class, tenants_share_fairly, an_idle_tenant_saves_nothing,
                a_hot_bucket_overtakes_a_little, not_before_its_time, sixteen_claimers_claim_once, late_jobs_expire,
                the_doorbell_is_never_lost;
            fences: a_stale_epoch_can_do_nothing, finished_twice_is_superseded, a_lost_answer_can_be_read, cancel_in_every_state,
                a_release_goes_on_where_it_stopped, a_refused_job_pauses, a_held_job_can_expire;
            losses: a_lost_lease_keeps_the_place, a_restarted_node_is_another, a_late_beat_revives, the_second_try_runs_alone,
                a_lone_job_waits_for_an_empty_node, the_third_crash_fails, draining_is_no_crash, leaving_is_no_crash,
                a_lost_claim_comes_back, a_lost_job_that_was_canceled_ends;
            views: positions_count, pages_are_stable, pages_of_one_phase, load_is_the_sum, old_records_go,
                unfinished_jobs_are_not_forgotten, the_departed_are_remembered;
            hooks: an_end_is_told_until_it_is_settled, every_way_of_ending_is_told, only_wanted_ends_are_told,
                an_end_outlives_its_record, sixteen_tellers_tell_once, ends_to_be_told_are_bounded;
            random: any_order_of_calls;
        }
    };
    (@each $make:expr; $($module:ident: $($test:ident),+;)+) => {
        $(mod $module {
            $(#[test]
            fn $test() {
                $crate::ledger::contract::block_on($crate::ledger::contract::$module::$test($make));
            })+
        })+
    };
}
