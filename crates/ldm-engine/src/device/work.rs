//! Preparing, evaluating and decoding jobs.

use std::sync::Arc;
use std::time::Duration;

use ldm_core::{Ending, Failure, FailureKind, JobId, Progress};

use super::Device;
use crate::executor::{CacheCounts, Decoding};
use crate::state::Book;
use crate::{Advance, Batch, Executor, Incident, Prepared, Stage};

impl<E: Executor> Device<'_, E> {
    pub(super) fn prepare(&mut self, id: JobId) {
        let job = self.job(id);
        job.parcel.reporter.start();
        job.reporter().progress(Progress::Preparing);
        let waited = job.lap();
        job.timings.queued += waited;
        let (request, checkpoint) = (Arc::clone(&job.reporter().request), job.parcel.checkpoint.clone());
        self.monitor().stage(Stage::Queue, waited);
        let prepare = |executor: &mut E| match &checkpoint {
            Some(checkpoint) => executor.restore(&request, checkpoint),
            None => executor.prepare(&request),
        };
        let (mut prepared, mut took) = self.timed(Stage::Prepare, prepare);
        if is_out_of_memory(&prepared) {
            self.relieve();
            (prepared, took) = self.timed(Stage::Prepare, prepare);
            self.survived(&prepared);
        }
        self.tell_cache();
        match prepared {
            Ok(Prepared { run, price }) => {
                self.costs(|costs| costs.record_prepare(&price.key, took));
                self.worked(&[id], took);
                let job = self.job(id);
                let lap = job.lap();
                job.timings.prepare += lap;
                job.run = Some(run);
                job.price = price.clone();
                let mut book = self.desk.book();
                let Book { scheduler, costs, .. } = &mut *book;
                let left = price.evaluations;
                scheduler.prepared(id, price, costs);
                if left == 0 {
                    // A checkpoint of a job that was only to be decoded.
                    scheduler.stepped(id, 0);
                }
            }
            Err(failure) => self.broke(id, failure),
        }
    }

    pub(super) fn evaluate(&mut self, ids: Vec<JobId>) {
        let mut rows = 0;
        let key = self.job(ids[0]).price.key.clone();
        let mut batch: Vec<(JobId, E::Run)> = Vec::with_capacity(ids.len());
        for &id in &ids {
            let job = self.job(id);
            rows += job.price.rows;
            batch.push((id, job.run.take().expect("a job that is evaluated was prepared")));
        }
        let (answers, took) = self.timed(Stage::Step, |executor| {
            let mut runs: Vec<_> = batch.iter_mut().map(|(_, run)| run).collect();
            let answers = executor.evaluate(&mut runs);
            assert_eq!(answers.len(), runs.len(), "evaluate gives one answer per run");
            Ok(answers)
        });
        let cap = self.desk.book().costs.cap(&key);
        self.monitor().batch(Batch { worker: &self.desk.name, jobs: batch.len(), rows, spare: cap.saturating_sub(rows), took });
        match answers {
            Ok(answers) => {
                if answers.iter().all(Result::is_ok) {
                    self.costs(|costs| costs.record_evaluation(&key, rows, took));
                }
                self.worked(&ids, took);
                let mut failures = Vec::new();
                for ((id, run), answer) in batch.into_iter().zip(answers) {
                    self.job(id).run = Some(run);
                    match answer {
                        Ok(advance) => self.stepped(id, advance),
                        Err(failure) => failures.push((id, failure)),
                    }
                }
                self.failed(&key, rows, ids.len(), failures);
            }
            // Their runs go with the panic: nobody knows what state it left them in.
            Err(failure) => self.panicked(ids, &failure),
        }
    }

    /// What the executor's cache has done since this was last told.
    fn tell_cache(&mut self) {
        let Ok(now) = self.guarded("cache", |executor| Ok(executor.cache())) else { return };
        let CacheCounts { hits, misses } = std::mem::replace(&mut self.cache, now);
        let new = CacheCounts { hits: now.hits.saturating_sub(hits), misses: now.misses.saturating_sub(misses) };
        if new != CacheCounts::default() {
            self.monitor().cache(new);
        }
    }

    fn stepped(&mut self, id: JobId, advance: Advance) {
        let job = self.job(id);
        job.starved = 0;
        let run = job.run.take().expect("it was put back just now");
        let preview = job.wants_preview(&advance).then(|| self.guarded("preview", |executor| executor.preview(&run)));
        let checkpoint_every = self.habits.checkpoint_every;
        let job = self.job(id);
        job.run = Some(run);
        if let Some(Err(failure)) = &preview {
            tracing::warn!(job = %id, step = advance.step, %failure, "no preview");
        }
        job.stepped(&advance, preview.and_then(Result::ok));
        if advance.left == 0 {
            let lap = job.lap();
            job.timings.steps += lap;
        }
        let due = advance.left > 0 && job.is_due(checkpoint_every);
        let mut book = self.desk.book();
        if let Some(price) = advance.moved {
            let Book { scheduler, costs, .. } = &mut *book;
            scheduler.moved(id, price.clone(), costs);
            drop(book);
            self.job(id).price = price;
        } else {
            book.scheduler.stepped(id, advance.left);
            drop(book);
        }
        if due {
            self.keep(id);
        }
    }

    /// Writes the job's checkpoint, for another device or a later process.
    pub(super) fn keep(&mut self, id: JobId) {
        let Some(run) = self.jobs.get_mut(&id).and_then(|job| job.run.take()) else { return };
        let checkpoint = self.guarded("checkpoint", |executor| executor.checkpoint(&run));
        let job = self.job(id);
        job.run = Some(run);
        match checkpoint {
            Ok(checkpoint) => {
                if let Some(keeper) = &job.reporter().keeper {
                    keeper.keep(checkpoint.clone());
                }
                job.parcel.checkpoint = Some(checkpoint);
            }
            Err(failure) => tracing::warn!(job = %id, %failure, "no checkpoint"),
        }
    }

    pub(super) fn decode(&mut self, id: JobId) {
        let job = self.job(id);
        job.reporter().progress(Progress::Decoding);
        let mut run = job.run.take().expect("a job that is decoded was prepared");
        let key = job.price.key.clone();
        let (mut image, mut took) = self.timed(Stage::Decode, |executor| executor.decode(&mut run, Decoding::Usual));
        if is_out_of_memory(&image) {
            self.relieve();
            (image, took) = self.timed(Stage::Decode, |executor| executor.decode(&mut run, Decoding::Frugal));
            self.survived(&image);
        }
        drop(run);
        self.worked(&[id], took);
        match image {
            Ok(image) => {
                self.costs(|costs| costs.record_decode(&key, took));
                let job = self.job(id);
                let lap = job.lap();
                job.timings.decode += lap;
                let output = job.output(image);
                self.desk.finished_one();
                self.end(id, Ending::Finished(output));
            }
            Err(failure) => self.broke(id, failure),
        }
    }

    /// A call that ran out of memory was made again, with that outcome.
    fn survived<T>(&self, outcome: &Result<T, Failure>) {
        if outcome.is_ok() {
            self.monitor().incident(Incident::Survived(FailureKind::OutOfMemory));
        }
    }

    /// Each of `ids` had its share of a call.
    fn worked(&mut self, ids: &[JobId], took: Duration) {
        let rows = |device: &Self, id| device.jobs.get(id).map_or(0, |job| job.price.rows);
        let all: u32 = ids.iter().map(|id| rows(self, id)).sum();
        for id in ids {
            if let Some(job) = self.jobs.get(id) {
                self.monitor().worked(&job.reporter().terms.tenant, took * job.price.rows / all.max(1));
            }
        }
    }

    /// A call for this job alone failed.
    fn broke(&mut self, id: JobId, failure: Failure) {
        match failure.kind {
            // The device may be the one to blame: the probe tells, and the job is tried once more if it is not retired.
            FailureKind::Device => self.again(id, failure),
            _ => self.end(id, Ending::Failed(failure)),
        }
    }
}

fn is_out_of_memory<T>(outcome: &Result<T, Failure>) -> bool {
    matches!(outcome, Err(failure) if failure.kind == FailureKind::OutOfMemory)
}
