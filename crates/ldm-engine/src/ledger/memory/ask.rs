//! Nodes, lists, loads and retention of the ledger in memory.

use std::collections::BTreeMap;

use ldm_core::{JobId, Priority, Tenant};

use super::book::{Book, Node};
use super::record::{Record, State};
use crate::ledger::{
    Fence, JobView, LEASE, LaneLoad, LedgerLoad, MAX_PAGE, NodeId, NodeState, Order, Page, Query, Retention, Stale, Timestamp,
};

impl Book {
    /// Renews the lease; the orders, and whether a claim whose answer was lost went back to the queue.
    pub(super) fn beat(&mut self, id: &NodeId, state: &NodeState, now: Timestamp) -> (Vec<Order>, bool) {
        let NodeState { capacity, draining, ref held } = *state;
        self.nodes.insert(id.clone(), Node { expires: now.after(LEASE), capacity, draining });
        let orders = held.iter().filter_map(|fence| match self.held(fence) {
            None => Some(Order::Lost(*fence)),
            Some(record) if record.cancel => Some(Order::Cancel(*fence)),
            Some(_) => None,
        });
        let orders = orders.collect();
        let forgotten: Vec<JobId> = self.held.get(id).into_iter().flatten().copied().collect();
        let forgotten = forgotten.into_iter().filter(|id| {
            let record = &self.jobs[id];
            let old = record.started.is_some_and(|started| started.after(LEASE) <= now);
            old && !held.contains(&Fence { id: *id, epoch: record.epoch })
        });
        let forgotten: Vec<JobId> = forgotten.collect();
        forgotten.iter().for_each(|id| self.put_back(*id, now));
        (orders, !forgotten.is_empty())
    }

    /// The node goes in good order.
    pub(super) fn leave(&mut self, id: &NodeId, now: Timestamp) {
        self.nodes.remove(id);
        let held: Vec<JobId> = self.held.get(id).into_iter().flatten().copied().collect();
        held.into_iter().for_each(|id| self.put_back(id, now));
    }

    pub(super) fn named(&self, key: &(ldm_core::Tenant, String)) -> Option<JobView> {
        self.names.get(key).map(|id| self.jobs[id].view(&self.queue))
    }

    pub(super) fn list(&self, query: &Query) -> Page {
        let limit = query.limit.min(MAX_PAGE) as usize;
        let records: Box<dyn Iterator<Item = &Record>> = match query.before {
            Some(before) => Box::new(self.jobs.range(..before).rev().map(|(_, record)| record)),
            None => Box::new(self.jobs.values().rev()),
        };
        let wanted = |record: &Record| query.phases.is_empty() || query.phases.contains(&record.state.phase());
        let mut own = records.filter(|record| record.job.tenant == query.tenant && wanted(record));
        let jobs: Vec<JobView> = own.by_ref().take(limit).map(|record| record.view(&self.queue)).collect();
        let next = own.next().and_then(|_| jobs.last().map(|last| last.id));
        Page { jobs, next }
    }

    pub(super) fn load(&self, now: Timestamp) -> LedgerLoad {
        let mut lanes: BTreeMap<(&str, Priority), LaneLoad> = BTreeMap::new();
        for record in self.jobs.values().filter(|record| !record.is_terminal()) {
            let (model, priority) = (&record.job.model, record.job.priority);
            let empty = || LaneLoad { model: model.clone(), priority, queued: 0, running: 0, outstanding_ms: 0 };
            let lane = lanes.entry((model, priority)).or_insert_with(empty);
            *if record.state == State::Queued { &mut lane.queued } else { &mut lane.running } += 1;
            lane.outstanding_ms += record.job.cost_ms;
        }
        LedgerLoad {
            lanes: lanes.into_values().collect(),
            bytes: self.usage.bytes,
            capacity: self.capacity(now),
            nodes: self.nodes.values().filter(|node| node.expires > now).count() as u64,
            ended: self.ended.len() as u64,
            untold: self.outbox.untold(),
        }
    }

    pub(super) fn prune(&self, keep: &Retention, now: Timestamp) -> Vec<Stale> {
        let records = || self.ended.iter().map(|(ended, id)| (*ended, &self.jobs[id]));
        let mut bytes = records().fold(0_u64, |sum, (_, record)| sum.saturating_add(record.kept_bytes()));
        let mut count = self.ended.len() as u64;
        let stale = records().take_while(|(ended, record)| {
            let stale = ended.after(keep.ttl) <= now || count > keep.count || bytes > keep.bytes;
            count -= 1;
            bytes = bytes.saturating_sub(record.kept_bytes());
            stale
        });
        stale.take(MAX_PAGE as usize).map(|(_, record)| record.stale()).collect()
    }

    pub(super) fn forget(&mut self, ids: &[JobId]) {
        for id in ids {
            if !self.jobs.get(id).is_some_and(Record::is_terminal) {
                continue;
            }
            let Some(record) = self.jobs.remove(id) else { continue };
            let job = record.job;
            self.ended.remove(&(record.ended.unwrap_or_default(), *id));
            job.key.map(|key| self.keys.remove(&(job.tenant.clone(), key)));
            job.name.as_ref().map(|name| self.names.remove(&(job.tenant.clone(), name.clone())));
            self.departed.push_back((job.tenant, *id, job.name));
        }
        while self.departed.len() as u64 > self.limits.departed {
            self.departed.pop_front();
        }
    }

    pub(super) fn departed(&self, tenant: &Tenant, handle: &str) -> bool {
        let id = handle.parse().ok();
        let is = |name: &Option<String>, job: JobId| id == Some(job) || name.as_deref() == Some(handle);
        self.departed.iter().rev().any(|(owner, job, name)| owner == tenant && is(name, *job))
    }
}
