//! The outbox of the ledger in memory: hooks of unfinished jobs, and ends that have not been told yet.

use std::collections::BTreeMap;

use ldm_core::{JobId, Tenant};

use crate::ledger::{Delivery, HOOK_LEASE, Hook, MAX_PAGE, NewJob, Phase, Timestamp};

#[derive(Debug)]
struct Entry {
    tenant: Tenant,
    hook: Hook,
    /// How and when the job ended, and when that is to be told next.
    end: Option<(Phase, Timestamp, Timestamp)>,
    attempts: u32,
}

#[derive(Debug, Default)]
pub(super) struct Outbox(BTreeMap<JobId, Entry>);

impl Outbox {
    pub(super) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    pub(super) fn untold(&self) -> u64 {
        self.0.values().filter(|entry| entry.end.is_some()).count() as u64
    }

    pub(super) fn enter(&mut self, job: &NewJob) {
        if let Some(hook) = job.hook.clone() {
            self.0.insert(job.id, Entry { tenant: job.tenant.clone(), hook, end: None, attempts: 0 });
        }
    }

    pub(super) fn ended(&mut self, job: JobId, phase: Phase, now: Timestamp) {
        let Some(entry) = self.0.get_mut(&job) else { return };
        if entry.hook.endings.contains(&phase) {
            entry.end = Some((phase, now, now));
        } else {
            self.0.remove(&job);
        }
    }

    pub(super) fn take(&mut self, most: u32, now: Timestamp) -> Vec<Delivery> {
        let due = self.0.iter().filter_map(|(job, entry)| Some((entry.end?.2, *job))).filter(|(due, _)| *due <= now);
        let mut due: Vec<(Timestamp, JobId)> = due.collect();
        due.sort_unstable();
        due.truncate(most.min(MAX_PAGE) as usize);
        due.into_iter().filter_map(|(_, job)| self.take_one(job, now)).collect()
    }

    fn take_one(&mut self, job: JobId, now: Timestamp) -> Option<Delivery> {
        let Entry { tenant, hook, end, attempts } = self.0.get_mut(&job)?;
        let (phase, ended, due) = end.as_mut()?;
        *due = now.after(HOOK_LEASE);
        *attempts += 1;
        let (tenant, url) = (tenant.clone(), hook.url.clone());
        Some(Delivery { job, tenant, url, phase: *phase, ended: *ended, attempt: *attempts })
    }

    pub(super) fn settle(&mut self, delivery: &Delivery, again: Option<Timestamp>) -> bool {
        let Some(entry) = self.0.get_mut(&delivery.job).filter(|entry| entry.attempts == delivery.attempt) else { return false };
        match (again, &mut entry.end) {
            (Some(at), Some((_, _, due))) => *due = at,
            _ => drop(self.0.remove(&delivery.job)),
        }
        true
    }
}
