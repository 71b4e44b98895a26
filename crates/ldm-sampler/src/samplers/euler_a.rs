//! Euler a: an Euler step below the next noise level, then noise back up to it (k-diffusion
//! `sample_euler_ancestral`, eta 1).

use super::slope;
use crate::form::Form;
use crate::sigmas::ode_grid;
use crate::spec::Problem;
use crate::{Plan, PlanError, Step};

pub(crate) fn plan(problem: &Problem<'_>) -> Result<Plan, PlanError> {
    let grid = ode_grid(problem);
    let (x, d, z) = (Form::register(0), Form::estimate(), Form::noise());
    let step = |i: usize| {
        let (sigma, next) = (grid.sigmas[i], grid.sigmas[i + 1]);
        let up = (next * next * (sigma * sigma - next * next) / (sigma * sigma)).sqrt();
        let down = next * next / sigma; // the square root of next² - up²
        let eval = slope(problem.config.prediction, grid.timesteps[i], sigma);
        let update = 1.0 * &x + (down - sigma) * &d + up * &z;
        Step { eval, update: vec![update.into(0)], noise: true, index: i - problem.skip }
    };
    Ok(Plan {
        init_scale: grid.init_scale,
        registers: 1,
        final_scale: 1.0,
        count: problem.count(),
        start: (1.0, grid.sigmas[problem.skip]),
        steps: (problem.skip..problem.steps).map(step).collect(),
    })
}
