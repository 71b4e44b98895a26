//! Where the engine tells what it does: the HTTP half turns it into metrics.

use std::time::Duration;

use ldm_core::{Ending, FailureKind, Request, Tenant, Terms};

use crate::{CacheCounts, Load};

/// A stage of a job's life on the device, as metrics label it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// From submission to preparation.
    Queue,
    /// Encoding prompts and pictures.
    Prepare,
    /// One network call with its updates.
    Step,
    /// Latents to pixels.
    Decode,
}

impl Stage {
    /// The label.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Queue => "queue",
            Stage::Prepare => "prepare",
            Stage::Step => "step",
            Stage::Decode => "decode",
        }
    }
}

/// One network call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch<'a> {
    /// The worker that made it.
    pub worker: &'a str,
    /// Jobs in it.
    pub jobs: usize,
    /// Their rows.
    pub rows: u32,
    /// Rows that it could have held besides, by the key's cap.
    pub spare: u32,
    /// How long it took.
    pub took: Duration,
}

/// What happened to a worker or to its models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incident<'a> {
    /// A model's weights were read, in that time.
    Loaded(&'a str, Duration),
    /// A model's weights could not be read.
    LoadFailed(&'a str),
    /// A model's weights made room for another's.
    Evicted(&'a str),
    /// The worker was retired.
    Retired(&'a str),
    /// The worker starts anew.
    Restarted(&'a str),
    /// A call failed so and its jobs go on: they are tried again, or elsewhere.
    Survived(FailureKind),
}

/// Told by the engine, from its threads; implementations must be quick, and must not call the service back.
pub trait Monitor: Send + Sync + 'static {
    /// A job was accepted.
    fn accepted(&self, _request: &Request, _terms: &Terms) {}
    /// What is unfinished changed.
    fn load(&self, _load: &Load) {}
    /// A network call was made.
    fn batch(&self, _batch: Batch<'_>) {}
    /// A stage took that long for one job (for [`Stage::Step`]: for one call).
    fn stage(&self, _stage: Stage, _took: Duration) {}
    /// A device worked that long for a tenant: its share of the calls.
    fn worked(&self, _tenant: &Tenant, _took: Duration) {}
    /// Prompts' embeddings were found, or computed.
    fn cache(&self, _counts: CacheCounts) {}
    /// So many steps were run for a job that has ended without a picture.
    fn wasted(&self, _steps: u32) {}
    /// Something happened to a worker or its models.
    fn incident(&self, _incident: Incident<'_>) {}
    /// A job ended.
    fn ended(&self, _request: &Request, _terms: &Terms, _ending: &Ending) {}
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Monitor for Silent {}
