//! `scheduler/scheduler_config.json` of a diffusers directory.

use std::path::Path;

use ldm_sampler::{
    BetaSchedule, FinalSigma, NoiseSchedule, Prediction, Sampler, ScheduleConfig, SchedulerConfig, SigmaSchedule, SolverConfig,
    SolverType, Spacing,
};
use serde::Deserialize;

use crate::families::{ModelError, read_json};

#[derive(Debug, Deserialize)]
#[serde(default)]
struct File {
    #[serde(rename = "_class_name")]
    class_name: String,
    num_train_timesteps: usize,
    beta_schedule: String,
    beta_start: f64,
    beta_end: f64,
    trained_betas: Option<Vec<f64>>,
    rescale_betas_zero_snr: bool,
    prediction_type: String,
    timestep_spacing: Option<String>,
    steps_offset: Option<usize>,
    set_alpha_to_one: Option<bool>,
    final_sigmas_type: Option<String>,
    use_karras_sigmas: Option<bool>,
    use_exponential_sigmas: Option<bool>,
    use_beta_sigmas: Option<bool>,
    use_lu_lambdas: Option<bool>,
    use_flow_sigmas: Option<bool>,
    sigma_min: Option<f64>,
    sigma_max: Option<f64>,
    solver_order: Option<usize>,
    solver_type: Option<String>,
    lower_order_final: Option<bool>,
    euler_at_final: Option<bool>,
    algorithm_type: Option<String>,
    predict_x0: Option<bool>,
    thresholding: Option<bool>,
    timestep_type: Option<String>,
    interpolation_type: Option<String>,
    original_inference_steps: Option<usize>,
    timestep_scaling: Option<f64>,
}

impl Default for File {
    /// The defaults that diffusers' scheduler classes share.
    fn default() -> Self {
        Self {
            class_name: String::new(),
            num_train_timesteps: 1000,
            beta_schedule: "linear".into(),
            beta_start: 0.0001,
            beta_end: 0.02,
            trained_betas: None,
            rescale_betas_zero_snr: false,
            prediction_type: "epsilon".into(),
            timestep_spacing: None,
            steps_offset: None,
            set_alpha_to_one: None,
            final_sigmas_type: None,
            use_karras_sigmas: None,
            use_exponential_sigmas: None,
            use_beta_sigmas: None,
            use_lu_lambdas: None,
            use_flow_sigmas: None,
            sigma_min: None,
            sigma_max: None,
            solver_order: None,
            solver_type: None,
            lower_order_final: None,
            euler_at_final: None,
            algorithm_type: None,
            predict_x0: None,
            thresholding: None,
            timestep_type: None,
            interpolation_type: None,
            original_inference_steps: None,
            timestep_scaling: None,
        }
    }
}

/// What the file says: the noise schedule, and the sampler that the model prefers.
#[derive(Clone, Debug)]
pub(crate) struct Scheduler {
    pub(crate) config: SchedulerConfig,
    pub(crate) preferred: Option<Sampler>,
    pub(crate) preferred_schedule: SigmaSchedule,
}

/// Reads the file. Some pipelines make `steps_offset` 1 whatever it says, or where it says nothing: `offset_is_one`.
pub(crate) fn read(dir: &Path, offset_is_one: bool) -> Result<Scheduler, ModelError> {
    let mut scheduler = read_folder(&dir.join("scheduler"))?;
    if offset_is_one {
        scheduler.config.steps_offset = 1;
    }
    Ok(scheduler)
}

/// ᾱ of the schedule in `folder`, by timestep.
pub(crate) fn alphas_cumprod(folder: &Path) -> Result<Vec<f64>, ModelError> {
    let scheduler = read_folder(folder)?;
    let schedule = NoiseSchedule::new(&scheduler.config.schedule)
        .map_err(|error| ModelError::Invalid { path: folder.join("scheduler_config.json"), message: error.to_string() })?;
    Ok(schedule.alphas_cumprod().to_vec())
}

/// The noise schedule in `folder`.
pub(crate) fn schedule(folder: &Path) -> Result<ScheduleConfig, ModelError> {
    Ok(read_folder(folder)?.config.schedule)
}

fn read_folder(folder: &Path) -> Result<Scheduler, ModelError> {
    let path = folder.join("scheduler_config.json");
    let file: File = read_json(&path)?;
    let bad =
        |key: &str, value: &str| ModelError::Invalid { path: path.clone(), message: format!("`{key}` = {value:?} is not known") };
    let beta_schedule = BetaSchedule::parse(&file.beta_schedule).ok_or_else(|| bad("beta_schedule", &file.beta_schedule))?;
    let prediction = Prediction::parse(&file.prediction_type).ok_or_else(|| bad("prediction_type", &file.prediction_type))?;
    let timestep_spacing = match &file.timestep_spacing {
        Some(name) => Some(Spacing::parse(name).ok_or_else(|| bad("timestep_spacing", name))?),
        None => None,
    };
    let final_sigma = match file.final_sigmas_type.as_deref() {
        None | Some("zero") => FinalSigma::Zero,
        Some("sigma_min") => FinalSigma::SigmaMin,
        Some(name) => return Err(bad("final_sigmas_type", name)),
    };
    let said = |flag: Option<bool>| flag == Some(true);
    let preferred_schedule = if said(file.use_karras_sigmas) {
        SigmaSchedule::Karras
    } else if said(file.use_exponential_sigmas) {
        SigmaSchedule::Exponential
    } else if said(file.use_beta_sigmas) {
        SigmaSchedule::Beta
    } else {
        SigmaSchedule::Default
    };
    // What would be another picture is refused rather than passed over.
    let refused = [
        ("use_flow_sigmas", said(file.use_flow_sigmas), "true"),
        ("use_lu_lambdas", said(file.use_lu_lambdas), "true"),
        ("thresholding", said(file.thresholding), "true"),
        ("predict_x0", file.predict_x0 == Some(false), "false"),
        ("timestep_type", file.timestep_type.as_deref() == Some("continuous"), "continuous"),
        ("interpolation_type", file.interpolation_type.as_deref() == Some("log_linear"), "log_linear"),
    ];
    if let Some((key, _, value)) = refused.into_iter().find(|(_, refused, _)| *refused) {
        return Err(ModelError::Invalid { path, message: format!("`{key}` = {value} is not supported") });
    }
    let sde = match file.algorithm_type.as_deref() {
        None | Some("dpmsolver++" | "deis") => false,
        Some("sde-dpmsolver++") => true,
        Some(name) => return Err(bad("algorithm_type", name)),
    };
    let class_defaults = SolverConfig::default();
    let solver_type = match &file.solver_type {
        Some(name) => SolverType::parse(name).ok_or_else(|| bad("solver_type", name))?,
        None => class_defaults.solver_type,
    };
    let solver = SolverConfig {
        order: file.solver_order.unwrap_or(class_defaults.order),
        solver_type,
        lower_order_final: file.lower_order_final.unwrap_or(class_defaults.lower_order_final),
        euler_at_final: file.euler_at_final.unwrap_or(class_defaults.euler_at_final),
    };
    if !(1..=3).contains(&solver.order) {
        return Err(bad("solver_order", &solver.order.to_string()));
    }
    let config = SchedulerConfig {
        schedule: ScheduleConfig {
            beta_schedule,
            beta_start: file.beta_start,
            beta_end: file.beta_end,
            num_train_timesteps: file.num_train_timesteps,
            trained_betas: file.trained_betas,
            rescale_betas_zero_snr: file.rescale_betas_zero_snr,
        },
        prediction,
        timestep_spacing,
        steps_offset: file.steps_offset.unwrap_or(0),
        set_alpha_to_one: file.set_alpha_to_one,
        final_sigma,
        sigma_min: file.sigma_min,
        sigma_max: file.sigma_max,
        solver,
        original_inference_steps: file.original_inference_steps,
        timestep_scaling: file.timestep_scaling,
        strength_shortens: false,
    };
    let preferred = ldm_sampler::resolve(&file.class_name).map(|resolved| resolved.entry.sampler);
    let preferred = if sde && preferred == Some(Sampler::Dpmpp2m) { Some(Sampler::Dpmpp2mSde) } else { preferred };
    Ok(Scheduler { config, preferred, preferred_schedule })
}
