//! Every plan against diffusers, k-diffusion and CompVis (`tools/goldens/sampler.py`), which were run in float64.

use ldm_sampler::{
    BetaSchedule, FinalSigma, PlanSpec, Prediction, ScheduleConfig, SchedulerConfig, SigmaSchedule, SolverConfig, SolverType,
    Spacing, StepNoise, Variant, entries, plan, resolve,
};
use serde::Deserialize;
use std::collections::BTreeMap;

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
    solver_order: Option<usize>,
    solver_type: Option<String>,
    lower_order_final: Option<bool>,
    euler_at_final: Option<bool>,
    sigma_min: Option<f64>,
    sigma_max: Option<f64>,
    original_inference_steps: Option<usize>,
    #[serde(default)]
    k_diffusion: bool,
    #[serde(default)]
    compvis: bool,
    #[serde(default)]
    discard: bool,
    brownian: Option<bool>,
    round_t: Option<bool>,
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
            solver: SolverConfig {
                order: self.solver_order.unwrap_or(2),
                solver_type: self.solver_type.as_deref().map_or(SolverType::Class, |t| SolverType::parse(t).expect("a type")),
                lower_order_final: self.lower_order_final.unwrap_or(true),
                euler_at_final: self.euler_at_final.unwrap_or(false),
            },
            sigma_min: self.sigma_min,
            sigma_max: self.sigma_max,
            original_inference_steps: self.original_inference_steps,
            ..SchedulerConfig::default()
        }
    }

    fn spec(&self) -> PlanSpec {
        PlanSpec {
            eta: self.eta.unwrap_or(0.0),
            schedule: self.sigmas.as_deref().map_or(SigmaSchedule::Default, |s| SigmaSchedule::parse(s).expect("one")),
            strength: self.strength,
            spacing: match (self.k_diffusion, self.compvis) {
                (true, _) => Some(Spacing::KDiffusion),
                (_, true) => Some(Spacing::Compvis),
                _ => None,
            },
            variant: Variant {
                round_t: if self.k_diffusion { Some(self.round_t.unwrap_or(false)) } else { None },
                noise: match self.brownian {
                    Some(true) => StepNoise::Brownian,
                    Some(false) => StepNoise::Independent,
                    None => StepNoise::Class,
                },
                discard_next_to_last_sigma: self.discard,
                ..if self.k_diffusion { Variant::K_DIFFUSION } else { Variant::DIFFUSERS }
            },
            ..PlanSpec::new(resolve(&self.sampler).expect("a sampler").entry.sampler, self.steps)
        }
    }
}

#[test]
fn plans_equal_their_references() {
    let goldens: Vec<Golden> = serde_json::from_str(include_str!("../goldens/samplers.json")).expect("goldens");
    assert!(goldens.len() > 700);
    let mut failures = Vec::new();
    let mut worst: BTreeMap<&str, f64> = BTreeMap::new();
    for golden in &goldens {
        let plan = match plan(&golden.config(), &golden.spec()) {
            Ok(plan) => plan,
            Err(error) => {
                failures.push(format!("{error}: {golden:?}"));
                continue;
            }
        };
        let initial = if golden.strength.is_some() { toy::img2img(&plan) } else { toy::txt2img(&plan) };
        // k-diffusion's latents are variance-exploding also where ours are not.
        let preserving = golden.k_diffusion && plan.steps[0].eval.c_in == 1.0;
        let scale = if preserving { (1.0 + plan.steps[0].eval.sigma.powi(2)).sqrt() } else { 1.0 };
        let start = toy::error(&initial.iter().map(|x| scale * x).collect::<Vec<f64>>(), &golden.initial);
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
        let known = worst.entry(&golden.sampler).or_default();
        *known = known.max(end);
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), goldens.len(), failures.join("\n"));
    for (name, worst) in &worst {
        println!("{name}: {worst:.1e}");
    }
    println!("{} goldens", goldens.len());
    let unchecked = entries().iter().filter(|entry| !worst.contains_key(entry.name)).map(|entry| entry.name);
    assert_eq!(unchecked.collect::<Vec<_>>(), [""; 0], "samplers without a golden");
}
