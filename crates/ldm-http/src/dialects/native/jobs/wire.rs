//! Jobs and their events as JSON.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ldm_core::{FailureKind, JobId, Progress};
use ldm_engine::ledger::{JobState, JobView, ObjectRef, Outcome, Phase, Retention};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::forecast::{self, Live};
use super::replay::last_id;
use crate::App;
use crate::calls::{Entry, Note, State};
use crate::error::{ApiError, told};

/// The answer of `GET /v1/jobs`.
#[derive(Serialize, ToSchema)]
pub(in crate::dialects::native) struct Jobs {
    pub(super) jobs: Vec<Job>,
    /// What `before` takes to go on.
    pub(super) next: Option<String>,
}

/// A job.
#[derive(Serialize, ToSchema)]
pub(crate) struct Job {
    id: String,
    name: Option<String>,
    state: &'static str,
    model: String,
    priority: &'static str,
    /// Jobs that come before it, while it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<u64>,
    /// Steps done of its foremost unfinished picture, while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<u32>,
    /// Steps of that picture in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<u32>,
    /// How much is done, 0 to 1; absent where nothing will come of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<f64>,
    /// Milliseconds until its pictures are there, about.
    #[serde(skip_serializing_if = "Option::is_none")]
    eta_ms: Option<u64>,
    /// Whether it outlives the connection that asked for it.
    kept: bool,
    /// Somebody wants it stopped.
    cancel: bool,
    /// Milliseconds since 1970.
    created_ms: u64,
    started_ms: Option<u64>,
    ended_ms: Option<u64>,
    /// Until then it is kept, unless others need the place.
    expires_ms: Option<u64>,
    /// How often the process that ran it died.
    crashes: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    images: Vec<JobImage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<JobError>,
}

/// A finished picture of a named job.
#[derive(Serialize, ToSchema)]
struct JobImage {
    /// Where it is.
    url: String,
    /// Of the PNG that is kept.
    bytes: u64,
    /// SHA-256 of that file.
    sha256: String,
    /// What made it.
    #[serde(skip_serializing_if = "Value::is_null")]
    #[schema(value_type = Object)]
    parameters: Value,
}

/// Why a job has no pictures.
#[derive(Serialize, ToSchema)]
struct JobError {
    code: String,
    message: String,
}

/// `queued`.
#[derive(Serialize)]
pub(super) struct Queued {
    pub(super) position: u64,
}

/// `progress`.
#[derive(Serialize)]
pub(super) struct Moved {
    image: usize,
    stage: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<u32>,
}

impl Moved {
    pub(super) fn of(image: usize, progress: &Progress) -> Self {
        let stage = |stage| Self { image, stage, step: None, steps: None };
        match progress {
            Progress::Queued { .. } => stage("queue"),
            Progress::Preparing => stage("prepare"),
            Progress::Decoding => stage("decode"),
            Progress::Step { step, steps, .. } => Self { step: Some(*step), steps: Some(*steps), ..stage("step") },
        }
    }
}

/// A passing job's state in a word.
pub(super) fn phase(state: &State) -> Phase {
    match state {
        State::Open(Progress::Queued { .. }) => Phase::Queued,
        State::Open(_) => Phase::Running,
        State::Succeeded => Phase::Succeeded,
        State::Canceled => Phase::Canceled,
        State::Failed(_) => Phase::Failed,
    }
}

impl Job {
    /// A named job as it is now; one that waits with an estimate, where that is asked for.
    pub(super) async fn named(app: &App, view: &JobView, estimate: bool) -> Result<Self, ApiError> {
        let live = forecast::named(app, view, estimate).await?;
        Ok(Self::kept(view, app.node.as_ref().map(|node| node.retention()), live))
    }

    /// A named job as the ledger has it.
    pub(crate) fn kept(view: &JobView, retention: Option<&Retention>, live: Live) -> Self {
        let position = match view.state {
            JobState::Queued { position } => Some(position),
            _ => None,
        };
        let (images, error) = match &view.state {
            JobState::Ended(Outcome::Succeeded { outputs, detail }) => (images(view.id, outputs, detail, &view.note), None),
            JobState::Ended(Outcome::Failed { reason, message }) => {
                let kind = FailureKind::ALL.into_iter().find(|kind| kind.name() == reason);
                let message = kind.map_or_else(|| message.clone(), |kind| told(kind, message.clone()));
                (Vec::new(), Some(JobError { code: reason.clone(), message }))
            }
            _ => (Vec::new(), None),
        };
        let expires = view.ended.zip(retention).map(|(ended, retention)| ended.after(retention.ttl).0);
        Self {
            id: view.id.to_string(),
            name: view.name.clone(),
            state: view.state.name(),
            model: view.model.clone(),
            priority: view.priority.name(),
            position,
            step: None,
            steps: None,
            progress: None,
            eta_ms: None,
            kept: true,
            cancel: view.cancel,
            created_ms: view.created.0,
            started_ms: view.started.map(|time| time.0),
            ended_ms: view.ended.map(|time| time.0),
            expires_ms: expires,
            crashes: view.crashes,
            images,
            error,
        }
        .live(view.state.phase(), live)
    }

    /// A job that runs for a connection, or did.
    pub(super) fn passing(app: &App, entry: &Entry) -> Self {
        let state = entry.state();
        let error = match &state {
            State::Failed(failure) => {
                Some(JobError { code: failure.kind.name().to_owned(), message: told(failure.kind, failure.message.clone()) })
            }
            _ => None,
        };
        let position = match &state {
            State::Open(Progress::Queued { position }) => Some(*position as u64),
            _ => None,
        };
        let phase = phase(&state);
        Self {
            id: entry.id().to_string(),
            name: None,
            state: phase.name(),
            model: entry.request().model.clone(),
            priority: entry.priority().name(),
            position,
            step: None,
            steps: None,
            progress: None,
            eta_ms: None,
            kept: false,
            cancel: false,
            created_ms: ms(entry.created()),
            started_ms: entry.started().map(ms),
            ended_ms: entry.ended().map(ms),
            expires_ms: None,
            crashes: 0,
            images: Vec::new(),
            error,
        }
        .live(phase, forecast::passing(app, entry))
    }

    fn live(self, phase: Phase, live: Live) -> Self {
        let hopeful = matches!(phase, Phase::Queued | Phase::Running | Phase::Succeeded);
        let whole = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            step: live.step.map(|(step, _)| step),
            steps: live.step.map(|(_, steps)| steps),
            progress: hopeful.then(|| (live.share * 1000.0).round() / 1000.0),
            eta_ms: live.eta.map(whole),
            ..self
        }
    }

    /// Its last event, if it has ended: name, data, number.
    pub(super) fn last_event(&self) -> Option<(&'static str, String, u64)> {
        let name = match Phase::named(self.state)? {
            Phase::Queued | Phase::Running => return None,
            Phase::Succeeded => "result",
            ending => ending.name(),
        };
        Some((name, self.text(), last_id(self.ended_ms?)))
    }

    /// As JSON.
    pub(crate) fn text(&self) -> String {
        // A struct of strings and numbers always becomes JSON.
        serde_json::to_string(self).unwrap_or_default()
    }
}

fn ms(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn images(id: JobId, outputs: &[ObjectRef], detail: &str, note: &str) -> Vec<JobImage> {
    let mut details: Vec<Value> = serde_json::from_str(detail).unwrap_or_default();
    details.resize(outputs.len(), Value::Null);
    let encoding = Note::read(note).encoding();
    let image = |(k, (output, mut parameters)): (usize, (&ObjectRef, Value))| {
        if let Value::Object(parameters) = &mut parameters {
            // What is kept is a PNG; what was asked for may be another file.
            parameters.insert("format".to_owned(), encoding.format.name().into());
            if let Some(quality) = encoding.resolved_quality() {
                parameters.insert("quality".to_owned(), quality.into());
            }
        }
        let (bytes, sha256) = (output.bytes, output.digest.clone());
        JobImage { url: format!("/v1/jobs/{id}/images/{k}"), bytes, sha256, parameters }
    };
    outputs.iter().zip(details).enumerate().map(image).collect()
}
