//! Models that come and go under a bound of memory: who waits for one is set aside until it is there.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ldm_core::{Ending, Failure, FailureKind, JobId};

use super::Device;
use crate::executor::ModelChange;
use crate::state::Coming;
use crate::{Executor, Incident, Resident};

/// How long jobs of a model that is not loaded wait for others to end by themselves, at least.
const PATIENCE: Duration = Duration::from_secs(1);

/// Jobs whose models are not loaded, in order of arrival.
#[derive(Default)]
pub(super) struct Cold {
    waiting: Vec<(String, JobId, Instant)>,
    used: HashMap<String, Instant>,
    took: HashMap<String, Duration>,
    /// It takes no new jobs until it has made room.
    leaving: Option<String>,
}

impl Cold {
    pub(super) fn push(&mut self, model: String, id: JobId) {
        self.waiting.push((model, id, Instant::now()));
    }

    pub(super) fn remove(&mut self, id: JobId) {
        self.waiting.retain(|(_, waiting, _)| *waiting != id);
    }

    /// The model that has been waited for longest, and how long.
    fn first(&self) -> Option<(String, Duration)> {
        self.waiting.first().map(|(model, _, since)| (model.clone(), since.elapsed()))
    }

    /// Those who wait for the model wait no longer.
    fn take(&mut self, model: &str) -> Vec<JobId> {
        self.waiting.extract_if(.., |(waiting, ..)| waiting == model).map(|(_, id, _)| id).collect()
    }
}

impl<E: Executor> Device<'_, E> {
    /// Whether a job of that model can be queued at once.
    pub(super) fn is_loaded(&mut self, model: &str) -> bool {
        self.cold.used.insert(model.to_owned(), Instant::now());
        let leaving = self.cold.leaving.as_deref() == Some(model);
        // A model that nobody knows is not waited for: its job fails when it is prepared.
        !leaving && self.desk.book().residents.iter().all(|resident| resident.id != model || resident.loaded)
    }

    /// Loads the model that has been waited for longest, as soon as there is room.
    pub(super) fn warm(&mut self) {
        let Some((model, waited)) = self.cold.first() else { return };
        let residents = self.desk.book().residents.clone();
        let Some(wanted) = residents.iter().find(|resident| resident.id == model) else {
            return self.give_up(&model, &Failure::new(FailureKind::Unsupported, format!("model {model:?} was removed")));
        };
        if wanted.loaded {
            return self.welcome(&model);
        }
        let held: u64 = residents.iter().filter(|resident| resident.loaded).map(|resident| resident.bytes).sum();
        if held == 0 || held.saturating_add(wanted.bytes) <= self.habits.memory {
            return self.load(&model);
        }
        let Some(victim) = self.least_used(&residents) else { return };
        if self.jobs.values().all(|job| job.reporter().request.model != victim) || self.is_drained(&victim) {
            self.evict(&victim);
        } else if waited >= PATIENCE.max(self.cold.took.get(&model).copied().unwrap_or_default()) {
            self.send_away(victim);
        }
    }

    /// The loaded model that was asked for longest ago; of those with jobs only when all have some.
    fn least_used(&self, residents: &[Resident]) -> Option<String> {
        let busy = |id: &str| self.jobs.values().any(|job| job.run.is_some() && job.reporter().request.model == id);
        let loaded = residents.iter().filter(|resident| resident.loaded);
        loaded.min_by_key(|resident| (busy(&resident.id), self.cold.used.get(&resident.id))).map(|resident| resident.id.clone())
    }

    /// Nothing of the model is on the device any more; who waits for it was set aside.
    fn is_drained(&self, model: &str) -> bool {
        let leaving = self.cold.leaving.as_deref() == Some(model);
        leaving && self.jobs.values().all(|job| job.run.is_none() || job.reporter().request.model != model)
    }

    /// Jobs of the model that have not begun are set aside, and new ones too, until it has been evicted.
    fn send_away(&mut self, model: String) {
        if self.cold.leaving.as_ref() == Some(&model) {
            return;
        }
        let unbegun = self.jobs.iter().filter(|(_, job)| job.run.is_none() && job.reporter().request.model == model);
        let mut ids: Vec<JobId> = unbegun.map(|(id, _)| *id).collect();
        ids.sort_unstable();
        for id in ids {
            let Some(job) = self.jobs.get(&id) else { continue };
            let (priority, since) = (job.reporter().terms.priority, job.reporter().submitted);
            let mut book = self.desk.book();
            book.scheduler.remove(id);
            let cost = Duration::try_from_secs_f64(book.costs.solo(&job.price)).unwrap_or_default();
            book.coming.insert(id, Coming { priority, since, cost });
            drop(book);
            self.cold.remove(id);
            self.cold.push(model.clone(), id);
        }
        self.cold.leaving = Some(model);
    }

    fn evict(&mut self, model: &str) {
        let unloaded = self.guarded("unload", |executor| {
            executor.unload(model);
            Ok(())
        });
        if unloaded.is_ok() {
            tracing::info!(model, "model evicted");
            self.monitor().incident(Incident::Evicted(model));
        }
        self.cold.leaving = None;
        self.rehearsals.forget(model);
        self.note_residents();
    }

    fn load(&mut self, model: &str) {
        let began = Instant::now();
        let loaded = self.guarded("load", |executor| executor.load(model));
        let took = began.elapsed();
        self.note_residents();
        match loaded {
            Ok(()) => {
                tracing::info!(model, took_ms = took.as_millis() as u64, "model loaded");
                self.cold.took.insert(model.to_owned(), took);
                self.desk.book().loads.insert(model.to_owned(), took);
                self.monitor().incident(Incident::Loaded(model, took));
                self.learn(model);
                self.welcome(model);
            }
            Err(failure) => {
                tracing::error!(model, %failure, "model not loaded");
                self.monitor().incident(Incident::LoadFailed(model));
                // What the files are called is for the log alone.
                let message = format!("the model {model:?} could not be loaded; the log says why");
                self.give_up(model, &Failure { message, ..failure });
            }
        }
    }

    /// Jobs that waited for the model are queued.
    fn welcome(&mut self, model: &str) {
        self.cold.take(model).into_iter().for_each(|id| self.enqueue(id));
    }

    fn give_up(&mut self, model: &str, failure: &Failure) {
        self.cold.take(model).into_iter().for_each(|id| self.end(id, Ending::Failed(failure.clone())));
    }

    pub(super) fn change(&mut self, change: &ModelChange) -> Result<(), Failure> {
        let began = Instant::now();
        let outcome = self.guarded("change", |executor| executor.change(change));
        tracing::info!(?change, ok = outcome.is_ok(), took_ms = began.elapsed().as_millis() as u64, "models changed");
        let catalogue = self.guarded("catalogue", |executor| Ok(executor.catalogue()));
        if let Ok(catalogue) = catalogue {
            self.desk.offers(catalogue);
        }
        let before = self.desk.book().residents.clone();
        self.note_residents();
        self.learn_changed(change, &before);
        outcome
    }

    /// Weights that are here since the change have costs of their own.
    fn learn_changed(&mut self, change: &ModelChange, before: &[Resident]) {
        let after = self.desk.book().residents.clone();
        for resident in &after {
            let is_reloaded = matches!(change, ModelChange::Reload(id) if *id == resident.id);
            let is_new = !before.contains(resident) || matches!(change, ModelChange::Put(_));
            if resident.loaded && (is_reloaded || is_new) {
                self.learn(&resident.id);
            }
        }
        if let ModelChange::Remove(id) = change {
            self.rehearsals.forget(id);
        }
    }

    /// Jobs that wait for weights and whose deadlines have passed.
    pub(super) fn overdue_cold(&self) -> Vec<JobId> {
        let late = |id: &&JobId| {
            let deadline = self.jobs.get(id).and_then(|job| {
                let reporter = job.reporter();
                reporter.terms.deadline.and_then(|within| reporter.submitted.checked_add(within))
            });
            deadline.is_some_and(|deadline| deadline <= Instant::now())
        };
        self.cold.waiting.iter().map(|(_, id, _)| id).filter(late).copied().collect()
    }

    pub(super) fn note_residents(&mut self) {
        if let Ok(residents) = self.guarded("residents", |executor| Ok(executor.residents())) {
            self.desk.book().residents = residents;
        }
    }
}
