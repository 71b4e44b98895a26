//! Every plan against diffusers' schedulers (`tools/goldens/sampler.py`), which were run in float64.

use ldm_sampler::{
    BetaSchedule, FinalSigma, PlanSpec, Prediction, ScheduleConfig, SchedulerConfig, SigmaSchedule, Spacing, plan, resolve,
};
use serde::Deserialize;

use crate::toy;

/// The references are float64, so that only the order of operations is left.
const TOLERANCE: f64 = 1e-11;
/// The normals are float32, and may differ in the last place.
const NOISY_TOLERANCE: f64 = 1e-6;

#[derive(Debug, Deserialize)]
struct Golden {
    sampler: String,
    steps: usize,
    strength: Option<f64>,
    eta: Option<f64>,
    sigmas: Option<String>,
    timestep_spacing: Option<String>,
    steps_offset: Option<usize>,
    prediction: Option<String>,
    set_alpha_to_one: Option<bool>,
    final_sigmas_type: Option<String>,
    beta_schedule: Option<String>,
    beta_start: Option<f64>,
    beta_end: Option<f64>,
    rescale_betas_zero_snr: Option<bool>,
    evaluations: usize,
    initial: Vec<f64>,
    x: Vec<f64>,
    timesteps: Option<Vec<f64>>,
}

impl Golden {
    fn config(&self) -> SchedulerConfig {
        let beta_schedule = self.beta_schedule.as_deref().unwrap_or("scaled_linear");
        SchedulerConfig {
            schedule: ScheduleConfig {
                beta_schedule: BetaSchedule::parse(beta_schedule).expect("a beta schedule"),
                beta_start: self.beta_start.unwrap_or(0.00085),
                beta_end: self.beta_end.unwrap_or(0.012),
                rescale_betas_zero_snr: self.rescale_betas_zero_snr.unwrap_or(false),
                ..ScheduleConfig::default()
            },
            prediction: Prediction::parse(self.prediction.as_deref().unwrap_or("epsilon")).expect("a prediction"),
            timestep_spacing: self.timestep_spacing.as_deref().map(|name| Spacing::parse(name).expect("a spacing")),
            steps_offset: self.steps_offset.unwrap_or(1),
            set_alpha_to_one: self.set_alpha_to_one,
            final_sigma: match self.final_sigmas_type.as_deref() {
                Some("sigma_min") => FinalSigma::SigmaMin,
                _ => FinalSigma::Zero,
            },
            ..SchedulerConfig::default()
        }
    }

    fn spec(&self) -> PlanSpec {
        PlanSpec {
            eta: self.eta.unwrap_or(0.0),
            schedule: self.sigmas.as_deref().map_or(SigmaSchedule::Default, |s| SigmaSchedule::parse(s).expect("one")),
            strength: self.strength,
            ..PlanSpec::new(resolve(&self.sampler).expect("a sampler").entry.sampler, self.steps)
        }
    }
}

#[test]
fn plans_equal_diffusers() {
    let goldens: Vec<Golden> = serde_json::from_str(include_str!("../goldens/samplers.json")).expect("goldens");
    assert!(goldens.len() > 300);
    let mut failures = Vec::new();
    let mut worst: f64 = 0.0;
    for golden in &goldens {
        let plan = match plan(&golden.config(), &golden.spec()) {
            Ok(plan) => plan,
            Err(error) => {
                failures.push(format!("{error}: {golden:?}"));
                continue;
            }
        };
        let initial = if golden.strength.is_some() { toy::img2img(&plan) } else { toy::txt2img(&plan) };
        let start = toy::error(&initial, &golden.initial);
        let end = toy::error(&toy::run(&plan, &initial), &golden.x);
        let timesteps: Vec<f64> = plan.steps.iter().map(|step| step.eval.timestep).collect();
        let times = golden.timesteps.as_ref().map_or(0.0, |expected| {
            let differences = expected.iter().zip(&timesteps).map(|(e, t)| (e - t).abs());
            if expected.len() == timesteps.len() { differences.fold(0.0, f64::max) } else { f64::INFINITY }
        });
        let noisy = plan.steps.iter().any(|step| step.noise);
        let tolerance = if noisy { NOISY_TOLERANCE } else { TOLERANCE };
        let sound = plan.is_sound() && plan.evaluations() == golden.evaluations;
        if !sound || start > 1e-12 || end > tolerance || times > 1e-6 {
            failures.push(format!("sound {sound}, start {start:e}, end {end:e}, times {times:e}: {golden:?}"));
        }
        worst = worst.max(end);
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), goldens.len(), failures.join("\n"));
    assert!(worst > 0.0);
    println!("{} goldens, worst relative error {worst:e}", goldens.len());
}
