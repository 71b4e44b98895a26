//! The waiting jobs of the ledger in memory, by class, model and bucket, each in the order of its virtual finishing time.

use std::collections::{BTreeMap, BTreeSet};

use ldm_core::{JobId, Priority};

use crate::ledger::{HOT_BONUS_MS, Lane, Timestamp};

/// A job's place: virtual finishing time, then id.
type Place = (u64, JobId);

/// What the queue needs to know of a job.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) id: JobId,
    pub(super) class: Priority,
    pub(super) model: String,
    pub(super) bucket: String,
    pub(super) vft: u64,
    pub(super) not_before: Option<Timestamp>,
}

/// Waiting jobs; those that are not due yet lie apart.
#[derive(Debug, Default)]
pub(super) struct Queue {
    lanes: BTreeMap<(Priority, String), BTreeMap<String, BTreeSet<Place>>>,
    early: BTreeMap<(Timestamp, JobId), Waiting>,
}

impl Queue {
    pub(super) fn push(&mut self, job: Waiting, now: Timestamp) {
        if let Some(due) = job.not_before.filter(|due| *due > now) {
            self.early.insert((due, job.id), job);
            return;
        }
        let buckets = self.lanes.entry((job.class, job.model)).or_default();
        buckets.entry(job.bucket).or_default().insert((job.vft, job.id));
    }

    pub(super) fn remove(&mut self, job: &Waiting) {
        if let Some(due) = job.not_before {
            self.early.remove(&(due, job.id));
        }
        let lane = (job.class, job.model.clone());
        let Some(buckets) = self.lanes.get_mut(&lane) else { return };
        if let Some(places) = buckets.get_mut(&job.bucket) {
            places.remove(&(job.vft, job.id));
            if places.is_empty() {
                buckets.remove(&job.bucket);
            }
        }
        if buckets.is_empty() {
            self.lanes.remove(&lane);
        }
    }

    /// Moves what is due by now to its place; whether there was any.
    pub(super) fn mature(&mut self, now: Timestamp) -> bool {
        let mut any = false;
        while let Some(entry) = self.early.first_entry().filter(|entry| entry.key().0 <= now) {
            let job = entry.remove();
            self.push(job, now);
            any = true;
        }
        any
    }

    /// The next job of a class in the wanted lanes: the least virtual time, that of hot buckets counted less.
    pub(super) fn head(&self, class: Priority, lanes: &[Lane]) -> Option<JobId> {
        let wanted = lanes.iter().filter(|lane| lane.priority == class);
        let heads = wanted.flat_map(|lane| {
            let buckets = self.lanes.get(&(class, lane.model.clone())).into_iter().flatten();
            buckets.filter_map(move |(bucket, places)| {
                let &(vft, id) = places.first()?;
                let bonus = if lane.hot.contains(bucket) { HOT_BONUS_MS } else { 0 };
                Some((vft.saturating_sub(bonus), vft, id))
            })
        });
        heads.min().map(|(_, _, id)| id)
    }

    /// Jobs of its class and model that come before it; those that are not due come last.
    pub(super) fn position(&self, job: &Waiting) -> u64 {
        let Some(buckets) = self.lanes.get(&(job.class, job.model.clone())) else { return 0 };
        let waits = buckets.get(&job.bucket).is_some_and(|places| places.contains(&(job.vft, job.id)));
        let ahead = |places: &BTreeSet<Place>| if waits { places.range(..(job.vft, job.id)).count() } else { places.len() };
        buckets.values().map(|places| ahead(places) as u64).sum()
    }
}
