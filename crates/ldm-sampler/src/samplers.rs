//! The samplers, one file each, and the evaluations they share.

pub(crate) mod ddim;
pub(crate) mod ddim_inverse;
pub(crate) mod ddpm;
pub(crate) mod deis;
pub(crate) mod dpm2;
pub(crate) mod dpm2_a;
pub(crate) mod dpmpp_2m;
pub(crate) mod dpmpp_2m_sde;
pub(crate) mod dpmpp_2s_a;
pub(crate) mod dpmpp_3m_sde;
pub(crate) mod dpmpp_sde;
pub(crate) mod euler;
pub(crate) mod euler_a;
pub(crate) mod heun;
pub(crate) mod ipndm;
pub(crate) mod lcm;
pub(crate) mod lms;
pub(crate) mod plms;
pub(crate) mod tcd;
pub(crate) mod unipc;

use crate::spec::Problem;
use crate::{Eval, PlanError, Prediction};

/// An evaluation in variance-preserving space, `x = alpha * clean + sigma * noise` with `alpha² = alpha_bar`; its
/// estimate is the clean latent.
pub(crate) fn clean(prediction: Prediction, timestep: f64, alpha_bar: f64) -> Eval {
    let (alpha, sigma) = (alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt());
    let (skip, out) = match prediction {
        Prediction::Epsilon => (1.0 / alpha, -sigma / alpha),
        Prediction::V => (alpha, -sigma),
        Prediction::Sample => (0.0, 1.0),
    };
    Eval { input: 0, c_in: 1.0, timestep, sigma: sigma / alpha, skip, out, denoised: (0.0, 1.0) }
}

/// An evaluation in variance-exploding space, `x = clean + sigma * noise`; its estimate is the slope `dx/dsigma` of
/// the probability flow, which is the predicted noise (Karras et al. 2022, equations 1 and 7).
pub(crate) fn slope(prediction: Prediction, timestep: f64, sigma: f64) -> Eval {
    let variance = sigma * sigma + 1.0;
    let (skip, out) = match prediction {
        Prediction::Epsilon => (0.0, 1.0),
        Prediction::V => (sigma / variance, 1.0 / variance.sqrt()),
        Prediction::Sample => (1.0 / sigma, -1.0 / sigma),
    };
    Eval { input: 0, c_in: 1.0 / variance.sqrt(), timestep, sigma, skip, out, denoised: (1.0, -sigma) }
}

/// An evaluation in variance-preserving space whose estimate is the noise.
pub(crate) fn noise(prediction: Prediction, timestep: f64, alpha_bar: f64) -> Eval {
    let (alpha, sigma) = (alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt());
    let (skip, out) = match prediction {
        Prediction::Epsilon => (0.0, 1.0),
        Prediction::V => (sigma, alpha),
        Prediction::Sample => (1.0 / sigma, -alpha / sigma),
    };
    Eval { input: 0, c_in: 1.0, timestep, sigma: sigma / alpha, skip, out, denoised: (1.0 / alpha, -sigma / alpha) }
}

/// An evaluation in variance-exploding space whose estimate is the clean latent (k-diffusion's denoiser).
pub(crate) fn denoiser(prediction: Prediction, timestep: f64, sigma: f64) -> Eval {
    let variance = sigma * sigma + 1.0;
    let (skip, out) = match prediction {
        Prediction::Epsilon => (1.0, -sigma),
        Prediction::V => (1.0 / variance, -sigma / variance.sqrt()),
        Prediction::Sample => (0.0, 1.0),
    };
    Eval { input: 0, c_in: 1.0 / variance.sqrt(), timestep, sigma, skip, out, denoised: (0.0, 1.0) }
}

/// The noise level that an ancestral step goes down to, and the noise that brings it back up to the next one
/// (k-diffusion `get_ancestral_step`, eta 1).
pub(crate) fn ancestral(sigma: f64, next: f64) -> (f64, f64) {
    let up = (next * next * (sigma * sigma - next * next) / (sigma * sigma)).sqrt();
    (next * next / sigma, up) // down² + up² = next²
}

/// Evenly spread choices from the timesteps of distillation (LCM, TCD); spacing and offset have no say.
pub(crate) fn distilled_timesteps(problem: &Problem<'_>) -> Result<Vec<usize>, PlanError> {
    let original = problem.config.original_inference_steps.unwrap_or(50).min(problem.train());
    let taken = (original as f64 * problem.share) as usize;
    if problem.steps > taken {
        return Err(PlanError::TooManySteps { steps: problem.steps, limit: taken });
    }
    let every = problem.train() / original;
    let stride = taken as f64 / problem.steps as f64;
    Ok((0..problem.steps).map(|i| (taken - (i as f64 * stride) as usize) * every - 1).collect())
}

/// Variance-preserving signal and noise scales of a noise-to-signal ratio.
pub(crate) fn preserve(sigma: f64) -> (f64, f64) {
    let alpha = 1.0 / (sigma * sigma + 1.0).sqrt();
    (alpha, sigma * alpha)
}
