//! What a plan is made from: the model's scheduler config, what the user asked for, and the checks between them.

use crate::registry::ZeroSnr;
use crate::{FinalSigma, NoiseSchedule, Plan, PlanError, Prediction, Sampler, ScheduleConfig, SigmaSchedule, Spacing};

/// What a model says about its noise, as parsed from a diffusers `scheduler_config.json`. `None` means that the file
/// says nothing, and the default of the chosen sampler's diffusers class holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SchedulerConfig {
    /// The noise schedule of training.
    pub schedule: ScheduleConfig,
    /// What the network predicts.
    pub prediction: Prediction,
    /// How inference steps are spread over the trained timesteps.
    pub timestep_spacing: Option<Spacing>,
    /// Added to [`Spacing::Leading`] timesteps; 1 for Stable Diffusion.
    pub steps_offset: usize,
    /// Whether the last step ends at the clean latent (`true`) or at timestep 0; read by DDIM and PLMS.
    pub set_alpha_to_one: Option<bool>,
    /// Where the last step ends in sigma space; read by Euler, DPM++ and UniPC.
    pub final_sigma: FinalSigma,
    /// LCM: how many steps the distillation schedule has (50 when absent).
    pub original_inference_steps: Option<usize>,
    /// LCM: the factor on timesteps in the boundary condition (10 when absent).
    pub timestep_scaling: Option<f64>,
}

impl SchedulerConfig {
    /// The config of Stable Diffusion 1.x (`stable-diffusion-v1-5/scheduler/scheduler_config.json`).
    pub fn stable_diffusion() -> SchedulerConfig {
        SchedulerConfig {
            schedule: ScheduleConfig {
                beta_schedule: crate::BetaSchedule::ScaledLinear,
                beta_start: 0.00085,
                beta_end: 0.012,
                ..ScheduleConfig::default()
            },
            steps_offset: 1,
            set_alpha_to_one: Some(false),
            ..SchedulerConfig::default()
        }
    }
}

/// What a user asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanSpec {
    /// The sampler.
    pub sampler: Sampler,
    /// How many steps, before an img2img strength takes some away.
    pub steps: usize,
    /// DDIM's eta: 0 is deterministic, 1 as stochastic as DDPM. Must be 0 for every other sampler.
    pub eta: f64,
    /// Where the noise levels come from.
    pub schedule: SigmaSchedule,
    /// Img2img: the share of the steps that is run, in (0, 1]; `None` for txt2img.
    pub strength: Option<f64>,
}

impl PlanSpec {
    /// A deterministic txt2img run on the sampler's default schedule.
    pub fn new(sampler: Sampler, steps: usize) -> PlanSpec {
        PlanSpec { sampler, steps, eta: 0.0, schedule: SigmaSchedule::Default, strength: None }
    }
}

/// The plan that diffusers' `Scheduler.from_config(config)` would follow in its Stable Diffusion pipelines (txt2img,
/// or img2img when a strength is given), clipping of the clean latent left out.
pub fn plan(config: &SchedulerConfig, spec: &PlanSpec) -> Result<Plan, PlanError> {
    let entry = spec.sampler.entry();
    let problem = Problem::new(config, spec)?;
    let plan = (entry.plan)(&problem)?;
    let last = problem.train() - 1;
    if let Some(step) = plan.steps.iter().find(|step| step.eval.timestep > last as f64) {
        return Err(PlanError::TimestepBeyondTraining { timestep: step.eval.timestep as usize, last });
    }
    if !plan.is_finite() {
        return Err(PlanError::ZeroTerminalSnr);
    }
    Ok(plan)
}

/// A checked request in the terms that samplers think in.
pub(crate) struct Problem<'a> {
    pub(crate) config: &'a SchedulerConfig,
    pub(crate) noise: NoiseSchedule,
    pub(crate) spacing: Spacing,
    pub(crate) sigmas: SigmaSchedule,
    pub(crate) steps: usize,
    /// How many of the steps img2img leaves out at the noisy end.
    pub(crate) skip: usize,
    pub(crate) eta: f64,
}

impl<'a> Problem<'a> {
    fn new(config: &'a SchedulerConfig, spec: &PlanSpec) -> Result<Problem<'a>, PlanError> {
        let (entry, steps, eta, sampler) = (spec.sampler.entry(), spec.steps, spec.eta, spec.sampler);
        let limit = config.schedule.num_train_timesteps;
        if steps == 0 {
            return Err(PlanError::ZeroSteps);
        }
        if steps > limit {
            return Err(PlanError::TooManySteps { steps, limit });
        }
        if !(0.0..=1.0).contains(&eta) {
            return Err(PlanError::EtaOutOfRange { eta });
        }
        if eta != 0.0 && !entry.eta {
            return Err(PlanError::EtaUnsupported { sampler });
        }
        if !entry.schedules.contains(&spec.schedule) {
            return Err(PlanError::ScheduleUnsupported { sampler, schedule: spec.schedule });
        }
        let skip = match spec.strength {
            None => 0,
            Some(strength) if strength > 0.0 && strength <= 1.0 => steps - (steps as f64 * strength) as usize,
            Some(strength) => return Err(PlanError::StrengthOutOfRange { strength }),
        };
        if skip == steps {
            return Err(PlanError::StrengthTooLow { strength: spec.strength.unwrap_or_default(), steps });
        }
        let noise = match entry.zero_snr {
            ZeroSnr::Ignored => NoiseSchedule::new(&ScheduleConfig { rescale_betas_zero_snr: false, ..config.schedule.clone() })?,
            ZeroSnr::Clamped if config.schedule.rescale_betas_zero_snr => {
                NoiseSchedule::new(&config.schedule)?.with_finite_sigmas()
            }
            ZeroSnr::Exact | ZeroSnr::Clamped => NoiseSchedule::new(&config.schedule)?,
        };
        let spacing = config.timestep_spacing.unwrap_or(entry.spacing);
        Ok(Problem { config, noise, spacing, sigmas: spec.schedule, steps, skip, eta })
    }

    /// How many timesteps the model was trained on.
    pub(crate) fn train(&self) -> usize {
        self.noise.alphas_cumprod().len()
    }

    /// How many of the user's steps are run.
    pub(crate) fn count(&self) -> usize {
        self.steps - self.skip
    }

    /// The whole number of timesteps between two steps, as diffusers' DDIM and PNDM assume for every spacing.
    pub(crate) fn stride(&self) -> usize {
        self.train() / self.steps
    }

    /// All `steps` whole timesteps, descending.
    pub(crate) fn whole_timesteps(&self) -> Vec<usize> {
        let timesteps = self.spacing.whole_timesteps(self.steps, self.train(), self.config.steps_offset);
        timesteps.into_iter().map(|t| t as usize).collect()
    }

    /// The cumulative product of alphas at a timestep.
    pub(crate) fn alpha_bar(&self, timestep: usize) -> Result<f64, PlanError> {
        let table = self.noise.alphas_cumprod();
        let beyond = PlanError::TimestepBeyondTraining { timestep, last: table.len() - 1 };
        table.get(timestep).copied().ok_or(beyond)
    }

    /// The cumulative product of alphas where the last step ends.
    pub(crate) fn final_alpha_bar(&self, one_by_default: bool) -> f64 {
        let one = self.config.set_alpha_to_one.unwrap_or(one_by_default);
        if one { 1.0 } else { self.noise.alphas_cumprod()[0] }
    }
}
