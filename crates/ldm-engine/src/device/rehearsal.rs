//! What calls of a model cost is measured while nobody asks for anything, one call at a time, and kept for the next start.

use std::collections::VecDeque;
use std::time::Duration;

use ldm_core::FailureKind;

use super::Device;
use crate::state::Book;
use crate::{BatchKey, Executor};

/// Calls of each row count: so many are believed.
const CALLS: u32 = 3;
/// Nothing is rehearsed of which a call would probably take longer: a job that comes meanwhile waits for it.
const LONGEST: Duration = Duration::from_secs(1);

/// Models whose calls are still to be measured.
#[derive(Debug)]
pub(super) struct Rehearsals {
    /// For each model.
    budget: Duration,
    coming: VecDeque<String>,
    now: Option<Rehearsal>,
}

#[derive(Clone, Debug)]
struct Rehearsal {
    model: String,
    key: Option<BatchKey>,
    rows: u32,
    /// Calls of that many rows.
    calls: u32,
    spent: Duration,
}

impl Rehearsals {
    /// None yet. Each model may take `budget` of device time, by and large.
    pub(super) fn new(budget: Duration) -> Self {
        Self { budget, coming: VecDeque::new(), now: None }
    }

    fn push(&mut self, model: &str) {
        self.forget(model);
        if !self.budget.is_zero() {
            self.coming.push_back(model.to_owned());
        }
    }

    /// The model has gone, or is another one.
    pub(super) fn forget(&mut self, model: &str) {
        self.coming.retain(|other| other != model);
        self.now.take_if(|now| now.model == model);
    }

    /// Whether there is anything to be measured.
    pub(super) fn is_empty(&self) -> bool {
        self.now.is_none() && self.coming.is_empty()
    }

    fn next(&mut self) -> Option<Rehearsal> {
        let begin = |model| Rehearsal { model, key: None, rows: 1, calls: 0, spent: Duration::ZERO };
        self.now.take().or_else(|| self.coming.pop_front().map(begin))
    }
}

impl<E: Executor> Device<'_, E> {
    /// A model was loaded: what its calls cost is remembered, or measured as soon as there is nothing else to do.
    pub(super) fn learn(&mut self, model: &str) {
        match self.guarded("recall", |executor| Ok(executor.recall(model))) {
            Ok(Some(mut profile)) => {
                let mut book = self.desk.book();
                // What this process has measured itself is newer.
                profile.keys.retain(|key| !book.costs.is_known(&key.key));
                book.costs.import(&profile);
                drop(book);
                self.rehearsals.forget(model);
                tracing::info!(worker = self.desk.name, model, "known what calls cost");
            }
            _ => self.rehearsals.push(model),
        }
    }

    /// One call of the model whose turn it is.
    pub(super) fn rehearse(&mut self) {
        let Some(mut now) = self.rehearsals.next() else { return };
        let outcome = self.guarded("rehearse", |executor| executor.rehearse(&now.model, now.rows));
        let took = match outcome {
            Ok(Some((key, took))) => {
                self.costs(|costs| costs.record_evaluation(&key, now.rows, took));
                now.key = Some(key);
                took
            }
            Ok(None) => return,
            Err(failure) => {
                if failure.kind == FailureKind::OutOfMemory && now.rows > 1 {
                    self.costs(|costs| now.key.iter().for_each(|key| costs.out_of_memory(key, now.rows)));
                    self.relieve();
                    return self.rehearsed(&now);
                }
                tracing::warn!(model = now.model, rows = now.rows, %failure, "calls are not measured");
                return;
            }
        };
        now.calls += 1;
        now.spent += took;
        let mut after = took;
        if now.calls == CALLS {
            (now.rows, now.calls) = (now.rows.saturating_mul(2), 0);
            // Twice the rows take up to twice as long.
            after = took * 2;
        }
        let cap = now.key.as_ref().map_or(0, |key| self.desk.book().costs.cap(key));
        let left = self.rehearsals.budget.saturating_sub(now.spent);
        if now.rows > cap || after * (CALLS - now.calls) > left || (after > LONGEST && now.rows > 1) {
            return self.rehearsed(&now);
        }
        self.rehearsals.now = Some(now);
    }

    fn rehearsed(&mut self, now: &Rehearsal) {
        let Some(key) = &now.key else { return };
        let (profile, cap) = {
            let book = self.desk.book();
            let Book { costs, .. } = &*book;
            let mut profile = costs.profile();
            profile.keys.retain(|known| known.key.model == key.model);
            (profile, costs.cap(key))
        };
        tracing::info!(
            worker = self.desk.name,
            model = now.model,
            cap,
            took_ms = now.spent.as_millis() as u64,
            "calls are measured"
        );
        let kept = self.guarded("rehearsed", |executor| {
            executor.rehearsed(&now.model, &profile);
            Ok(())
        });
        if let Err(failure) = kept {
            tracing::warn!(model = now.model, %failure, "what calls cost is not kept");
        }
    }
}
