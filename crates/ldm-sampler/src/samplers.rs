//! The samplers, one file each, and the evaluations they share.

pub(crate) mod ddim;
pub(crate) mod ddpm;
pub(crate) mod dpmpp_2m;
pub(crate) mod dpmpp_2m_sde;
pub(crate) mod euler;
pub(crate) mod euler_a;
pub(crate) mod heun;
pub(crate) mod lcm;
pub(crate) mod lms;
pub(crate) mod plms;
pub(crate) mod unipc;

use crate::{Eval, Prediction};

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

/// Variance-preserving signal and noise scales of a noise-to-signal ratio.
pub(crate) fn preserve(sigma: f64) -> (f64, f64) {
    let alpha = 1.0 / (sigma * sigma + 1.0).sqrt();
    (alpha, sigma * alpha)
}
