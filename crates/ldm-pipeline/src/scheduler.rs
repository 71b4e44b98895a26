//! `scheduler/scheduler_config.json` of a diffusers directory.

use std::path::Path;

use ldm_sampler::{BetaSchedule, FinalSigma, Prediction, Sampler, ScheduleConfig, SchedulerConfig, SigmaSchedule, Spacing};
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

/// Reads the file. `steps_offset` becomes 1 wherever it stands, as `StableDiffusionPipeline` makes it.
pub(crate) fn read(dir: &Path) -> Result<Scheduler, ModelError> {
    let path = dir.join("scheduler").join("scheduler_config.json");
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
    let preferred_schedule = match (file.use_karras_sigmas, file.use_exponential_sigmas) {
        (Some(true), _) => SigmaSchedule::Karras,
        (_, Some(true)) => SigmaSchedule::Exponential,
        _ => SigmaSchedule::Default,
    };
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
        steps_offset: file.steps_offset.map_or(0, |_| 1),
        set_alpha_to_one: file.set_alpha_to_one,
        final_sigma,
        original_inference_steps: file.original_inference_steps,
        timestep_scaling: file.timestep_scaling,
    };
    let preferred = ldm_sampler::resolve(&file.class_name).map(|resolved| resolved.entry.sampler);
    Ok(Scheduler { config, preferred, preferred_schedule })
}
