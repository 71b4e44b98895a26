//! The device loop: it owns the executor and every job, and does what the scheduler says, one executor call at a time.

use std::collections::HashMap;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use ldm_core::{Ending, Failure, FailureKind, JobId, Progress};

use crate::guard::{guarded, lock};
use crate::job::Job;
use crate::reporter::Reporter;
use crate::scheduler::{Scheduler, Work};
use crate::state::{Readiness, State};
use crate::{Advance, Executor, Monitor, Stage};

/// What the handles tell the device thread. The inbox is bounded by the permits: at most an admission and a cancel each.
pub(crate) enum Command {
    /// New jobs, in this order.
    Admit(Vec<Reporter>),
    /// The job's ticket was dropped, or it was told to stop.
    Cancel(JobId),
    /// Finish what is here until then, fail the rest, and end.
    Stop(Instant),
}

/// The owner of one device: its executor, its queue, its jobs.
pub(crate) struct Device<E: Executor> {
    executor: E,
    inbox: mpsc::Receiver<Command>,
    scheduler: Scheduler<JobId>,
    jobs: HashMap<JobId, Job<E::Run>>,
    state: Arc<State>,
    /// When the jobs that are still here are failed.
    stop: Option<Instant>,
    /// A call panicked or said that the device is gone: probe before the next.
    suspect: bool,
}

impl<E: Executor> Device<E> {
    pub(crate) fn new(executor: E, inbox: mpsc::Receiver<Command>, running: usize, state: Arc<State>) -> Self {
        let (scheduler, jobs) = (Scheduler::new(running), HashMap::new());
        Self { executor, inbox, scheduler, jobs, state, stop: None, suspect: false }
    }

    /// Works until it is told to stop or nobody is left to tell it anything; an error retired the device.
    pub(crate) fn run(mut self) -> Result<(), Failure> {
        while self.attend() {
            match self.scheduler.next() {
                Work::Prepare(id) => self.prepare(id),
                Work::Evaluate(ids) => self.evaluate(ids),
                Work::Decode(id) => self.decode(id),
                Work::Idle => {}
            }
            if std::mem::take(&mut self.suspect) {
                self.probe()?;
            }
        }
        Ok(())
    }

    /// Obeys the commands that have come; waits for one only when there is nothing to do. `false`: it is time to end.
    fn attend(&mut self) -> bool {
        loop {
            // A suspect device is probed before anything is waited for.
            let idle = self.scheduler.is_empty() && !self.suspect;
            if idle && self.stop.is_some() {
                return false;
            }
            let command = if idle { self.inbox.recv().ok() } else { self.inbox.try_recv().ok() };
            match command {
                Some(Command::Admit(reporters)) => reporters.into_iter().for_each(|reporter| self.admit(reporter)),
                Some(Command::Cancel(id)) => self.end(id, Ending::Cancelled),
                Some(Command::Stop(at)) => self.stop = Some(self.stop.map_or(at, |earlier| earlier.min(at))),
                // Every handle and ticket is gone.
                None if idle => return false,
                None => break,
            }
        }
        if self.stop.is_some_and(|at| at <= Instant::now()) {
            self.end_all(&Failure::new(FailureKind::ShuttingDown, "the service shut down before the job ended"));
            return false;
        }
        for (position, id) in self.scheduler.waiting().enumerate() {
            self.jobs[&id].reporter.progress(Progress::Queued { position });
        }
        true
    }

    fn admit(&mut self, reporter: Reporter) {
        match self.guarded("price", |executor| executor.price(&reporter.request)) {
            Ok(price) => {
                let (id, rows) = (reporter.id, price.rows);
                self.jobs.insert(id, Job::new(reporter, rows));
                self.scheduler.admit(id, price);
            }
            Err(failure) => reporter.end(Ending::Failed(failure)),
        }
    }

    fn prepare(&mut self, id: JobId) {
        let job = self.job(id);
        job.reporter.start();
        job.reporter.progress(Progress::Preparing);
        job.timings.queued = job.lap();
        let (queued, request) = (job.timings.queued, Arc::clone(&job.reporter.request));
        self.monitor().stage(Stage::Queue, queued);
        match self.timed(Stage::Prepare, |executor| executor.prepare(&request)) {
            Ok(run) => {
                let job = self.job(id);
                job.timings.prepare = job.lap();
                job.run = Some(run);
                self.scheduler.prepared(id);
            }
            Err(failure) => self.end(id, Ending::Failed(failure)),
        }
    }

    fn evaluate(&mut self, ids: Vec<JobId>) {
        let mut rows = 0;
        let mut batch: Vec<(JobId, E::Run)> = Vec::with_capacity(ids.len());
        for id in ids {
            let job = self.job(id);
            rows += job.rows;
            batch.push((id, job.run.take().expect("a job that is evaluated was prepared")));
        }
        let answers = self.timed(Stage::Step, |executor| {
            let mut runs: Vec<_> = batch.iter_mut().map(|(_, run)| run).collect();
            let answers = executor.evaluate(&mut runs);
            assert_eq!(answers.len(), runs.len(), "evaluate gives one answer per run");
            Ok(answers)
        });
        self.monitor().batch(batch.len(), rows);
        match answers {
            Ok(answers) => {
                for ((id, run), answer) in batch.into_iter().zip(answers) {
                    match answer {
                        Ok(advance) => self.stepped(id, run, advance),
                        Err(failure) => {
                            self.suspect |= failure.kind == FailureKind::Device;
                            drop(run);
                            self.end(id, Ending::Failed(failure));
                        }
                    }
                }
            }
            Err(failure) => {
                // Their runs go with the panic: nobody knows what state it left them in.
                let ids: Vec<JobId> = batch.into_iter().map(|(id, _)| id).collect();
                ids.into_iter().for_each(|id| self.end(id, Ending::Failed(failure.clone())));
            }
        }
    }

    fn stepped(&mut self, id: JobId, run: E::Run, advance: Advance) {
        let wants_preview = self.job(id).wants_preview(&advance);
        let preview = wants_preview.then(|| self.guarded("preview", |executor| executor.preview(&run)));
        let job = self.job(id);
        job.run = Some(run);
        if let Some(Err(failure)) = &preview {
            tracing::warn!(job = %id, step = advance.step, %failure, "no preview");
        }
        job.stepped(&advance, preview.and_then(Result::ok));
        if advance.finished {
            job.timings.steps = job.lap();
        }
        self.scheduler.stepped(id, advance.finished);
    }

    fn decode(&mut self, id: JobId) {
        let job = self.job(id);
        job.reporter.progress(Progress::Decoding);
        let run = job.run.take().expect("a job that is decoded was prepared");
        let ending = match self.timed(Stage::Decode, |executor| executor.decode(run)) {
            Ok(image) => {
                let job = self.job(id);
                job.timings.decode = job.lap();
                let (output, timings) = (job.output(image), job.timings);
                lock(&self.state.pace).record(timings.total() - timings.queued);
                Ending::Finished(output)
            }
            Err(failure) => Ending::Failed(failure),
        };
        self.end(id, ending);
    }

    // Were this ever untrue, the panic would end the thread, and every job would be told.
    fn job(&mut self, id: JobId) -> &mut Job<E::Run> {
        self.jobs.get_mut(&id).expect("the scheduler knows the jobs that are here and no others")
    }

    /// The job leaves; its memory first, then its permit, then its watcher is told. Unknown jobs have ended already.
    fn end(&mut self, id: JobId, ending: Ending) {
        self.scheduler.remove(id);
        if let Some(Job { reporter, run, .. }) = self.jobs.remove(&id) {
            drop(run);
            reporter.end(ending);
        }
    }

    fn end_all(&mut self, failure: &Failure) {
        let ids: Vec<JobId> = self.jobs.keys().copied().collect();
        ids.into_iter().for_each(|id| self.end(id, Ending::Failed(failure.clone())));
    }

    /// After a panic: whether the device still computes. When not, it is retired with all its jobs.
    fn probe(&mut self) -> Result<(), Failure> {
        let probed = guarded(|| self.executor.probe());
        probed.map_err(|failure| {
            let failure = Failure::new(FailureKind::Device, format!("the device was retired: {}", failure.message));
            // Nobody is let in after the jobs that are failed here.
            self.state.becomes(Readiness::Failed(failure.message.clone()));
            while let Ok(command) = self.inbox.try_recv() {
                if let Command::Admit(reporters) = command {
                    reporters.into_iter().for_each(|reporter| reporter.end(Ending::Failed(failure.clone())));
                }
            }
            self.end_all(&failure);
            failure
        })
    }

    fn timed<T>(&mut self, stage: Stage, call: impl FnOnce(&mut E) -> Result<T, Failure>) -> Result<T, Failure> {
        let began = Instant::now();
        let outcome = self.guarded(stage.name(), call);
        self.monitor().stage(stage, began.elapsed());
        outcome
    }

    fn guarded<T>(&mut self, what: &str, call: impl FnOnce(&mut E) -> Result<T, Failure>) -> Result<T, Failure> {
        let outcome = guarded(|| call(&mut self.executor));
        if let Err(failure) = &outcome {
            match failure.kind {
                FailureKind::Panicked => tracing::error!(call = what, message = failure.message, "an executor call panicked"),
                FailureKind::Device => tracing::error!(call = what, message = failure.message, "the device failed"),
                _ => {}
            }
            self.suspect |= matches!(failure.kind, FailureKind::Panicked | FailureKind::Device);
        }
        outcome
    }

    fn monitor(&self) -> &dyn Monitor {
        self.state.permits.monitor()
    }
}
