//! One job as the ledger in memory keeps it.

use ldm_core::JobId;

use super::queue::{Queue, Waiting};
use crate::ledger::rules::{live_bytes, outcome_bytes};
use crate::ledger::{Claim, Fence, JobState, JobView, NewJob, NodeId, ObjectRef, Outcome, Phase, Stale, Timestamp};

/// Where a job is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum State {
    Queued,
    Running(NodeId),
    Ended(Outcome),
    Expired,
}

impl State {
    /// The same in a word.
    pub(super) fn phase(&self) -> Phase {
        match self {
            Self::Queued => Phase::Queued,
            Self::Running(_) => Phase::Running,
            Self::Ended(Outcome::Succeeded { .. }) => Phase::Succeeded,
            Self::Ended(Outcome::Failed { .. }) => Phase::Failed,
            Self::Ended(Outcome::Canceled) => Phase::Canceled,
            Self::Expired => Phase::Expired,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) job: NewJob,
    pub(super) state: State,
    pub(super) epoch: u64,
    pub(super) crashes: u32,
    pub(super) cancel: bool,
    pub(super) vft: u64,
    pub(super) ckpt: Option<ObjectRef>,
    pub(super) step: u32,
    pub(super) created: Timestamp,
    pub(super) started: Option<Timestamp>,
    pub(super) ended: Option<Timestamp>,
}

impl Record {
    pub(super) fn new(job: NewJob, vft: u64, created: Timestamp) -> Self {
        Self {
            job,
            state: State::Queued,
            epoch: 0,
            crashes: 0,
            cancel: false,
            vft,
            ckpt: None,
            step: 0,
            created,
            started: None,
            ended: None,
        }
    }

    pub(super) fn id(&self) -> JobId {
        self.job.id
    }

    pub(super) fn waiting(&self) -> Waiting {
        let NewJob { id, priority: class, ref model, ref bucket, not_before, .. } = self.job;
        Waiting { id, class, model: model.clone(), bucket: bucket.clone(), vft: self.vft, not_before }
    }

    pub(super) fn is_terminal(&self) -> bool {
        matches!(self.state, State::Ended(_) | State::Expired)
    }

    /// Bytes that its record counts once it has ended.
    pub(super) fn kept_bytes(&self) -> u64 {
        let outcome = if let State::Ended(outcome) = &self.state { outcome_bytes(outcome) } else { 0 };
        let ckpt = self.ckpt.as_ref().map_or(0, |ckpt| ckpt.bytes);
        live_bytes(&self.job).saturating_add(outcome).saturating_add(ckpt)
    }

    pub(super) fn claim(&self) -> Claim {
        Claim {
            fence: Fence { id: self.job.id, epoch: self.epoch },
            tenant: self.job.tenant.clone(),
            priority: self.job.priority,
            model: self.job.model.clone(),
            bucket: self.job.bucket.clone(),
            spec: self.job.spec.clone(),
            inputs: self.job.inputs.clone(),
            ckpt: self.ckpt.clone(),
            step: self.step,
            crashes: self.crashes,
            alone: self.crashes > 0,
            deadline: self.job.deadline,
        }
    }

    pub(super) fn view(&self, queue: &Queue) -> JobView {
        let state = match &self.state {
            State::Queued => JobState::Queued { position: queue.position(&self.waiting()) },
            State::Running(node) => JobState::Running { node: node.clone(), step: self.step },
            State::Ended(outcome) => JobState::Ended(outcome.clone()),
            State::Expired => JobState::Expired,
        };
        JobView {
            id: self.job.id,
            tenant: self.job.tenant.clone(),
            priority: self.job.priority,
            model: self.job.model.clone(),
            name: self.job.name.clone(),
            cost_ms: self.job.cost_ms,
            spec: self.job.spec.clone(),
            state,
            epoch: self.epoch,
            crashes: self.crashes,
            cancel: self.cancel && !self.is_terminal(),
            created: self.created,
            started: self.started,
            ended: self.ended,
            deadline: self.job.deadline,
            note: self.job.note.clone(),
        }
    }

    pub(super) fn stale(&self) -> Stale {
        let outputs: &[ObjectRef] = match &self.state {
            State::Ended(Outcome::Succeeded { outputs, .. }) => outputs,
            _ => &[],
        };
        let keys = self.job.inputs.iter().chain(&self.ckpt).chain(outputs).map(|object| object.key.clone()).collect();
        Stale { id: self.job.id, keys }
    }
}
