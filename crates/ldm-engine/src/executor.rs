//! What a device thread needs of a model: prepare, evaluate, decode. The engine knows nothing else of tensors.

use std::sync::Arc;

use ldm_core::{Catalogue, Failure, Raster, Request};

/// Jobs with equal keys can share one network call: model, latent shape and conditioning shape;
/// not the task, sampler, steps, guidance or seed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchKey {
    /// The model's id.
    pub model: String,
    /// Latent `[C, H, W]`.
    pub latent: [u32; 3],
    /// Conditioning tokens `[L, D]`.
    pub cross: [u32; 2],
}

/// What a request costs a network call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    /// With whom it can share a call.
    pub key: BatchKey,
    /// Rows per call: 2 under guidance, else 1.
    pub rows: u32,
    /// Rows of this key that one call may hold.
    pub row_cap: u32,
}

/// What one evaluation did for one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advance {
    /// Steps done, from 1. A sampler that evaluates twice per step reports the same step twice.
    pub step: u32,
    /// Steps in all.
    pub steps: u32,
    /// No evaluation is left: decode next.
    pub finished: bool,
}

/// A device with its models. It lives on one thread, which made it, and never leaves it.
///
/// A panic in `prepare`, `evaluate` or `decode` fails the jobs of that call only; after it [`probe`](Self::probe) is called.
pub trait Executor {
    /// A job in flight: latents, registers, plan cursor, conditioning. Dropping it frees its memory.
    type Run;

    /// What this device offers.
    fn catalogue(&self) -> Catalogue;

    /// What the request costs. Must be cheap: it is called once at submission to the device.
    fn price(&self, request: &Request) -> Result<Price, Failure>;

    /// Encodes prompts and pictures, draws the initial noise, makes the sampler's plan.
    fn prepare(&mut self, request: &Arc<Request>) -> Result<Self::Run, Failure>;

    /// One network call for all `runs`, which have one [`BatchKey`], and one update of each: one answer per run, in order.
    fn evaluate(&mut self, runs: &mut [&mut Self::Run]) -> Vec<Result<Advance, Failure>>;

    /// The clean latent as estimated at the last evaluation, as a picture (cheap, possibly small).
    fn preview(&mut self, run: &Self::Run) -> Result<Raster, Failure>;

    /// The finished latent as a picture.
    fn decode(&mut self, run: Self::Run) -> Result<Raster, Failure>;

    /// Whether the device still computes; called after a panic and after a failure of kind `Device`. An error retires the device.
    fn probe(&mut self) -> Result<(), Failure>;
}
