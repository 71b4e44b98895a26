//! What goes wrong: calls that panic or run out of memory, devices that do not answer. One bad job never harms a neighbour.

use std::sync::mpsc::Receiver;

use ldm_core::{Ending, Failure, FailureKind, JobId};

use super::{Command, Device};
use crate::executor::BatchKey;
use crate::guard::guarded;
use crate::job::Parcel;
use crate::{Executor, Incident};

/// Faults after which a job has failed: it was alone in the last one.
const MOST_FAULTS: u32 = 3;
/// Calls of a job alone that may run out of memory before it has failed.
const MOST_STARVED: u32 = 2;

/// Whether a job that was in a call that broke has failed. Who shared a call that panicked has not, whatever befell it before: the
/// next one tells.
fn is_over(kind: FailureKind, was_alone: bool, faults: u32) -> bool {
    match kind {
        FailureKind::Panicked => was_alone,
        _ => faults >= MOST_FAULTS,
    }
}

/// A device that is out of service, and the jobs that were on it or on their way to it.
pub(crate) struct Retired {
    pub(crate) failure: Failure,
    pub(crate) jobs: Vec<Parcel>,
    /// It had been told to stop.
    pub(crate) stopping: bool,
}

impl<E: Executor> Device<'_, E> {
    /// Some jobs of a call failed; their runs are as they were.
    pub(super) fn failed(&mut self, key: &BatchKey, rows: u32, jobs: usize, failures: Vec<(JobId, Failure)>) {
        if failures.iter().any(|(_, failure)| failure.kind == FailureKind::OutOfMemory) {
            self.costs(|costs| costs.out_of_memory(key, rows));
            self.relieve();
        }
        for (id, failure) in failures {
            self.suspect |= matches!(failure.kind, FailureKind::Device | FailureKind::Panicked);
            match failure.kind {
                FailureKind::OutOfMemory => self.starve(id, failure, jobs),
                FailureKind::Device => self.again(id, failure),
                FailureKind::Panicked if jobs > 1 => self.again(id, failure),
                _ => self.end(id, Ending::Failed(failure)),
            }
        }
    }

    /// A call of several rows is made again with fewer; a job alone is tried once more with what memory was let go of.
    fn starve(&mut self, id: JobId, failure: Failure, jobs: usize) {
        let job = self.job(id);
        job.starved += u32::from(jobs == 1);
        if job.starved >= MOST_STARVED {
            return self.end(id, Ending::Failed(failure));
        }
        // Nothing was done to it: it stays in line, and the next call is smaller.
        self.monitor().incident(Incident::Survived(FailureKind::OutOfMemory));
    }

    pub(super) fn relieve(&mut self) {
        let relieved = self.guarded("relieve", |executor| {
            executor.relieve();
            Ok(())
        });
        if let Err(failure) = relieved {
            tracing::warn!(%failure, "memory could not be let go of");
        }
    }

    /// A call panicked with these jobs in it: each goes on by itself, from its last checkpoint, so that who broke it breaks
    /// alone.
    pub(super) fn panicked(&mut self, ids: Vec<JobId>, failure: &Failure) {
        if let [one] = ids[..] {
            return self.end(one, Ending::Failed(failure.clone()));
        }
        ids.into_iter().for_each(|id| self.again(id, failure.clone()));
    }

    /// The job starts again from its last checkpoint, alone; after too many faults it has failed.
    pub(super) fn again(&mut self, id: JobId, failure: Failure) {
        let job = self.job(id);
        let was_alone = std::mem::replace(&mut job.parcel.alone, true);
        job.parcel.faults += 1;
        if is_over(failure.kind, was_alone, job.parcel.faults) {
            return self.end(id, Ending::Failed(failure));
        }
        job.run = None;
        tracing::warn!(job = %id, %failure, faults = job.parcel.faults, "the job is tried again, alone");
        self.monitor().incident(Incident::Survived(failure.kind));
        self.desk.book().scheduler.remove(id);
        self.enqueue(id);
    }

    /// After a panic: whether the device still computes. When not, it is retired, and its jobs go elsewhere.
    pub(super) fn probe(&mut self) -> Result<(), Retired> {
        let Err(failure) = guarded(|| self.executor.probe()) else { return Ok(()) };
        let message = format!("the device was retired: {}", failure.message);
        self.monitor().incident(Incident::Retired(&self.desk.name));
        let (jobs, stopping) = self.leave();
        Err(Retired { failure: Failure::new(FailureKind::Device, message), jobs, stopping })
    }

    /// Every job that is here or on its way here.
    fn leave(&mut self) -> (Vec<Parcel>, bool) {
        let jobs = std::mem::take(&mut self.jobs).into_values();
        let mut parcels: Vec<Parcel> = jobs.map(|job| Parcel { faults: job.parcel.faults + 1, ..job.parcel }).collect();
        // In the order in which they came.
        parcels.sort_by_key(|parcel| parcel.reporter.id);
        let (late, stopped) = late(self.inbox);
        parcels.extend(late);
        (parcels, stopped || self.stop.is_some())
    }
}

/// Jobs that were sent to a device that has gone, and whether it was told to stop.
pub(crate) fn late(inbox: &Receiver<Command>) -> (Vec<Parcel>, bool) {
    let (mut parcels, mut stopped) = (Vec::new(), false);
    for command in inbox.try_iter() {
        match command {
            Command::Admit(parcel) => parcels.push(*parcel),
            Command::Stop(_) => stopped = true,
            // Tickets remember that they were cancelled; who wanted a change sees that it was not made.
            Command::Cancel(_) | Command::Change(..) => {}
        }
    }
    (parcels, stopped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_shared_a_call_that_panicked_has_not_failed() {
        assert!(!is_over(FailureKind::Panicked, false, MOST_FAULTS), "two devices were lost under it before");
        assert!(is_over(FailureKind::Panicked, true, 1));
        assert!(!is_over(FailureKind::Device, true, MOST_FAULTS - 1));
        assert!(is_over(FailureKind::Device, true, MOST_FAULTS));
    }
}
