//! What a device thread needs of a model: prepare, evaluate, decode. The engine knows nothing else of tensors.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use ldm_core::{Catalogue, Checkpoint, Failure, Raster, Request};

use crate::cost::Profile;

/// Jobs with equal keys can share one network call: model, latent shape and conditioning shape;
/// not the task, sampler, steps, guidance or seed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchKey {
    /// The weights: the model's id, and after a reload something more.
    pub model: String,
    /// Latent `[C, H, W]`.
    pub latent: [u32; 3],
    /// Conditioning tokens `[L, D]`.
    pub cross: [u32; 2],
}

/// What a request costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    /// With whom it can share a call.
    pub key: BatchKey,
    /// Rows per call: 2 under guidance, else 1.
    pub rows: u32,
    /// Network calls that are left.
    pub evaluations: u32,
}

/// A job that is ready for its first network call.
#[derive(Debug)]
pub struct Prepared<R> {
    /// The job.
    pub run: R,
    /// What is left of it.
    pub price: Price,
}

/// What one evaluation did for one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advance {
    /// Steps done, from 1. A sampler that evaluates twice per step reports the same step twice.
    pub step: u32,
    /// Steps in all.
    pub steps: u32,
    /// Network calls that are left; 0: decode next.
    pub left: u32,
    /// What is left costs something else now, because the latent changed its shape between two passes.
    pub moved: Option<Price>,
}

/// How a latent is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoding {
    /// As the executor sees fit.
    Usual,
    /// With as little memory as possible.
    Frugal,
}

/// A model of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resident {
    /// Its id.
    pub id: String,
    /// Whether its weights are there.
    pub loaded: bool,
    /// Bytes that it takes, or will take, when loaded.
    pub bytes: u64,
}

/// How often a cache was asked in vain and otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheCounts {
    /// It was there.
    pub hits: u64,
    /// It was not.
    pub misses: u64,
}

/// A change of a device's models.
#[derive(Clone)]
pub enum ModelChange {
    /// Add the model, or replace the one of that id. What the source is, the executor knows.
    Put(Arc<dyn Any + Send + Sync>),
    /// Forget the model.
    Remove(String),
    /// Read the model's files again.
    Reload(String),
}

impl std::fmt::Debug for ModelChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Put(_) => f.write_str("Put"),
            Self::Remove(id) => f.debug_tuple("Remove").field(id).finish(),
            Self::Reload(id) => f.debug_tuple("Reload").field(id).finish(),
        }
    }
}

/// A device with its models. It lives on one thread, which made it, and never leaves it.
///
/// A failure of any call concerns the jobs of that call only. A failed `evaluate` leaves a run as it was unless it panics: then
/// nobody knows, and the engine starts the jobs of that call again, one by one. After a panic and after a failure of kind
/// `Device`, [`probe`](Self::probe) is called.
pub trait Executor {
    /// A job in flight: latents, registers, plan cursor, conditioning. It keeps the weights that it began with. Dropping it frees
    /// its memory.
    type Run;

    /// What this device offers: models that are loaded, and models that can be.
    fn catalogue(&self) -> Catalogue;

    /// What the request costs. Must be cheap: it is called once per job. The model may be one that is not loaded: then a guess
    /// will do, for [`prepare`](Self::prepare) gives the truth.
    fn price(&self, request: &Request) -> Result<Price, Failure>;

    /// Memory that the request needs on the device beside the weights, at the most and about, in bytes; `None` where it is not known.
    /// As cheap as [`price`](Self::price).
    fn working_bytes(&self, _request: &Request) -> Option<u64> {
        None
    }

    /// Encodes prompts and pictures, draws the initial noise, makes the sampler's plan.
    fn prepare(&mut self, request: &Arc<Request>) -> Result<Prepared<Self::Run>, Failure>;

    /// One network call for all `runs`, which have one [`BatchKey`], and one update of each: one answer per run, in order.
    fn evaluate(&mut self, runs: &mut [&mut Self::Run]) -> Vec<Result<Advance, Failure>>;

    /// The clean latent as estimated at the last evaluation, as a picture (cheap, possibly small).
    fn preview(&mut self, run: &Self::Run) -> Result<Raster, Failure>;

    /// The finished latent as a picture. Called again, frugally, when there was not enough memory.
    fn decode(&mut self, run: &mut Self::Run, how: Decoding) -> Result<Raster, Failure>;

    /// Whether the device still computes. An error retires the device.
    fn probe(&mut self) -> Result<(), Failure>;

    /// The job as plain data, between two evaluations.
    fn checkpoint(&mut self, run: &Self::Run) -> Result<Checkpoint, Failure>;

    /// The job as it was when the checkpoint was written. When that was another model, or another version of this program, the
    /// job starts from the beginning.
    fn restore(&mut self, request: &Arc<Request>, checkpoint: &Checkpoint) -> Result<Prepared<Self::Run>, Failure>;

    /// Lets go of memory that is not needed just now; called before a call that ran out of memory is tried again.
    fn relieve(&mut self) {}

    /// What an earlier process measured of the model's calls, with the same weights on the same machine.
    fn recall(&mut self, _model: &str) -> Option<Profile> {
        None
    }

    /// One network call of so many rows of a loaded model at its usual size, made to be timed: whose call it was, and how long it
    /// took. `None`: nothing is measured here.
    fn rehearse(&mut self, _model: &str, _rows: u32) -> Result<Option<(BatchKey, Duration)>, Failure> {
        Ok(None)
    }

    /// The rehearsals of the model are over; what was measured is to be found again by [`recall`](Self::recall).
    fn rehearsed(&mut self, _model: &str, _profile: &Profile) {}

    /// How often a prompt's embedding was found, and had to be computed, since the start.
    fn cache(&self) -> CacheCounts {
        CacheCounts::default()
    }

    /// The models of the catalogue, loaded or not.
    fn residents(&self) -> Vec<Resident>;

    /// Reads the model's weights.
    fn load(&mut self, model: &str) -> Result<(), Failure>;

    /// Frees the model's weights, as soon as the jobs that run on them have ended.
    fn unload(&mut self, model: &str);

    /// Changes the models; jobs that are running keep the weights that they began with.
    fn change(&mut self, change: &ModelChange) -> Result<(), Failure>;
}
