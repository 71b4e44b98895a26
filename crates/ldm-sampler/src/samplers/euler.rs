//! Euler: one step along the slope of the probability flow (Karras et al. 2022, algorithm 1 without its correction).

use super::slope;
use crate::form::Form;
use crate::sigmas::{Whole, ode_grid};
use crate::spec::Problem;
use crate::{FinalSigma, Plan, PlanError, Step};

pub(crate) fn plan(problem: &Problem<'_>) -> Result<Plan, PlanError> {
    let mut grid = ode_grid(problem, Whole::Fractional);
    if problem.config.final_sigma == FinalSigma::SigmaMin {
        grid.sigmas[problem.steps] = problem.noise.sigmas()[0];
    }
    let (x, d) = (Form::register(0), Form::estimate());
    let step = |i: usize| {
        let (sigma, next) = (grid.sigmas[i], grid.sigmas[i + 1]);
        let eval = slope(problem.config.prediction, grid.timesteps[i], sigma);
        let update = 1.0 * &x + (next - sigma) * &d;
        Step::new(i - problem.skip, eval, vec![update.into(0)])
    };
    let start = (1.0, grid.sigmas[problem.skip]);
    let steps = (problem.skip..problem.steps).map(step).collect();
    Ok(problem.plan(grid.init_scale, 1, start, steps))
}
