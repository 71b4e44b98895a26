//! What a job tells: progress, of which some may be lost, and exactly one ending, which may not.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::{Raster, Request};

/// What a job tells its watcher.
#[derive(Clone, Debug)]
pub enum Event {
    /// Where it is; the latest replaces earlier ones that nobody read.
    Progress(Progress),
    /// How it ended; told once, last.
    Ended(Ending),
}

/// Where a job is.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// Waiting; `position` jobs are to start first (0 is the next to start).
    Queued {
        /// Jobs that start before it.
        position: usize,
    },
    /// Prompts and pictures are being encoded.
    Preparing,
    /// `step` of `steps` is done.
    Step {
        /// Steps done, from 1.
        step: u32,
        /// Steps in all.
        steps: u32,
        /// The newest preview, if the request asked for previews and one was made.
        preview: Option<Preview>,
    },
    /// Latents are being decoded.
    Decoding,
}

/// A picture of the clean latent as the network estimates it half-way.
#[derive(Clone, Debug, PartialEq)]
pub struct Preview {
    /// The step after which it was made, from 1.
    pub step: u32,
    /// The picture, possibly smaller than the result.
    pub image: Raster,
}

/// How a job ended.
#[derive(Clone, Debug)]
pub enum Ending {
    /// With a picture.
    Finished(Output),
    /// With a reason.
    Failed(Failure),
    /// Because its ticket was dropped or it was told to.
    Cancelled,
}

/// A half-done job at a step boundary, as the executor that wrote it reads it. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Steps done.
    pub step: u32,
    /// What the executor needs to go on; opaque to everybody else.
    pub bytes: Arc<[u8]>,
}

impl Ending {
    /// The word that metrics and logs use: `finished`, `cancelled`, or the failure's reason.
    pub fn reason(&self) -> &'static str {
        match self {
            Ending::Finished(_) => "finished",
            Ending::Failed(failure) => failure.kind.name(),
            Ending::Cancelled => "cancelled",
        }
    }
}

/// A finished picture, with what made it.
#[derive(Clone, Debug)]
pub struct Output {
    /// The picture.
    pub image: Raster,
    /// The request with every default and the seed resolved: the same request gives the same picture.
    pub request: Arc<Request>,
    /// Where the time went.
    pub timings: Timings,
}

/// Where a job's time went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// From submission to the start of its preparation.
    pub queued: Duration,
    /// Encoding prompts and pictures.
    pub prepare: Duration,
    /// From the end of preparation to the last step.
    pub steps: Duration,
    /// Latents to pixels.
    pub decode: Duration,
}

impl Timings {
    /// All of it.
    pub fn total(&self) -> Duration {
        self.queued + self.prepare + self.steps + self.decode
    }
}

/// Why a job failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The kind, on which others choose.
    pub kind: FailureKind,
    /// A sentence for a person.
    pub message: String,
}

impl Failure {
    /// A failure of that kind.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.name(), self.message)
    }
}

impl std::error::Error for Failure {}

/// Kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The model cannot do what the checked request asks for; the message says why.
    Unsupported,
    /// The latent or the picture holds NaN or infinity.
    NotFinite,
    /// The device ran out of memory.
    OutOfMemory,
    /// A step panicked.
    Panicked,
    /// The device does not answer.
    Device,
    /// The service is shutting down.
    ShuttingDown,
    /// The deadline passed before the picture was there.
    DeadlineExceeded,
    /// The devices that the job was on went out of service, one after another.
    WorkerLost,
}

impl FailureKind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Unsupported,
        Self::NotFinite,
        Self::OutOfMemory,
        Self::Panicked,
        Self::Device,
        Self::ShuttingDown,
        Self::DeadlineExceeded,
        Self::WorkerLost,
    ];

    /// The word that metrics, logs and wires use.
    pub fn name(self) -> &'static str {
        match self {
            FailureKind::Unsupported => "unsupported",
            FailureKind::NotFinite => "not_finite",
            FailureKind::OutOfMemory => "out_of_memory",
            FailureKind::Panicked => "panicked",
            FailureKind::Device => "device",
            FailureKind::ShuttingDown => "shutting_down",
            FailureKind::DeadlineExceeded => "deadline_exceeded",
            FailureKind::WorkerLost => "worker_lost",
        }
    }
}
