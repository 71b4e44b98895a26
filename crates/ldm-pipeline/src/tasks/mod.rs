//! Tasks: where a job's latent starts, what is laid beside it, and what happens to the decoded picture. One file each.

mod depth;
mod img2img;
mod inpaint;
mod semantic;
mod super_resolution;
mod txt2img;

pub(crate) use super_resolution::padded;

use ldm_core::task::Work;
use ldm_core::{Failure, FailureKind, Library, Random, Request};
use ldm_nn::FirstStage;
use ldm_sampler::{
    GuidanceSpec, NoiseSource, NoiseSpec, Plan, PlanError, PlanSpec, RandomSource, SchedulerConfig, SigmaSchedule, Spacing,
    Variant, Variation,
};
use tch::{Kind, Tensor};

use crate::masking::Overlay;
use crate::run::draw;
use crate::system::Concat;

/// The sampler's plan for a request.
pub(crate) fn plan(config: &SchedulerConfig, request: &Request) -> Result<Plan, Failure> {
    // A strength of 1 in inpainting is no img2img: nothing of the picture is left under the mask.
    let strength = match &request.work {
        Work::Inpaint(work) if work.strength == 1. => None,
        work => work.strength(),
    };
    plan_of(config, request, strength)
}

/// The plan that runs that share of the schedule.
pub(crate) fn plan_of(config: &SchedulerConfig, request: &Request, strength: Option<f64>) -> Result<Plan, Failure> {
    let unsupported = |message: String| Failure::new(FailureKind::Unsupported, message);
    let resolved = ldm_sampler::resolve(&request.sampler)
        .ok_or_else(|| unsupported(format!("`sampler` {:?} is not in the registry", request.sampler)))?;
    let schedule = SigmaSchedule::parse(&request.schedule)
        .ok_or_else(|| unsupported(format!("`schedule` {:?} is not in the registry", request.schedule)))?;
    let sampler = resolved.entry.sampler;
    let tuning = &request.tuning;
    let spec = PlanSpec {
        eta: request.eta,
        schedule,
        strength,
        variant: match tuning.library {
            Library::Diffusers => Variant::DIFFUSERS,
            Library::KDiffusion => Variant::K_DIFFUSION,
        },
        guidance: GuidanceSpec { rescale: tuning.guidance_rescale, interval: tuning.guidance_interval },
        ..PlanSpec::new(sampler, request.steps as usize)
    };
    spaced(config, &spec).map_err(|error| unsupported(error.to_string()))
}

/// The plan. Some numbers of steps (3, 9, 27 …) make CompVis' rule step over the last trained timestep, where its own code fails:
/// they are spaced as diffusers does it.
fn spaced(config: &SchedulerConfig, spec: &PlanSpec) -> Result<Plan, PlanError> {
    match ldm_sampler::plan(config, spec) {
        Err(PlanError::TimestepBeyondTraining { .. }) if config.timestep_spacing == Some(Spacing::Compvis) => {
            ldm_sampler::plan(config, &PlanSpec { spacing: Some(Spacing::Leading), ..spec.clone() })
        }
        made => made,
    }
}

/// The job's own noise.
pub(crate) fn noise(request: &Request) -> NoiseSource {
    let tuning = &request.tuning;
    let source = match tuning.random {
        Random::Cpu => RandomSource::Cpu,
        Random::Gpu => RandomSource::Nvidia,
    };
    let variation = tuning.variation.map(|variation| Variation { seed: variation.seed, strength: variation.strength });
    NoiseSource::with(NoiseSpec { seed: request.seed, source, variation, eta_seed_delta: tuning.eta_seed_delta })
}

/// How a job starts, and what is kept for its end.
pub(crate) struct Start {
    /// What the plan starts from, float32 `[1, C, H/f, W/f]`.
    pub(crate) latent: Tensor,
    /// Laid beside the latent at every step, float32 `[1, C', H/f, W/f]`.
    pub(crate) concat: Option<Tensor>,
    /// What is put back after every step.
    pub(crate) keep: Option<Keep>,
    /// What is laid over the decoded picture.
    pub(crate) paste: Option<Paste>,
    /// How the drawn picture is laid over the one that came in.
    pub(crate) overlay: Option<Overlay>,
    /// Height and width of the picture where the latent is larger.
    pub(crate) crop: Option<[i64; 2]>,
}

impl Start {
    fn at(latent: Tensor) -> Self {
        Self { latent, concat: None, keep: None, paste: None, overlay: None, crop: None }
    }
}

/// The part of a latent that an inpainting must not change, for a denoiser that does not see the mask.
pub(crate) struct Keep {
    /// The picture's latent, `[1, C, H/f, W/f]`.
    pub(crate) clean: Tensor,
    /// The job's first noise.
    pub(crate) noise: Tensor,
    /// 1 where it is painted, `[1, 1, H/f, W/f]`.
    pub(crate) mask: Tensor,
}

/// A picture that shows where the mask does not paint.
pub(crate) struct Paste {
    /// In [−1, 1], `[1, 3, H, W]`.
    pub(crate) picture: Tensor,
    /// 1 where it was painted, `[1, 1, H, W]`.
    pub(crate) mask: Tensor,
}

/// What a task works with.
pub(crate) struct Bench<'a> {
    pub(crate) stage: &'a FirstStage,
    pub(crate) concat: &'a Concat,
    pub(crate) request: &'a Request,
    pub(crate) plan: &'a Plan,
    pub(crate) noise: &'a mut NoiseSource,
}

impl Bench<'_> {
    /// Shape of the request's latent.
    fn shape(&self) -> [i64; 4] {
        let factor = self.stage.factor();
        let side = |pixels: u32| i64::from(pixels) / factor;
        [1, self.stage.latent_channels(), side(self.request.height), side(self.request.width)]
    }

    /// The job's first noise, of the latent's shape.
    fn draw(&mut self) -> Tensor {
        let shape = self.shape();
        self.first_noise(&shape)
    }

    /// The job's first noise.
    fn first_noise(&mut self, shape: &[i64; 4]) -> Tensor {
        let [_, channels, height, width] = shape.map(|side| side as usize);
        Tensor::from_slice(&self.noise.initial([channels, height, width])).view(*shape).to_device(self.stage.device())
    }

    /// A sample of what a picture `[1, 3, H, W]` is in latents, at the denoiser's scale.
    fn encode(&mut self, picture: &Tensor) -> Tensor {
        let encoded = self.stage.encode(&picture.to_kind(self.stage.kind())).to_kind(Kind::Float);
        let device = self.stage.device();
        encoded.sample(|shape| draw(self.noise, shape, device))
    }

    fn unsupported(&self) -> Failure {
        let (task, model) = (self.request.work.task(), &self.request.model);
        Failure::new(FailureKind::Unsupported, format!("the denoiser of model {model:?} has no input for {task}"))
    }
}

/// How a request starts. Draws from the job's noise in the order in which the reference of each task does.
pub(crate) fn start(mut bench: Bench<'_>) -> Result<Start, Failure> {
    let request = bench.request;
    match &request.work {
        Work::Txt2Img(_) | Work::Unconditional(_) | Work::Class(_) | Work::Layout(_) | Work::Rdm(_) => {
            if !matches!(bench.concat, Concat::None) {
                return Err(bench.unsupported());
            }
            Ok(Start::at(txt2img::start(&mut bench)))
        }
        Work::Img2Img(work) => {
            if !matches!(bench.concat, Concat::None) {
                return Err(bench.unsupported());
            }
            Ok(Start::at(img2img::start(&mut bench, &work.init)?))
        }
        Work::Inpaint(work) => inpaint::start(&mut bench, work),
        Work::SuperResolution(work) => super_resolution::start(&mut bench, work),
        Work::Depth(work) => depth::start(&mut bench, work),
        Work::Semantic(work) => semantic::start(&mut bench, work),
        other => Err(Failure::new(FailureKind::Unsupported, format!("task {} is not built", other.task()))),
    }
}

#[cfg(test)]
mod tests {
    use ldm_sampler::Sampler;

    use super::*;

    #[test]
    fn every_number_of_steps_has_a_plan_under_compvis_rule() {
        let config = SchedulerConfig { timestep_spacing: Some(Spacing::Compvis), ..SchedulerConfig::stable_diffusion() };
        for steps in 1..=500 {
            let plan = spaced(&config, &PlanSpec::new(Sampler::Ddim, steps)).unwrap_or_else(|error| panic!("{steps}: {error}"));
            assert!(plan.count >= steps, "{steps}: {}", plan.count);
        }
        // Where the rule holds it is followed: 12 steps are 13, and 20 are 20.
        let count = |steps| spaced(&config, &PlanSpec::new(Sampler::Ddim, steps)).expect("a plan").count;
        assert_eq!((count(12), count(20), count(9)), (13, 20, 9));
    }
}
