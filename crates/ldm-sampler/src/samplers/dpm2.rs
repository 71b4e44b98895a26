//! DPM2: a midpoint step in ln sigma (Lu et al. 2022a, DPM-Solver-2; k-diffusion `sample_dpm_2` without churn).

use super::slope;
use crate::form::Form;
use crate::sigmas::{Whole, ode_grid};
use crate::spec::Problem;
use crate::{Plan, PlanError, Step};

/// The latent at the beginning of the step.
pub(crate) const BASE: usize = 1;

pub(crate) fn plan(problem: &Problem<'_>) -> Result<Plan, PlanError> {
    let grid = ode_grid(problem, Whole::RoundedUnderKarras);
    let (x, base, d) = (Form::register(0), Form::register(BASE), Form::estimate());
    let mut steps = Vec::with_capacity(2 * problem.count());
    for i in problem.skip..problem.steps {
        let (sigma, next, index) = (grid.sigmas[i], grid.sigmas[i + 1], i - problem.skip);
        let eval = slope(problem.config.prediction, grid.timesteps[i], sigma);
        // The logarithm of the clean end is out of reach: the last step is Euler's.
        let middle = (sigma * next).sqrt();
        let first = 1.0 * &x + (middle - sigma) * &d;
        if next == 0.0 {
            steps.push(Step::new(index, eval, vec![first.into(0)]));
            continue;
        }
        steps.push(Step::new(index, eval, vec![first.into(0), x.clone().into(BASE)]));
        let second = 1.0 * &base + (next - sigma) * &d;
        let eval = slope(problem.config.prediction, grid.timestep(middle), middle);
        steps.push(Step::new(index, eval, vec![second.into(0)]));
    }
    Ok(problem.plan(grid.init_scale, 2, (1.0, grid.sigmas[problem.skip]), steps))
}
