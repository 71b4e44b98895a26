//! Sigma schedules: the noise levels that a sigma-space sampler visits, and the timestep to give the network at each.

use crate::schedule::SigmaTable;
use crate::spec::Problem;
use crate::{BetaSchedule, InitScale, Interval, PlanError, Spacing};

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
    /// Spaced as the quantiles of a beta distribution, dense at both ends (diffusers `use_beta_sigmas`; Lee et al. 2024).
    Beta,
}

impl SigmaSchedule {
    /// The name users see and send.
    pub fn name(self) -> &'static str {
        match self {
            SigmaSchedule::Default => "default",
            SigmaSchedule::Karras => "karras",
            SigmaSchedule::Exponential => "exponential",
            SigmaSchedule::Beta => "beta",
        }
    }

    /// The schedule of a name, whatever its case ("Automatic", "Normal" and "Uniform" are A1111's default ones).
    pub fn parse(name: &str) -> Option<SigmaSchedule> {
        match name.trim().to_ascii_lowercase().as_str() {
            "default" | "automatic" | "normal" | "uniform" => Some(SigmaSchedule::Default),
            "karras" => Some(SigmaSchedule::Karras),
            "exponential" => Some(SigmaSchedule::Exponential),
            "beta" => Some(SigmaSchedule::Beta),
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

/// `steps` noise levels from `largest` to `smallest`, spaced as the quantiles of the beta distribution with both
/// parameters 0.6 (diffusers `_convert_to_beta`).
pub fn beta(largest: f64, smallest: f64, steps: usize) -> Vec<f64> {
    ramp(steps).map(|u| smallest + quantile(1.0 - u) * (largest - smallest)).collect()
}

/// Both parameters of the beta distribution.
const SHAPE: f64 = 0.6;
/// The beta function at those.
const BETA_FUNCTION: f64 = 2.415_344_208_002_472_3;

/// The quantile function of the beta distribution, by Newton's method.
fn quantile(p: f64) -> f64 {
    // The density is the same from both ends, so that the lower half is all there is to find.
    if p > 0.5 {
        return 1.0 - quantile(1.0 - p);
    }
    // The first term of the series alone gives too large a number, and from there on the distribution function, which is
    // concave, lets no iteration overshoot.
    let mut x = (p * SHAPE * BETA_FUNCTION).powf(1.0 / SHAPE).min(0.5);
    for _ in 0..20 {
        let density = (x * (1.0 - x)).powf(SHAPE - 1.0) / BETA_FUNCTION;
        let step = (cumulative(x) - p) / density;
        x = (x - step).clamp(0.0, 0.5);
        if step.abs() <= 1e-16 * x {
            break;
        }
    }
    x
}

/// The distribution function in [0, 0.5], where its power series converges fast (Abramowitz & Stegun 26.5.4).
fn cumulative(x: f64) -> f64 {
    let mut term = 1.0 / SHAPE;
    let mut sum = term;
    for n in 0..200 {
        let n = f64::from(n);
        term *= x * (n + 1.0 - SHAPE) / (n + 1.0) * (n + SHAPE) / (n + 1.0 + SHAPE);
        sum += term;
        if term < sum * 1e-17 {
            break;
        }
    }
    x.powf(SHAPE) * sum / BETA_FUNCTION
}

fn ramp(steps: usize) -> impl Iterator<Item = f64> {
    (0..steps).map(move |i| i as f64 / (steps.max(2) - 1) as f64)
}

/// The noise levels of a run: one timestep per step, and one sigma more (where the last step ends).
pub(crate) struct Grid {
    pub(crate) timesteps: Vec<f64>,
    pub(crate) sigmas: Vec<f64>,
    /// What diffusers calls `init_noise_sigma`, or k-diffusion's way.
    pub(crate) init_scale: f64,
    table: SigmaTable,
    rounds: bool,
}

impl Grid {
    /// The timestep of a noise level inside a step; it is fractional unless the run rounds all.
    pub(crate) fn timestep(&self, sigma: f64) -> f64 {
        let timestep = self.table.timestep(sigma);
        if self.rounds { timestep.round_ties_even() } else { timestep }
    }

    /// The stretch of the run's Brownian path between two noise levels above zero.
    pub(crate) fn interval(&self, from: f64, to: f64) -> Interval {
        let lowest = self.sigmas.iter().copied().filter(|sigma| *sigma > 0.0).fold(f64::INFINITY, f64::min);
        Interval { from, to, low: lowest, high: self.sigmas[0] }
    }

    /// The grid, if no two steps fall on the same noise level.
    pub(crate) fn descending(self) -> Result<Grid, PlanError> {
        let steps = self.timesteps.len();
        match self.sigmas.windows(2).all(|pair| pair[0] > pair[1]) {
            true => Ok(self),
            false => Err(PlanError::StepsTooDense { steps }),
        }
    }
}

/// How whole timesteps are made of the fractional ones between trained noise levels.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Whole {
    /// They stay fractional (diffusers' Euler, Heun, LMS and DPM++ SDE).
    Fractional,
    /// Rounded under the Karras schedule alone (diffusers' DPM2 and DPM2 a).
    RoundedUnderKarras,
    /// Rounded under the Karras schedule, cut off under others (diffusers' UniPC and DEIS).
    Rounded,
    /// As that, but cut off under the cosine schedule too (diffusers' DPM-Solver).
    CutUnderCosine,
}

impl Whole {
    /// The timestep that the network is told.
    fn apply(self, problem: &Problem<'_>, timestep: f64) -> f64 {
        // Without rounding, diffusers cuts the fraction off (`.to(int64)`). At the upper end float32 logarithms put
        // the timestep just below the last one for the noise schedules of latent models, so that it is cut to the one
        // before: 998, not 999. The hair subtracted here does the same.
        let cut = |t: f64| (t - 1e-6).max(0.0).floor();
        let karras = problem.sigmas == SigmaSchedule::Karras;
        let cosine = problem.config.schedule.beta_schedule == BetaSchedule::SquaredcosCapV2;
        match (problem.variant.round_t, self) {
            (Some(true), _) => timestep.round_ties_even(),
            (Some(false), _) | (None, Whole::Fractional) => timestep,
            (None, Whole::RoundedUnderKarras) if karras => timestep.round_ties_even(),
            (None, Whole::RoundedUnderKarras) => timestep,
            (None, Whole::Rounded) if karras => timestep.round_ties_even(),
            (None, Whole::CutUnderCosine) if karras && !cosine => timestep.round_ties_even(),
            (None, Whole::Rounded | Whole::CutUnderCosine) => cut(timestep),
        }
    }
}

/// Timesteps and levels, before the last step's end: the spaced ones, or a schedule between two ends.
fn levels(problem: &Problem<'_>, table: &SigmaTable, spaced: Vec<f64>, whole_table: bool, whole: Whole) -> (Vec<f64>, Vec<f64>) {
    let sigma = |t: &f64| match problem.spacing {
        Spacing::KDiffusion => table.at_in_logarithms(*t),
        _ => table.at(*t),
    };
    let at_spaced: Vec<f64> = spaced.iter().map(sigma).collect();
    let ends = if whole_table { (table.largest(), table.smallest()) } else { (at_spaced[0], at_spaced[at_spaced.len() - 1]) };
    let (first, last) = (problem.config.sigma_max.unwrap_or(ends.0), problem.config.sigma_min.unwrap_or(ends.1));
    let count = spaced.len();
    let (mut timesteps, mut sigmas): (Vec<f64>, Vec<f64>) = match problem.sigmas {
        SigmaSchedule::Default => {
            let rounded = problem.variant.round_t == Some(true);
            (spaced.into_iter().map(|t| if rounded { t.round_ties_even() } else { t }).collect(), at_spaced)
        }
        scheduled => {
            let sigmas = match scheduled {
                SigmaSchedule::Exponential => exponential(first, last, count),
                SigmaSchedule::Beta => beta(first, last, count),
                SigmaSchedule::Karras | SigmaSchedule::Default => karras(first, last, count),
            };
            (sigmas.iter().map(|sigma| whole.apply(problem, table.timestep(*sigma))).collect(), sigmas)
        }
    };
    timesteps.truncate(problem.steps);
    sigmas.truncate(problem.steps);
    (timesteps, sigmas)
}

/// How many levels above zero are laid out for a run's steps.
fn laid_out(problem: &Problem<'_>) -> usize {
    problem.steps + usize::from(problem.variant.discard_next_to_last_sigma)
}

/// The grid of diffusers' Euler family: schedules run between the ends of the spaced levels.
pub(crate) fn ode_grid(problem: &Problem<'_>, whole: Whole) -> Grid {
    let table = SigmaTable::new(&problem.noise);
    let spaced = problem.spacing.timesteps(laid_out(problem), problem.train(), problem.config.steps_offset);
    let (timesteps, mut sigmas) = levels(problem, &table, spaced, false, whole);
    let largest = sigmas[0];
    let init_scale = match (problem.variant.init_scale, problem.spacing) {
        (InitScale::Class, Spacing::Leading) => (largest * largest + 1.0).sqrt(),
        _ => largest,
    };
    sigmas.push(0.0);
    Grid { timesteps, sigmas, init_scale, table, rounds: problem.variant.round_t == Some(true) }
}

/// The grid of diffusers' DPM-Solver, UniPC and DEIS: schedules run over the whole table. The last step ends at zero.
pub(crate) fn solver_levels(problem: &Problem<'_>, whole: Whole) -> Grid {
    let table = SigmaTable::new(&problem.noise);
    let spaced = problem.spacing.solver_timesteps(laid_out(problem), problem.train(), problem.config.steps_offset);
    let (timesteps, mut sigmas) = levels(problem, &table, spaced, true, whole);
    let init_scale = match problem.variant.init_scale {
        InitScale::Class => 1.0,
        InitScale::SigmaMax => sigmas[0] / (sigmas[0] * sigmas[0] + 1.0).sqrt(),
    };
    sigmas.push(0.0);
    Grid { timesteps, sigmas, init_scale, table, rounds: problem.variant.round_t == Some(true) }
}

/// [`solver_levels`] ending where the config says (`final_sigmas_type`).
pub(crate) fn solver_grid(problem: &Problem<'_>, whole: Whole) -> Result<Grid, PlanError> {
    let mut grid = solver_levels(problem, whole);
    if problem.config.final_sigma == FinalSigma::SigmaMin {
        grid.sigmas[problem.steps] = problem.noise.sigmas()[0];
    }
    grid.descending()
}
