//! NaN and infinity, caught at the step at which they come.

use ldm_core::{Failure, FailureKind};
use tch::Tensor;

use crate::run::{Next, Run};

/// Those whose latents hold neither NaN nor infinity. One small transfer for a whole call; on a GPU it also waits for the step,
/// so that what a step took is what was measured.
pub(super) fn finite(nexts: Vec<Result<Next, Failure>>) -> Result<Vec<Result<Next, Failure>>, Failure> {
    let latents = nexts.iter().filter_map(|next| next.as_ref().ok()?.registers[0].as_ref());
    let flags: Vec<Tensor> = latents.map(|latent| latent.isfinite().all()).collect();
    if flags.is_empty() {
        return Ok(nexts);
    }
    let flags = Vec::<bool>::try_from(Tensor::stack(&flags, 0).to_device(tch::Device::Cpu));
    let mut flags = flags.map_err(|error| Failure::new(FailureKind::Device, error.to_string()))?.into_iter();
    let mut check = |next| match flags.next() {
        Some(false) => Err(Failure::new(FailureKind::NotFinite, "the latent holds NaN or infinity")),
        _ => Ok(next),
    };
    Ok(nexts.into_iter().map(|next| next.and_then(&mut check)).collect())
}

/// The failure with the step at which it came.
pub(super) fn at_step(run: &Run, failure: Failure) -> Failure {
    match failure.kind {
        FailureKind::NotFinite => {
            let (step, steps) = run.place();
            Failure::new(failure.kind, format!("{} after step {step} of {steps}", failure.message))
        }
        _ => failure,
    }
}
