//! What a plan is made from: the model's scheduler config, what the user asked for, and the checks between them.

use crate::registry::{Entry, ZeroSnr};
use crate::{
    FinalSigma, GuidanceSpec, NoiseSchedule, Plan, PlanError, Prediction, Sampler, ScheduleConfig, SigmaSchedule, Spacing, Step,
    StepNoise, Variant,
};

/// The formula of a multistep solver (`solver_type`). Each class knows two and takes its own default for the others, as
/// diffusers does when a config written by one class is read by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SolverType {
    /// The default of the sampler's class: midpoint for DPM++, bh2 for UniPC, logrho for DEIS.
    #[default]
    Class,
    /// DPM++ of order 2 with the exponential integral of the slope instead of its midpoint.
    Heun,
    /// UniPC with B(h) = h.
    Bh1,
}

impl SolverType {
    /// The solver type of a `scheduler_config.json`'s `solver_type`.
    pub fn parse(name: &str) -> Option<SolverType> {
        match name {
            "midpoint" | "bh2" | "logrho" => Some(SolverType::Class),
            "heun" => Some(SolverType::Heun),
            "bh1" => Some(SolverType::Bh1),
            _ => None,
        }
    }
}

/// What a config says about multistep solvers; read by DPM++ 2M, DPM++ 2M SDE, UniPC and DEIS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SolverConfig {
    /// `solver_order`: 1, 2 or 3.
    pub order: usize,
    /// The formula.
    pub solver_type: SolverType,
    /// `lower_order_final`: whether the last steps of short runs are of lower order.
    pub lower_order_final: bool,
    /// `euler_at_final`: whether the last step is of first order in any case (DPM++).
    pub euler_at_final: bool,
}

impl Default for SolverConfig {
    fn default() -> Self {
        SolverConfig { order: 2, solver_type: SolverType::Class, lower_order_final: true, euler_at_final: false }
    }
}

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
    /// The lower end of Karras, exponential and beta schedules (`sigma_min`) in place of the sampler's own.
    pub sigma_min: Option<f64>,
    /// The upper end of Karras, exponential and beta schedules (`sigma_max`) in place of the sampler's own.
    pub sigma_max: Option<f64>,
    /// Order and formula of multistep solvers.
    pub solver: SolverConfig,
    /// LCM and TCD: how many steps the distillation schedule has (50 when absent).
    pub original_inference_steps: Option<usize>,
    /// LCM: the factor on timesteps in the boundary condition (10 when absent).
    pub timestep_scaling: Option<f64>,
    /// LCM and TCD: an img2img strength shortens the distillation schedule, of which all steps are run
    /// (`LatentConsistencyModelImg2ImgPipeline`), in place of leaving steps out.
    pub strength_shortens: bool,
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
    /// DDIM's eta: 0 is deterministic, 1 as stochastic as DDPM; or TCD's gamma. Must be 0 for every other sampler.
    pub eta: f64,
    /// Where the noise levels come from.
    pub schedule: SigmaSchedule,
    /// Img2img: the share of the steps that is run, in (0, 1]; `None` for txt2img.
    pub strength: Option<f64>,
    /// The spacing, in place of the model's.
    pub spacing: Option<Spacing>,
    /// Whose habits are followed where libraries differ.
    pub variant: Variant,
    /// Which evaluations are guided, and what becomes of a guided output.
    pub guidance: GuidanceSpec,
}

impl PlanSpec {
    /// A deterministic txt2img run on the sampler's default schedule.
    pub fn new(sampler: Sampler, steps: usize) -> PlanSpec {
        PlanSpec {
            sampler,
            steps,
            eta: 0.0,
            schedule: SigmaSchedule::Default,
            strength: None,
            spacing: None,
            variant: Variant::DIFFUSERS,
            guidance: GuidanceSpec::default(),
        }
    }
}

/// The plan that diffusers' `Scheduler.from_config(config)` would follow in its Stable Diffusion pipelines (txt2img,
/// or img2img when a strength is given), clipping of the clean latent left out.
pub fn plan(config: &SchedulerConfig, spec: &PlanSpec) -> Result<Plan, PlanError> {
    let entry = spec.sampler.entry();
    let problem = Problem::new(config, spec)?;
    let mut plan = (entry.plan)(&problem)?;
    let last = problem.train() - 1;
    if let Some(step) = plan.steps.iter().find(|step| step.eval.timestep > last as f64) {
        return Err(PlanError::TimestepBeyondTraining { timestep: step.eval.timestep as usize, last });
    }
    if !plan.is_finite() {
        return Err(PlanError::ZeroTerminalSnr);
    }
    plan.guidance_rescale = spec.guidance.rescale;
    for step in &mut plan.steps {
        step.guided = spec.guidance.applies(step.eval.sigma);
    }
    Ok(plan)
}

/// A checked request in the terms that samplers think in.
pub(crate) struct Problem<'a> {
    pub(crate) config: &'a SchedulerConfig,
    pub(crate) noise: NoiseSchedule,
    pub(crate) spacing: Spacing,
    pub(crate) sigmas: SigmaSchedule,
    /// How many steps there are, before img2img takes its share away; the spacing of CompVis may give more than asked.
    pub(crate) steps: usize,
    /// How many steps were asked for.
    pub(crate) asked: usize,
    /// How many of the steps img2img leaves out at the noisy end.
    pub(crate) skip: usize,
    /// The share of the distillation schedule that the steps are chosen from.
    pub(crate) share: f64,
    pub(crate) eta: f64,
    pub(crate) variant: Variant,
    sampler: Sampler,
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
        if spec.variant.noise == StepNoise::Brownian && !entry.brownian {
            return Err(PlanError::BrownianUnsupported { sampler });
        }
        spec.guidance.check()?;
        ends(config)?;
        let spacing = match (spec.spacing, config.timestep_spacing) {
            (Some(spacing), _) => spacing,
            // A model's habit from outside of diffusers does not bind samplers that do not have it.
            (None, Some(Spacing::Compvis | Spacing::KDiffusion)) if !supports(entry, config.timestep_spacing) => entry.spacing,
            (None, spacing) => spacing.unwrap_or(entry.spacing),
        };
        if !supports(entry, Some(spacing)) {
            return Err(PlanError::SpacingUnsupported { sampler, spacing });
        }
        let (asked, steps) = (steps, spacing.count(steps, limit));
        let shortens = config.strength_shortens && matches!(sampler, Sampler::Lcm | Sampler::Tcd);
        let run = match spec.strength {
            None => steps,
            Some(strength) if shortens && strength > 0.0 && strength <= 1.0 => steps,
            Some(strength) if strength > 0.0 && strength <= 1.0 => ((asked as f64 * strength) as usize).min(steps),
            Some(strength) => return Err(PlanError::StrengthOutOfRange { strength }),
        };
        if run == 0 {
            return Err(PlanError::StrengthTooLow { strength: spec.strength.unwrap_or_default(), steps });
        }
        let skip = steps - run;
        let share = spec.strength.filter(|_| shortens).unwrap_or(1.0);
        let noise = match entry.zero_snr {
            ZeroSnr::Ignored => NoiseSchedule::new(&ScheduleConfig { rescale_betas_zero_snr: false, ..config.schedule.clone() })?,
            ZeroSnr::Clamped if config.schedule.rescale_betas_zero_snr => {
                NoiseSchedule::new(&config.schedule)?.with_finite_sigmas()
            }
            ZeroSnr::Exact | ZeroSnr::Clamped => NoiseSchedule::new(&config.schedule)?,
        };
        let (sigmas, variant) = (spec.schedule, spec.variant);
        Ok(Problem { config, noise, spacing, sigmas, steps, asked, skip, share, eta, variant, sampler })
    }

    /// The plan of a run, from what every sampler has to say.
    pub(crate) fn plan(&self, init_scale: f64, registers: usize, start: (f64, f64), steps: Vec<Step>) -> Plan {
        Plan { init_scale, registers, final_scale: 1.0, count: self.count(), start, guidance_rescale: 0.0, steps }
    }

    /// The solver's order, if it has it.
    pub(crate) fn order(&self) -> Result<usize, PlanError> {
        match self.config.solver.order {
            order @ 1..=3 => Ok(order),
            order => Err(PlanError::SolverOrderUnsupported { sampler: self.sampler, order }),
        }
    }

    /// Whether noise is the increment of a Brownian path, where a sampler's class draws it so or not.
    pub(crate) fn brownian(&self, class: bool) -> bool {
        match self.variant.noise {
            StepNoise::Class => class,
            StepNoise::Independent => false,
            StepNoise::Brownian => true,
        }
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
        self.train() / self.asked
    }

    /// All `steps` whole timesteps, descending.
    pub(crate) fn whole_timesteps(&self) -> Vec<usize> {
        let timesteps = self.spacing.whole_timesteps(self.asked, self.train(), self.config.steps_offset);
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
        let one = self.spacing != Spacing::Compvis && self.config.set_alpha_to_one.unwrap_or(one_by_default);
        if one { 1.0 } else { self.noise.alphas_cumprod()[0] }
    }
}

fn supports(entry: &Entry, spacing: Option<Spacing>) -> bool {
    spacing.is_some_and(|spacing| entry.spacings.contains(&spacing))
}

/// Checks the ends of schedules.
fn ends(config: &SchedulerConfig) -> Result<(), PlanError> {
    let positive = |setting, end: Option<f64>| match end {
        Some(value) if !(value > 0.0 && value.is_finite()) => {
            Err(PlanError::InvalidSetting { setting, value, reason: "it must be a noise level above 0" })
        }
        _ => Ok(()),
    };
    positive("sigma_min", config.sigma_min)?;
    positive("sigma_max", config.sigma_max)?;
    match (config.sigma_min, config.sigma_max) {
        (Some(low), Some(value)) if value <= low => {
            Err(PlanError::InvalidSetting { setting: "sigma_max", value, reason: "it must lie above sigma_min" })
        }
        _ => Ok(()),
    }
}
