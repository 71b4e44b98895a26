//! The rules that all ledgers keep, as pure functions: bounds, fairness, what follows on a death.

use std::time::Duration;

use ldm_core::{JobId, Priority};

use super::{
    Bound, Full, LedgerError, LedgerLimits, MAX_CRASHES, MAX_NAME, MAX_NOTE, MAX_OBJECTS, MAX_SPEC, MAX_URL, NewJob, ObjectRef,
    Outcome, Release, WORKER_LOST,
};

/// Whose turn it is: the interactive class's, but one of [`LOWER_SHARE`](super::LOWER_SHARE) claims is the lower one's.
#[derive(Clone, Debug, Default)]
pub struct Turns {
    /// Interactive claims since the last one of the lower class, while it waited.
    urgent: u32,
}

impl Turns {
    /// The class of the next claim, of those that have a job waiting.
    pub fn next(&self, interactive: bool, batch: bool) -> Option<Priority> {
        match (interactive, batch) {
            (false, false) => None,
            (true, true) if self.urgent + 1 < super::LOWER_SHARE => Some(Priority::Interactive),
            (_, true) => Some(Priority::Batch),
            (true, false) => Some(Priority::Interactive),
        }
    }

    /// A job of that class was claimed; `batch`: one of the lower class was waiting.
    pub fn took(&mut self, class: Priority, batch: bool) {
        self.urgent = if class == Priority::Interactive && batch { self.urgent + 1 } else { 0 };
    }
}

/// A job's virtual finishing time: self-clocked fair queueing (Golestani 1994, equation 3); `clock` is that of the job
/// claimed last, `last` that of the tenant's last job.
pub fn virtual_finish(clock: u64, last: u64, cost_ms: u64) -> u64 {
    clock.max(last).saturating_add(cost_ms.max(1)).min(i64::MAX as u64)
}

/// What becomes of a job whose holder died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It waits again, at its old place, from now on alone.
    Requeue,
    /// It ends.
    End(Outcome),
}

/// What becomes of a job whose holder died for the `crashes`-th time.
pub fn after_loss(crashes: u32, cancel: bool) -> Loss {
    if cancel {
        Loss::End(Outcome::Canceled)
    } else if crashes >= MAX_CRASHES {
        let message = format!("the process that ran it died {crashes} times");
        Loss::End(Outcome::Failed { reason: WORKER_LOST.to_owned(), message })
    } else {
        Loss::Requeue
    }
}

/// What is taken on already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Unfinished jobs.
    pub jobs: u64,
    /// Unfinished jobs of the tenant in question.
    pub tenant_jobs: u64,
    /// Bytes of unfinished jobs.
    pub bytes: u64,
    /// What unfinished jobs cost.
    pub cost_ms: u64,
    /// All records.
    pub records: u64,
    /// Jobs that live nodes run at once.
    pub capacity: u64,
    /// Ends that are to be told, of unfinished jobs too.
    pub hooks: u64,
}

/// The bound that `job` would break, if any.
pub fn full(limits: &LedgerLimits, usage: Usage, job: &NewJob) -> Option<Full> {
    let (bound, limit) = if usage.jobs >= limits.jobs {
        (Bound::Jobs, limits.jobs)
    } else if usage.tenant_jobs >= limits.tenant_jobs {
        (Bound::TenantJobs, limits.tenant_jobs)
    } else if usage.bytes.saturating_add(live_bytes(job)) > limits.bytes {
        (Bound::Bytes, limits.bytes)
    } else if usage.records >= limits.records {
        (Bound::Records, limits.records)
    } else if job.hook.is_some() && usage.hooks >= limits.hooks {
        (Bound::Hooks, limits.hooks)
    } else {
        return None;
    };
    // One place is free when a mean job has ended on one of the places.
    let place = usage.cost_ms / usage.jobs.max(1) / usage.capacity.max(1);
    Some(Full { bound, limit, retry_after: Duration::from_millis(place.clamp(1_000, 120_000)) })
}

/// Bytes that an unfinished job counts.
pub fn live_bytes(job: &NewJob) -> u64 {
    (job.spec.len() + job.note.len()) as u64 + object_bytes(&job.inputs)
}

/// Bytes that an outcome adds to a record.
pub fn outcome_bytes(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Succeeded { outputs, detail } => detail.len() as u64 + object_bytes(outputs),
        Outcome::Failed { reason, message } => (reason.len() + message.len()) as u64,
        Outcome::Canceled => 0,
    }
}

fn object_bytes(objects: &[ObjectRef]) -> u64 {
    objects.iter().fold(0, |sum, object| sum.saturating_add(object.bytes))
}

/// Whether a job is within bounds.
pub fn check_job(job: &NewJob) -> Result<(), LedgerError> {
    let short = |field, value: &str| at_most(field, value.len(), MAX_NAME, "bytes");
    at_most("spec", job.spec.len(), MAX_SPEC, "bytes")?;
    short("tenant", job.tenant.name())?;
    short("model", &job.model)?;
    short("bucket", &job.bucket)?;
    short("key", job.key.as_deref().unwrap_or_default())?;
    short("name", job.name.as_deref().unwrap_or_default())?;
    at_most("note", job.note.len(), MAX_NOTE, "bytes")?;
    at_most("hook", job.hook.as_ref().map_or(0, |hook| hook.url.len()), MAX_URL, "bytes")?;
    check_objects("inputs", &job.inputs)
}

/// Whether an outcome is within bounds.
pub fn check_outcome(outcome: &Outcome) -> Result<(), LedgerError> {
    match outcome {
        Outcome::Succeeded { outputs, detail } => {
            check_objects("outputs", outputs)?;
            at_most("detail", detail.len(), MAX_SPEC, "bytes")
        }
        Outcome::Failed { reason, message } => {
            at_most("reason", reason.len(), MAX_NAME, "bytes")?;
            at_most("message", message.len(), MAX_SPEC, "bytes")
        }
        Outcome::Canceled => Ok(()),
    }
}

/// Whether objects are within bounds.
pub fn check_objects(field: &'static str, objects: &[ObjectRef]) -> Result<(), LedgerError> {
    at_most(field, objects.len(), MAX_OBJECTS, "objects")?;
    objects.iter().try_for_each(|object| at_most(field, object.key.len().max(object.digest.len()), MAX_NAME, "bytes each"))
}

/// Whether a release is within bounds.
pub fn check_release(why: &Release) -> Result<(), LedgerError> {
    match why {
        Release::Drained { ckpt, .. } => check_objects("ckpt", ckpt.as_slice()),
        Release::Refused | Release::Expired => Ok(()),
    }
}

/// Whether so many jobs may be asked for at once.
pub fn check_ids(ids: &[JobId]) -> Result<(), LedgerError> {
    at_most("ids", ids.len(), super::MAX_PAGE as usize, "ids")
}

fn at_most(field: &'static str, value: usize, limit: usize, unit: &str) -> Result<(), LedgerError> {
    if value <= limit {
        return Ok(());
    }
    Err(LedgerError::Invalid { field, limit: format!("at most {limit} {unit}"), value: value.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_ten_claims_is_the_lower_class_s() {
        let mut turns = Turns::default();
        let classes: Vec<_> = (0..40)
            .map(|_| {
                let class = turns.next(true, true).unwrap();
                turns.took(class, true);
                class
            })
            .collect();
        assert_eq!(classes.iter().filter(|class| **class == Priority::Batch).count(), 4);
        assert_eq!(turns.next(false, true), Some(Priority::Batch));
        assert_eq!(turns.next(true, false), Some(Priority::Interactive));
        assert_eq!(turns.next(false, false), None);
    }

    #[test]
    fn a_stop_that_somebody_wants_comes_before_the_count_of_deaths() {
        assert_eq!(after_loss(2, false), Loss::Requeue);
        assert!(matches!(after_loss(3, false), Loss::End(Outcome::Failed { reason, .. }) if reason == "worker_lost"));
        assert_eq!(after_loss(3, true), Loss::End(Outcome::Canceled));
    }
}
