//! Tasks: where a job's latent starts. One file each.

mod img2img;
mod txt2img;

use ldm_core::task::Work;
use ldm_core::{Failure, FailureKind, Request};
use ldm_nn::AutoencoderKl;
use ldm_sampler::{NoiseSource, Plan, PlanSpec, SchedulerConfig, SigmaSchedule};
use tch::Tensor;

/// The sampler's plan for a request.
pub(crate) fn plan(config: &SchedulerConfig, request: &Request) -> Result<Plan, Failure> {
    let unsupported = |message: String| Failure::new(FailureKind::Unsupported, message);
    let resolved = ldm_sampler::resolve(&request.sampler)
        .ok_or_else(|| unsupported(format!("`sampler` {:?} is not in the registry", request.sampler)))?;
    let schedule = SigmaSchedule::parse(&request.schedule)
        .ok_or_else(|| unsupported(format!("`schedule` {:?} is not in the registry", request.schedule)))?;
    let strength = match &request.work {
        Work::Img2Img(work) => Some(work.strength),
        _ => None,
    };
    let spec = PlanSpec { sampler: resolved.entry.sampler, steps: request.steps as usize, eta: request.eta, schedule, strength };
    ldm_sampler::plan(config, &spec).map_err(|error| unsupported(error.to_string()))
}

/// The latent `[1, C, H/f, W/f]`, float32, that the plan starts from. Draws from `noise` in the order in which diffusers does.
pub(crate) fn start(vae: &AutoencoderKl, request: &Request, plan: &Plan, noise: &mut NoiseSource) -> Result<Tensor, Failure> {
    match &request.work {
        Work::Txt2Img(_) => Ok(txt2img::start(vae, request, plan, noise)),
        Work::Img2Img(work) => img2img::start(vae, request, work, plan, noise),
        other => Err(Failure::new(FailureKind::Unsupported, format!("task {} is not built yet", other.task()))),
    }
}

/// Shape of a request's latent.
fn latent_shape(vae: &AutoencoderKl, request: &Request) -> [i64; 4] {
    let config = vae.config();
    [1, config.latent_channels, i64::from(request.height) / config.factor(), i64::from(request.width) / config.factor()]
}
