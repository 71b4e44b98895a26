//! Noise schedules: betas to the cumulative product of alphas, and the sigma table they imply.

use std::f64::consts::FRAC_PI_2;

use crate::PlanError;

/// How the betas of the forward process run from `beta_start` to `beta_end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BetaSchedule {
    /// Betas evenly spaced (Ho et al. 2020, section 4).
    Linear,
    /// Square roots of the betas evenly spaced (Rombach et al. 2022; CompVis `make_beta_schedule("linear")`).
    ScaledLinear,
    /// The cosine schedule (Nichol & Dhariwal 2021, equation 17), betas capped at 0.999.
    SquaredcosCapV2,
}

impl BetaSchedule {
    /// The schedule of a `scheduler_config.json`'s `beta_schedule`.
    pub fn parse(name: &str) -> Option<BetaSchedule> {
        match name {
            "linear" => Some(BetaSchedule::Linear),
            "scaled_linear" => Some(BetaSchedule::ScaledLinear),
            "squaredcos_cap_v2" => Some(BetaSchedule::SquaredcosCapV2),
            _ => None,
        }
    }
}

/// What the network predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Prediction {
    /// The noise (Ho et al. 2020, equation 14).
    #[default]
    Epsilon,
    /// The velocity `alpha * noise - sigma * clean` (Salimans & Ho 2022, section 2.4).
    V,
    /// The clean latent.
    Sample,
}

impl Prediction {
    /// The name that a `scheduler_config.json` has for it.
    pub fn name(self) -> &'static str {
        match self {
            Prediction::Epsilon => "epsilon",
            Prediction::V => "v_prediction",
            Prediction::Sample => "sample",
        }
    }

    /// The prediction of a `scheduler_config.json`'s `prediction_type`.
    pub fn parse(name: &str) -> Option<Prediction> {
        match name {
            "epsilon" => Some(Prediction::Epsilon),
            "v_prediction" => Some(Prediction::V),
            "sample" | "original_sample" => Some(Prediction::Sample),
            _ => None,
        }
    }
}

/// The noise schedule a model was trained with; fields as in a diffusers `scheduler_config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleConfig {
    /// The shape of the betas.
    pub beta_schedule: BetaSchedule,
    /// The first beta.
    pub beta_start: f64,
    /// The last beta.
    pub beta_end: f64,
    /// How many timesteps the model was trained on.
    pub num_train_timesteps: usize,
    /// The betas themselves; when present, the three fields above are not read.
    pub trained_betas: Option<Vec<f64>>,
    /// Whether the last timestep has no signal at all (Lin et al. 2023).
    pub rescale_betas_zero_snr: bool,
}

impl Default for ScheduleConfig {
    /// What diffusers' schedulers assume when a config says nothing.
    fn default() -> Self {
        ScheduleConfig {
            beta_schedule: BetaSchedule::Linear,
            beta_start: 1e-4,
            beta_end: 0.02,
            num_train_timesteps: 1000,
            trained_betas: None,
            rescale_betas_zero_snr: false,
        }
    }
}

/// The most timesteps a noise schedule may have: a bound on what a config file can make us allocate.
const MAX_TRAIN_TIMESTEPS: usize = 100_000;

impl ScheduleConfig {
    /// The variances of the forward process, one per timestep.
    pub fn betas(&self) -> Result<Vec<f64>, PlanError> {
        let invalid = |reason| Err(PlanError::InvalidNoiseSchedule { reason });
        let count = self.num_train_timesteps;
        if !(2..=MAX_TRAIN_TIMESTEPS).contains(&count) {
            return invalid("num_train_timesteps must lie between 2 and 100000");
        }
        let even = |from: f64, to: f64| (0..count).map(move |i| from + i as f64 * ((to - from) / (count - 1) as f64));
        let betas: Vec<f64> = match (&self.trained_betas, self.beta_schedule) {
            (Some(trained), _) => trained.clone(),
            (None, BetaSchedule::Linear) => even(self.beta_start, self.beta_end).collect(),
            (None, BetaSchedule::ScaledLinear) => {
                even(self.beta_start.sqrt(), self.beta_end.sqrt()).map(|root| root * root).collect()
            }
            (None, BetaSchedule::SquaredcosCapV2) => {
                let alpha_bar = |i: usize| ((i as f64 / count as f64 + 0.008) / 1.008 * FRAC_PI_2).cos().powi(2);
                (0..count).map(|i| (1.0 - alpha_bar(i + 1) / alpha_bar(i)).min(0.999)).collect()
            }
        };
        if betas.len() != count {
            return invalid("trained_betas and num_train_timesteps disagree");
        }
        if !betas.iter().all(|beta| *beta > 0.0 && *beta < 1.0) {
            return invalid("betas must lie in (0, 1)");
        }
        if self.rescale_betas_zero_snr { Ok(rescale_zero_terminal_snr(&betas)) } else { Ok(betas) }
    }
}

/// Shifts and scales the betas so that the last timestep has no signal (Lin et al. 2023, algorithm 1).
pub fn rescale_zero_terminal_snr(betas: &[f64]) -> Vec<f64> {
    let roots: Vec<f64> = cumulative(betas).into_iter().map(f64::sqrt).collect();
    let (Some(first), Some(last)) = (roots.first().copied(), roots.last().copied()) else { return Vec::new() };
    let rescaled = roots.iter().map(|root| ((root - last) * first / (first - last)).powi(2));
    let mut before = 1.0;
    rescaled.map(|alpha_bar| 1.0 - alpha_bar / std::mem::replace(&mut before, alpha_bar)).collect()
}

fn cumulative(betas: &[f64]) -> Vec<f64> {
    betas
        .iter()
        .scan(1.0, |product, beta| {
            *product *= 1.0 - beta;
            Some(*product)
        })
        .collect()
}

/// A discrete variance-preserving noise schedule: the cumulative product of alphas at every trained timestep.
#[derive(Debug, Clone, PartialEq)]
pub struct NoiseSchedule {
    alphas_cumprod: Vec<f64>,
}

impl NoiseSchedule {
    /// The schedule that a config describes.
    pub fn new(config: &ScheduleConfig) -> Result<NoiseSchedule, PlanError> {
        Ok(NoiseSchedule { alphas_cumprod: cumulative(&config.betas()?) })
    }

    /// The cumulative product of alphas at every timestep (Ho et al. 2020, equation 4).
    pub fn alphas_cumprod(&self) -> &[f64] {
        &self.alphas_cumprod
    }

    /// The noise-to-signal ratio at every timestep, ascending (Karras et al. 2022 call it sigma).
    pub fn sigmas(&self) -> Vec<f64> {
        self.alphas_cumprod.iter().map(|a| ((1.0 - a) / a).sqrt()).collect()
    }

    /// The schedule with a trace of signal at its last timestep, so that the last sigma is finite (diffusers'
    /// sigma-space schedulers under `rescale_betas_zero_snr`: the smallest half-precision number).
    pub(crate) fn with_finite_sigmas(mut self) -> NoiseSchedule {
        if let Some(last) = self.alphas_cumprod.last_mut() {
            *last = 2f64.powi(-24);
        }
        self
    }
}

/// A sigma table and its inverse, for samplers that work in sigma space.
#[derive(Debug, Clone)]
pub(crate) struct SigmaTable {
    sigmas: Vec<f64>,
    logarithms: Vec<f64>,
}

impl SigmaTable {
    pub(crate) fn new(schedule: &NoiseSchedule) -> SigmaTable {
        let sigmas = schedule.sigmas();
        let logarithms = sigmas.iter().map(|sigma| sigma.ln()).collect();
        SigmaTable { sigmas, logarithms }
    }

    pub(crate) fn smallest(&self) -> f64 {
        self.sigmas[0]
    }

    pub(crate) fn largest(&self) -> f64 {
        self.sigmas[self.sigmas.len() - 1]
    }

    /// Sigma at a fractional timestep, linear between the trained ones (diffusers; k-diffusion interpolates ln sigma).
    pub(crate) fn at(&self, timestep: f64) -> f64 {
        let last = self.sigmas.len() - 1;
        let low = (timestep.max(0.0) as usize).min(last);
        let high = (low + 1).min(last);
        let weight = (timestep - low as f64).clamp(0.0, 1.0);
        self.sigmas[low] + weight * (self.sigmas[high] - self.sigmas[low])
    }

    /// Sigma at a fractional timestep, linear in ln sigma between the trained ones (k-diffusion `t_to_sigma`).
    pub(crate) fn at_in_logarithms(&self, timestep: f64) -> f64 {
        let last = self.sigmas.len() - 1;
        let low = (timestep.max(0.0) as usize).min(last);
        let high = (low + 1).min(last);
        let weight = (timestep - low as f64).clamp(0.0, 1.0);
        (self.logarithms[low] + weight * (self.logarithms[high] - self.logarithms[low])).exp()
    }

    /// The fractional timestep of a sigma, linear in ln sigma (diffusers `_sigma_to_t`).
    pub(crate) fn timestep(&self, sigma: f64) -> f64 {
        let target = sigma.max(1e-10).ln();
        let below = self.logarithms.partition_point(|known| *known <= target);
        let low = below.saturating_sub(1).min(self.logarithms.len() - 2);
        let (from, to) = (self.logarithms[low], self.logarithms[low + 1]);
        low as f64 + ((target - from) / (to - from)).clamp(0.0, 1.0)
    }
}
