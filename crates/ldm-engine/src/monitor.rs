//! Where the engine tells what it does: the HTTP half turns it into metrics.

use std::time::Duration;

use ldm_core::{Ending, Request};

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

/// Told by the engine, from its threads; implementations must be quick, and must not call the service back.
pub trait Monitor: Send + Sync + 'static {
    /// A job was accepted.
    fn accepted(&self, _request: &Request) {}
    /// Jobs that wait, and jobs on the device, changed.
    fn load(&self, _queued: usize, _running: usize) {}
    /// One network call ran `rows` rows for `jobs` jobs.
    fn batch(&self, _jobs: usize, _rows: u32) {}
    /// A stage took that long for one job (for [`Stage::Step`]: for one call).
    fn stage(&self, _stage: Stage, _took: Duration) {}
    /// A job ended.
    fn ended(&self, _request: &Request, _ending: &Ending) {}
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Monitor for Silent {}
