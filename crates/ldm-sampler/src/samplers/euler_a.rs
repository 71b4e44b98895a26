//! Euler a: an Euler step below the next noise level, then noise back up to it (k-diffusion
//! `sample_euler_ancestral`, eta 1).

use super::{ancestral, slope};
use crate::form::Form;
use crate::sigmas::{Whole, ode_grid};
use crate::spec::Problem;
use crate::{Plan, PlanError, Step};

pub(crate) fn plan(problem: &Problem<'_>) -> Result<Plan, PlanError> {
    let grid = ode_grid(problem, Whole::Fractional);
    let (x, d, z) = (Form::register(0), Form::estimate(), Form::noise());
    let step = |i: usize| {
        let (sigma, next) = (grid.sigmas[i], grid.sigmas[i + 1]);
        let (down, up) = ancestral(sigma, next);
        let eval = slope(problem.config.prediction, grid.timesteps[i], sigma);
        let update = 1.0 * &x + (down - sigma) * &d + up * &z;
        Step::new(i - problem.skip, eval, vec![update.into(0)]).drawing(true)
    };
    let start = (1.0, grid.sigmas[problem.skip]);
    let steps = (problem.skip..problem.steps).map(step).collect();
    Ok(problem.plan(grid.init_scale, 1, start, steps))
}
