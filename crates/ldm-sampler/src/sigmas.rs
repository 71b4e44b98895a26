//! Sigma schedules: the noise levels that a sigma-space sampler visits, and the timestep to give the network at each.

use crate::schedule::SigmaTable;
use crate::spec::Problem;
use crate::{BetaSchedule, PlanError, Spacing};

/// Where the noise levels of a sigma-space sampler come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SigmaSchedule {
    /// The levels of the spaced timesteps.
    #[default]
    Default,
    /// Karras et al. 2022, equation 5, with rho 7.
    Karras,
    /// Evenly spaced in ln sigma.
    Exponential,
}

impl SigmaSchedule {
    /// The name users see and send.
    pub fn name(self) -> &'static str {
        match self {
            SigmaSchedule::Default => "default",
            SigmaSchedule::Karras => "karras",
            SigmaSchedule::Exponential => "exponential",
        }
    }

    /// The schedule of a name, whatever its case ("Automatic", "Normal" and "Uniform" are A1111's default ones).
    pub fn parse(name: &str) -> Option<SigmaSchedule> {
        match name.trim().to_ascii_lowercase().as_str() {
            "default" | "automatic" | "normal" | "uniform" => Some(SigmaSchedule::Default),
            "karras" => Some(SigmaSchedule::Karras),
            "exponential" => Some(SigmaSchedule::Exponential),
            _ => None,
        }
    }
}

/// Where the last step of a sigma-space sampler ends (`final_sigmas_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum FinalSigma {
    /// At the clean latent.
    #[default]
    Zero,
    /// At the smallest trained noise level.
    SigmaMin,
}

/// `steps` noise levels from `largest` to `smallest`, evenly spaced in sigma^(1/7) (Karras et al. 2022, equation 5).
pub fn karras(largest: f64, smallest: f64, steps: usize) -> Vec<f64> {
    let (from, to) = (largest.powf(1.0 / 7.0), smallest.powf(1.0 / 7.0));
    ramp(steps).map(|u| (from + u * (to - from)).powf(7.0)).collect()
}

/// `steps` noise levels from `largest` to `smallest`, evenly spaced in ln sigma (k-diffusion
/// `get_sigmas_exponential`).
pub fn exponential(largest: f64, smallest: f64, steps: usize) -> Vec<f64> {
    let (from, to) = (largest.ln(), smallest.ln());
    ramp(steps).map(|u| (from + u * (to - from)).exp()).collect()
}

fn ramp(steps: usize) -> impl Iterator<Item = f64> {
    (0..steps).map(move |i| i as f64 / (steps.max(2) - 1) as f64)
}

/// The noise levels of a run: one timestep per step, and one sigma more (where the last step ends).
pub(crate) struct Grid {
    pub(crate) timesteps: Vec<f64>,
    pub(crate) sigmas: Vec<f64>,
    /// What diffusers calls `init_noise_sigma`: it depends on the spacing alone.
    pub(crate) init_scale: f64,
}

/// The grid of diffusers' Euler, Euler a, Heun and LMS: schedules run between the ends of the spaced levels, and
/// timesteps stay fractional.
pub(crate) fn ode_grid(problem: &Problem<'_>) -> Grid {
    let table = SigmaTable::new(&problem.noise);
    let timesteps = problem.spacing.timesteps(problem.steps, problem.train(), problem.config.steps_offset);
    let spaced: Vec<f64> = timesteps.iter().map(|t| table.at(*t)).collect();
    let (first, last) = (spaced[0], spaced[spaced.len() - 1]);
    let fractional = |sigmas: Vec<f64>| (sigmas.iter().map(|sigma| table.timestep(*sigma)).collect(), sigmas);
    let (timesteps, mut sigmas) = match problem.sigmas {
        SigmaSchedule::Default => (timesteps, spaced),
        SigmaSchedule::Karras => fractional(karras(first, last, problem.steps)),
        SigmaSchedule::Exponential => fractional(exponential(first, last, problem.steps)),
    };
    let largest = sigmas[0];
    let init_scale = match problem.spacing {
        Spacing::Linspace | Spacing::Trailing => largest,
        Spacing::Leading => (largest * largest + 1.0).sqrt(),
    };
    sigmas.push(0.0);
    Grid { timesteps, sigmas, init_scale }
}

/// How whole timesteps are made of the fractional ones that a Karras schedule leads to.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Whole {
    /// Always rounded (diffusers' UniPC).
    Rounded,
    /// Rounded, but cut off under the cosine schedule (diffusers' DPM-Solver).
    CutUnderCosine,
}

/// The grid of diffusers' DPM-Solver and UniPC: schedules run over the whole table, and timesteps are whole.
pub(crate) fn solver_grid(problem: &Problem<'_>, whole: Whole) -> Result<Grid, PlanError> {
    let table = SigmaTable::new(&problem.noise);
    let steps = problem.steps;
    // Without rounding, diffusers cuts the fraction off (`.to(int64)`). At the upper end float32 logarithms put the
    // timestep just below the last one for the noise schedules of latent models, so that it is cut to the one before:
    // 998, not 999. The hair subtracted here does the same.
    let cut = |t: f64| (t - 1e-6).max(0.0).floor();
    let (timesteps, mut sigmas) = match problem.sigmas {
        SigmaSchedule::Default => {
            let timesteps = problem.spacing.solver_timesteps(steps, problem.train(), problem.config.steps_offset);
            let sigmas = timesteps.iter().map(|t| table.at(*t)).collect::<Vec<f64>>();
            (timesteps, sigmas)
        }
        SigmaSchedule::Karras => {
            let cosine = problem.config.schedule.beta_schedule == BetaSchedule::SquaredcosCapV2;
            let cuts = cosine && whole == Whole::CutUnderCosine;
            let sigmas = karras(table.largest(), table.smallest(), steps);
            let fractional = sigmas.iter().map(|sigma| table.timestep(*sigma));
            (fractional.map(|t| if cuts { cut(t) } else { t.round_ties_even() }).collect(), sigmas)
        }
        SigmaSchedule::Exponential => {
            let sigmas = exponential(table.largest(), table.smallest(), steps);
            (sigmas.iter().map(|sigma| cut(table.timestep(*sigma))).collect(), sigmas)
        }
    };
    sigmas.push(match problem.config.final_sigma {
        FinalSigma::Zero => 0.0,
        FinalSigma::SigmaMin => table.smallest(),
    });
    if sigmas.windows(2).any(|pair| pair[0] <= pair[1]) {
        return Err(PlanError::StepsTooDense { steps });
    }
    Ok(Grid { timesteps, sigmas, init_scale: 1.0 })
}
