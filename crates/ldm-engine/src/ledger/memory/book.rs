//! All that the ledger in memory knows, and the ways of a job through it; every method is one atomic call.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use ldm_core::{JobId, Priority, Tenant};

use super::outbox::Outbox;
use super::queue::Queue;
use super::record::{Record, State};
use crate::ledger::rules::{self, Loss, Turns, Usage};
use crate::ledger::{
    Claim, Fence, Finish, Kept, LedgerError, LedgerLimits, MAX_TOMBSTONES, NewJob, NodeId, ObjectRef, Outcome, REFUSED_PAUSE,
    Reaped, Release, Submitted, TOMBSTONE, Timestamp, Want,
};

/// A node with a lease.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) expires: Timestamp,
    pub(super) capacity: u32,
    pub(super) draining: bool,
}

#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) limits: LedgerLimits,
    pub(super) jobs: BTreeMap<JobId, Record>,
    pub(super) queue: Queue,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    /// What each node holds, also one without a lease.
    pub(super) held: HashMap<NodeId, BTreeSet<JobId>>,
    pub(super) keys: HashMap<(Tenant, String), JobId>,
    pub(super) names: HashMap<(Tenant, String), JobId>,
    /// The virtual finishing time of each tenant's last job.
    shares: HashMap<(Tenant, Priority), u64>,
    /// That of the job claimed last.
    clocks: HashMap<Priority, u64>,
    turns: Turns,
    tenants: HashMap<Tenant, u64>,
    /// Unfinished jobs, their bytes and costs; the other fields are made when they are asked for.
    pub(super) usage: Usage,
    pub(super) ended: BTreeSet<(Timestamp, JobId)>,
    /// Canceled before they came.
    tombstones: VecDeque<(Timestamp, JobId)>,
    pub(super) outbox: Outbox,
    /// Forgotten, the longest ago first.
    pub(super) departed: VecDeque<(Tenant, JobId, Option<String>)>,
}

impl Book {
    pub(super) fn new(limits: LedgerLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    pub(super) fn submit(&mut self, job: NewJob, now: Timestamp) -> Submitted {
        let handle = |text: &Option<String>| text.clone().map(|text| (job.tenant.clone(), text));
        let same_id = self.jobs.contains_key(&job.id).then_some(job.id);
        let same_key = handle(&job.key).and_then(|key| self.keys.get(&key).copied());
        let same_name = handle(&job.name).and_then(|name| self.names.get(&name).copied());
        let mut first = None;
        for id in [same_id, same_key, same_name].into_iter().flatten() {
            let record = &self.jobs[&id];
            let same = record.job.fingerprint == job.fingerprint && record.job.tenant == job.tenant;
            if !same || first.is_some_and(|first| first != id) {
                return Submitted::Conflict(id);
            }
            first = Some(id);
        }
        if let Some(id) = first {
            return Submitted::Existing(self.jobs[&id].view(&self.queue));
        }
        if let Some(full) = rules::full(&self.limits, self.usage(&job.tenant, now), &job) {
            return Submitted::Full(full);
        }
        let id = job.id;
        self.enter(job, now);
        self.tombstones.retain(|(until, _)| *until > now);
        if self.tombstones.iter().any(|(_, canceled)| *canceled == id) {
            self.end(id, State::Ended(Outcome::Canceled), now);
        }
        Submitted::New(self.jobs[&id].view(&self.queue))
    }

    fn enter(&mut self, job: NewJob, now: Timestamp) {
        let last = self.shares.entry((job.tenant.clone(), job.priority)).or_default();
        *last = rules::virtual_finish(self.clocks.get(&job.priority).copied().unwrap_or(0), *last, job.cost_ms);
        if let Some(key) = &job.key {
            self.keys.insert((job.tenant.clone(), key.clone()), job.id);
        }
        if let Some(name) = &job.name {
            self.names.insert((job.tenant.clone(), name.clone()), job.id);
        }
        self.usage.jobs += 1;
        self.usage.bytes += rules::live_bytes(&job);
        self.usage.cost_ms += job.cost_ms;
        *self.tenants.entry(job.tenant.clone()).or_default() += 1;
        self.outbox.enter(&job);
        let record = Record::new(job, *last, now);
        self.queue.push(record.waiting(), now);
        self.jobs.insert(record.id(), record);
    }

    fn usage(&self, tenant: &Tenant, now: Timestamp) -> Usage {
        let tenant_jobs = self.tenants.get(tenant).copied().unwrap_or(0);
        Usage {
            tenant_jobs,
            records: self.jobs.len() as u64,
            capacity: self.capacity(now),
            hooks: self.outbox.len(),
            ..self.usage
        }
    }

    pub(super) fn capacity(&self, now: Timestamp) -> u64 {
        let live = self.nodes.values().filter(|node| node.expires > now && !node.draining);
        live.map(|node| u64::from(node.capacity)).sum()
    }

    pub(super) fn claim(&mut self, node: &NodeId, want: &Want, now: Timestamp) -> Result<Vec<Claim>, LedgerError> {
        let lease = self.nodes.get(node).filter(|lease| lease.expires > now);
        if lease.ok_or_else(|| LedgerError::NoLease(node.clone()))?.draining {
            return Ok(Vec::new());
        }
        self.queue.mature(now);
        let mut claims = Vec::new();
        while claims.len() < want.credit as usize {
            let [interactive, batch] = Priority::ALL.map(|class| self.head(class, want, now));
            let Some(class) = self.turns.next(interactive.is_some(), batch.is_some()) else { break };
            let Some(id) = (if class == Priority::Interactive { interactive } else { batch }) else { break };
            let held = self.held.get(node).into_iter().flatten();
            let (mut holds, mut guarded) = (false, false);
            for held in held {
                (holds, guarded) = (true, guarded || self.jobs[held].crashes > 0);
            }
            // A job that may kill its process shares it with no other.
            if guarded || (holds && self.jobs[&id].crashes > 0) {
                break;
            }
            self.turns.took(class, batch.is_some());
            claims.push(self.take(id, node, now));
        }
        Ok(claims)
    }

    /// The next job of a class; late ones expire on the way.
    fn head(&mut self, class: Priority, want: &Want, now: Timestamp) -> Option<JobId> {
        loop {
            let id = self.queue.head(class, &want.lanes)?;
            if self.jobs[&id].job.deadline.is_none_or(|deadline| deadline > now) {
                return Some(id);
            }
            self.end(id, State::Expired, now);
        }
    }

    fn take(&mut self, id: JobId, node: &NodeId, now: Timestamp) -> Claim {
        let record = self.jobs.get_mut(&id).expect("the queue knows jobs that are here and no others");
        self.queue.remove(&record.waiting());
        let clock = self.clocks.entry(record.job.priority).or_default();
        *clock = (*clock).max(record.vft);
        record.state = State::Running(node.clone());
        record.epoch += 1;
        record.started = Some(now);
        self.held.entry(node.clone()).or_default().insert(id);
        record.claim()
    }

    /// The job, if this fence still holds it.
    pub(super) fn held(&mut self, fence: &Fence) -> Option<&mut Record> {
        let record = self.jobs.get_mut(&fence.id)?;
        (matches!(record.state, State::Running(_)) && record.epoch == fence.epoch).then_some(record)
    }

    pub(super) fn checkpoint(&mut self, fence: &Fence, ckpt: ObjectRef, step: u32) -> Kept {
        let Some(record) = self.held(fence) else { return Kept::Superseded };
        record.step = step;
        let replaced = record.ckpt.replace(ckpt.clone()).filter(|old| old.key != ckpt.key);
        Kept::Recorded { replaced }
    }

    pub(super) fn release(&mut self, fence: &Fence, why: Release, now: Timestamp) -> Finish {
        let Some(record) = self.held(fence) else { return Finish::Superseded };
        match why {
            Release::Expired => {
                self.end(fence.id, State::Expired, now);
                return Finish::Recorded;
            }
            Release::Drained { ckpt, step } => {
                if let Some(ckpt) = ckpt {
                    (record.ckpt, record.step) = (Some(ckpt), step);
                }
            }
            Release::Refused => record.job.not_before = Some(now.after(REFUSED_PAUSE)),
        }
        self.put_back(fence.id, now);
        Finish::Recorded
    }

    /// The job loses its holder in good order: it waits again, or ends if somebody wanted it stopped.
    pub(super) fn put_back(&mut self, id: JobId, now: Timestamp) {
        if self.jobs[&id].cancel {
            self.end(id, State::Ended(Outcome::Canceled), now);
        } else {
            self.requeue(id, now);
        }
    }

    pub(super) fn finish(&mut self, fence: &Fence, outcome: Outcome, now: Timestamp) -> Finish {
        if self.held(fence).is_none() {
            return Finish::Superseded;
        }
        self.end(fence.id, State::Ended(outcome), now);
        Finish::Recorded
    }

    pub(super) fn cancel(&mut self, id: JobId, now: Timestamp) -> bool {
        let Some(record) = self.jobs.get_mut(&id) else {
            self.tombstones.retain(|(until, canceled)| *until > now && *canceled != id);
            if self.tombstones.len() >= MAX_TOMBSTONES {
                self.tombstones.pop_front();
            }
            self.tombstones.push_back((now.after(TOMBSTONE), id));
            return false;
        };
        match record.state {
            State::Queued => self.end(id, State::Ended(Outcome::Canceled), now),
            State::Running(_) => record.cancel = true,
            State::Ended(_) | State::Expired => {}
        }
        true
    }

    /// The job loses its holder and waits again, at its old place.
    fn requeue(&mut self, id: JobId, now: Timestamp) {
        self.drop_holder(id);
        let record = self.jobs.get_mut(&id).expect("only jobs that are here are put back");
        record.state = State::Queued;
        record.epoch += 1;
        self.queue.push(record.waiting(), now);
    }

    fn drop_holder(&mut self, id: JobId) {
        if let State::Running(node) = &self.jobs[&id].state
            && let Some(held) = self.held.get_mut(node)
        {
            held.remove(&id);
            if held.is_empty() {
                self.held.remove(&node.clone());
            }
        }
    }

    /// The one place where a job ends.
    fn end(&mut self, id: JobId, state: State, now: Timestamp) {
        self.drop_holder(id);
        let record = self.jobs.get_mut(&id).expect("only jobs that are here end");
        self.queue.remove(&record.waiting());
        (record.state, record.ended) = (state, Some(now));
        self.outbox.ended(id, record.state.phase(), now);
        self.ended.insert((now, id));
        self.usage.jobs -= 1;
        self.usage.bytes -= rules::live_bytes(&record.job);
        self.usage.cost_ms -= record.job.cost_ms;
        if let Some(jobs) = self.tenants.get_mut(&record.job.tenant) {
            *jobs -= 1;
            if *jobs == 0 {
                self.tenants.remove(&record.job.tenant);
            }
        }
    }

    /// What follows on the end of leases and deadlines; the nodes that are gone, and whether something can be claimed anew.
    pub(super) fn reap(&mut self, now: Timestamp) -> (Reaped, Vec<NodeId>, bool) {
        let mut reaped = Reaped::default();
        let gone: Vec<NodeId> = self.nodes.iter().filter(|(_, node)| node.expires <= now).map(|(id, _)| id.clone()).collect();
        self.nodes.retain(|_, node| node.expires > now);
        let orphans = self.held.iter().filter(|(node, _)| !self.nodes.contains_key(*node));
        let orphans: Vec<JobId> = orphans.flat_map(|(_, ids)| ids.iter().copied()).collect();
        for id in orphans {
            let record = self.jobs.get_mut(&id).expect("only jobs that are here are held");
            record.crashes += 1;
            match rules::after_loss(record.crashes, record.cancel) {
                Loss::Requeue => {
                    self.requeue(id, now);
                    reaped.requeued += 1;
                }
                Loss::End(outcome) => {
                    if outcome == Outcome::Canceled {
                        reaped.canceled += 1
                    } else {
                        reaped.failed += 1
                    }
                    record.epoch += 1;
                    self.end(id, State::Ended(outcome), now);
                }
            }
        }
        let late = |record: &&Record| record.state == State::Queued && record.job.deadline.is_some_and(|at| at <= now);
        let late: Vec<JobId> = self.jobs.values().filter(late).map(Record::id).collect();
        reaped.expired = late.len() as u64;
        late.into_iter().for_each(|id| self.end(id, State::Expired, now));
        let clocks = &self.clocks;
        self.shares.retain(|(_, class), last| *last > clocks.get(class).copied().unwrap_or(0));
        let due = self.queue.mature(now);
        (reaped, gone, due || reaped.requeued > 0)
    }
}
