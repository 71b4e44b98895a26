//! The engine itself, in this process: no sockets, no pictures' files, any executor.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ldm_core::{Draft, Ending, Failure, Output, Priority, Request, Tenant, Terms};
use ldm_engine::{Batch, Executor, Limits, Load, Monitor, Refused, Service};

use super::{Counters, Outcome, Shot, Stages, Target};
use crate::Kind;
use crate::pictures::Content;

/// A service of this process.
#[derive(Debug)]
pub struct ServiceTarget {
    service: Service,
    tap: Arc<Tap>,
}

/// Counts what the engine tells.
#[derive(Debug, Default)]
struct Tap(Mutex<Counters>);

impl Tap {
    fn count(&self, count: impl FnOnce(&mut Counters)) {
        count(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Monitor for Tap {
    fn load(&self, load: &Load) {
        self.count(|now| now.unfinished = (load.queued + load.running) as f64);
    }

    fn batch(&self, batch: Batch<'_>) {
        self.count(|now| now.called(batch.jobs, batch.rows));
    }

    fn ended(&self, _: &Request, _: &Terms, ending: &Ending) {
        let outcome = match ending {
            Ending::Finished(_) => "finished",
            Ending::Failed(_) => "failed",
            Ending::Cancelled => "cancelled",
        };
        self.count(|now| *now.jobs.entry(outcome.to_owned()).or_default() += 1.0);
    }
}

impl Counters {
    /// One network call. Each number of rows has a bound of its own; a device's cap bounds how many there are.
    fn called(&mut self, jobs: usize, rows: u32) {
        self.steps += jobs as f64;
        self.calls += 1.0;
        self.rows += f64::from(rows);
        let bound = f64::from(rows);
        let at = self.calls_within.partition_point(|(known, _)| *known < bound);
        if self.calls_within.get(at).is_none_or(|(known, _)| *known != bound) {
            let below = at.checked_sub(1).map_or(0.0, |below| self.calls_within[below].1);
            self.calls_within.insert(at, (bound, below));
        }
        self.calls_within[at..].iter_mut().for_each(|(_, calls)| *calls += 1.0);
    }
}

impl ServiceTarget {
    /// Starts a service on what `load` makes, and waits until it takes jobs.
    ///
    /// # Errors
    /// Why it takes none.
    pub async fn start<E, F>(limits: Limits, load: F) -> Result<Self, String>
    where
        E: Executor + 'static,
        F: FnOnce() -> Result<E, Failure> + Send + 'static,
    {
        let tap = Arc::new(Tap::default());
        let service = Service::start(limits, Arc::clone(&tap) as Arc<dyn Monitor>, load);
        service.wait_ready().await?;
        Ok(Self { service, tap })
    }

    /// Finishes what was accepted, and ends the device's thread.
    pub async fn end(&self) {
        self.service.drain(Duration::MAX).await;
    }

    fn requests(&self, shot: &Shot) -> Result<Vec<Request>, String> {
        let catalogue = self.service.catalogue().ok_or("the models are not loaded yet")?;
        draft(&shot.kind, shot).check(&catalogue).map_err(|violations| {
            let all: Vec<_> = violations.0.iter().map(|violation| violation.message.as_str()).collect();
            all.join("; ")
        })
    }
}

/// The shot in the engine's words. A kind's `body` belongs to the wire and has no part here.
fn draft(kind: &Kind, shot: &Shot) -> Draft {
    let sized = kind.task != ldm_core::Task::SuperResolution;
    let mut draft = Draft {
        model: kind.model.clone(),
        prompt: kind.prompt(shot.prompt).map(str::to_owned),
        negative_prompt: kind.negative_prompt.clone(),
        width: kind.width.filter(|_| sized).map(i64::from),
        height: kind.height.filter(|_| sized).map(i64::from),
        steps: kind.steps.map(i64::from),
        sampler: kind.sampler.clone(),
        schedule: kind.schedule.clone(),
        guidance: kind.guidance,
        strength: kind.strength,
        seed: i64::try_from(shot.seed).ok(),
        images: Some(i64::from(kind.images)),
        ..Draft::new(kind.task)
    };
    for drawn in &kind.drawn {
        match (&drawn.content, drawn.field) {
            (Content::Picture(picture), "lr_image") => draft.lr_image = Some(picture.clone()),
            (Content::Picture(picture), _) => draft.init_image = Some(picture.clone()),
            (Content::Plane(plane), "depth_map") => draft.depth = Some(plane.clone()),
            (Content::Plane(plane), _) => draft.mask = Some(plane.clone()),
        }
    }
    draft
}

impl Target for ServiceTarget {
    async fn send(&self, shot: &Shot) -> Outcome {
        let requests = match self.requests(shot) {
            Ok(requests) => requests,
            Err(reason) => return Outcome::Failed { reason },
        };
        let tickets = match self.service.submit_under(requests, &terms(&shot.kind)) {
            Ok(tickets) => tickets,
            Err(refused) => return rejection(&refused),
        };
        let (mut images, mut slowest) = (0, Stages::default());
        for ticket in tickets {
            match ticket.finished().await {
                Ending::Finished(output) => {
                    images += 1;
                    slowest = std::cmp::max_by_key(slowest, stages(&output), Stages::total);
                }
                Ending::Failed(failure) => return Outcome::Failed { reason: failure.to_string() },
                Ending::Cancelled => return Outcome::Failed { reason: "the service cancelled the job".to_owned() },
            }
        }
        Outcome::Done { images, stages: Some(slowest) }
    }

    async fn counters(&self) -> Result<Counters, String> {
        let mut now = Counters::default();
        self.tap.count(|counted| now = counted.clone());
        Ok(now)
    }
}

fn stages(output: &Output) -> Stages {
    let timings = output.timings;
    let encode = std::time::Duration::ZERO;
    Stages { queue: timings.queued, prepare: timings.prepare, steps: timings.steps, decode: timings.decode, encode }
}

/// On whose behalf, and how urgently.
fn terms(kind: &Kind) -> Terms {
    let priority = match kind.priority.as_deref() {
        Some("batch") => Priority::Batch,
        _ => Priority::Interactive,
    };
    Terms { tenant: Tenant::new(&kind.tenant.to_string()), priority, deadline: None }
}

/// As the HTTP edge answers it.
fn rejection(refused: &Refused) -> Outcome {
    match refused {
        Refused::Full { retry_after, .. } | Refused::TenantFull { retry_after, .. } | Refused::NoRoom { retry_after, .. } => {
            Outcome::Rejected { status: 429, retry_after: Some(*retry_after) }
        }
        Refused::NotReady | Refused::Draining | Refused::Failed(_) => Outcome::Rejected { status: 503, retry_after: None },
        other => Outcome::Failed { reason: other.to_string() },
    }
}
