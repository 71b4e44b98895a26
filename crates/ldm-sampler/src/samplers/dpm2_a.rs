//! DPM2 a: a DPM2 step below the next noise level, then noise back up to it (k-diffusion `sample_dpm_2_ancestral`,
//! eta 1).

use super::dpm2::BASE;
use super::{ancestral, slope};
use crate::form::Form;
use crate::sigmas::{Whole, ode_grid};
use crate::spec::Problem;
use crate::{Plan, PlanError, Step};

pub(crate) fn plan(problem: &Problem<'_>) -> Result<Plan, PlanError> {
    let grid = ode_grid(problem, Whole::RoundedUnderKarras);
    let (x, base, d, z) = (Form::register(0), Form::register(BASE), Form::estimate(), Form::noise());
    let mut steps = Vec::with_capacity(2 * problem.count());
    for i in problem.skip..problem.steps {
        let (sigma, next, index) = (grid.sigmas[i], grid.sigmas[i + 1], i - problem.skip);
        let (down, up) = ancestral(sigma, next);
        let eval = slope(problem.config.prediction, grid.timesteps[i], sigma);
        let middle = (sigma * down).sqrt();
        let first = 1.0 * &x + (middle - sigma) * &d;
        if next == 0.0 {
            steps.push(Step::new(index, eval, vec![first.into(0)]));
            continue;
        }
        steps.push(Step::new(index, eval, vec![first.into(0), x.clone().into(BASE)]));
        let second = 1.0 * &base + (down - sigma) * &d + up * &z;
        let eval = slope(problem.config.prediction, grid.timestep(middle), middle);
        steps.push(Step::new(index, eval, vec![second.into(0)]).drawing(true));
    }
    Ok(problem.plan(grid.init_scale, 2, (1.0, grid.sigmas[problem.skip]), steps))
}
