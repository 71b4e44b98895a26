//! Named jobs as JSON.

use std::time::{SystemTime, UNIX_EPOCH};

use ldm_core::{JobId, Progress};
use ldm_engine::ledger::{JobState, JobView, ObjectRef, Outcome};
use serde::Serialize;
use utoipa::ToSchema;

use crate::calls::{Entry, State};

/// The answer of `GET /v1/jobs`.
#[derive(Serialize, ToSchema)]
pub(in crate::dialects::native) struct Jobs {
    pub(super) jobs: Vec<Job>,
    /// What `before` takes to go on.
    pub(super) next: Option<String>,
}

/// A named job.
#[derive(Serialize, ToSchema)]
pub(in crate::dialects::native) struct Job {
    id: String,
    name: Option<String>,
    state: &'static str,
    model: String,
    priority: &'static str,
    /// Jobs that come before it, while it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<u64>,
    /// Steps done, while it runs here for a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<u32>,
    /// Steps in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<u32>,
    /// Whether it outlives the connection that asked for it.
    kept: bool,
    /// Somebody wants it stopped.
    cancel: bool,
    /// Milliseconds since 1970.
    created_ms: u64,
    started_ms: Option<u64>,
    ended_ms: Option<u64>,
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
    bytes: u64,
    /// SHA-256 of the file.
    sha256: String,
    /// What made it.
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    #[schema(value_type = Object)]
    parameters: serde_json::Value,
}

/// Why a named job has no pictures.
#[derive(Serialize, ToSchema)]
struct JobError {
    code: String,
    message: String,
}

impl Job {
    pub(super) fn of(view: &JobView) -> Self {
        let position = match view.state {
            JobState::Queued { position } => Some(position),
            _ => None,
        };
        let (images, error) = match &view.state {
            JobState::Ended(Outcome::Succeeded { outputs, detail }) => (images(view.id, outputs, detail), None),
            JobState::Ended(Outcome::Failed { reason, message }) => {
                (Vec::new(), Some(JobError { code: reason.clone(), message: message.clone() }))
            }
            _ => (Vec::new(), None),
        };
        Self {
            id: view.id.to_string(),
            name: view.name.clone(),
            state: view.state.name(),
            model: view.model.clone(),
            priority: view.priority.name(),
            position,
            step: None,
            steps: None,
            kept: true,
            cancel: view.cancel,
            created_ms: view.created.0,
            started_ms: view.started.map(|time| time.0),
            ended_ms: view.ended.map(|time| time.0),
            crashes: view.crashes,
            images,
            error,
        }
    }
}

impl Job {
    /// A job that runs for a connection, or did.
    pub(super) fn passing(entry: &Entry) -> Self {
        let state = entry.state();
        let (name, error) = match &state {
            State::Open(Progress::Queued { .. }) => ("queued", None),
            State::Open(_) => ("running", None),
            State::Succeeded => ("succeeded", None),
            State::Canceled => ("canceled", None),
            State::Failed(failure) => {
                ("failed", Some(JobError { code: failure.kind.name().to_owned(), message: failure.message.clone() }))
            }
        };
        let (position, step, steps) = match &state {
            State::Open(Progress::Queued { position }) => (Some(*position as u64), None, None),
            State::Open(Progress::Step { step, steps, .. }) => (None, Some(*step), Some(*steps)),
            _ => (None, None, None),
        };
        Self {
            id: entry.id().to_string(),
            name: None,
            state: name,
            model: entry.request().model.clone(),
            priority: entry.priority().name(),
            position,
            step,
            steps,
            kept: false,
            cancel: false,
            created_ms: ms(entry.created()),
            started_ms: None,
            ended_ms: entry.ended().map(ms),
            crashes: 0,
            images: Vec::new(),
            error,
        }
    }
}

fn ms(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn images(id: JobId, outputs: &[ObjectRef], detail: &str) -> Vec<JobImage> {
    let mut details: Vec<serde_json::Value> = serde_json::from_str(detail).unwrap_or_default();
    details.resize(outputs.len(), serde_json::Value::Null);
    let image = |(k, (output, parameters)): (usize, (&ObjectRef, serde_json::Value))| JobImage {
        url: format!("/v1/jobs/{id}/images/{k}"),
        bytes: output.bytes,
        sha256: output.digest.clone(),
        parameters,
    };
    outputs.iter().zip(details).enumerate().map(image).collect()
}
