//! DPM++ 2S a: a single step of order 2 below the next noise level, then noise back up to it (Lu et al. 2022b,
//! algorithm 1; k-diffusion `sample_dpmpp_2s_ancestral`, eta 1).

use super::dpm2::BASE;
use super::{ancestral, denoiser};
use crate::form::Form;
use crate::sigmas::{Whole, ode_grid};
use crate::spec::Problem;
use crate::{Plan, PlanError, Step};

pub(crate) fn plan(problem: &Problem<'_>) -> Result<Plan, PlanError> {
    let grid = ode_grid(problem, Whole::Fractional);
    let (x, base, d, z) = (Form::register(0), Form::register(BASE), Form::estimate(), Form::noise());
    // The exact solution for a constant clean latent, from one noise level to another.
    let towards = |x: &Form, ratio: f64| ratio * x + (1.0 - ratio) * &d;
    let mut steps = Vec::with_capacity(2 * problem.count());
    for i in problem.skip..problem.steps {
        let (sigma, next, index) = (grid.sigmas[i], grid.sigmas[i + 1], i - problem.skip);
        let eval = denoiser(problem.config.prediction, grid.timesteps[i], sigma);
        if next == 0.0 {
            steps.push(Step::new(index, eval, vec![d.clone().into(0)]));
            continue;
        }
        let (down, up) = ancestral(sigma, next);
        let middle = (sigma * down).sqrt();
        let update = vec![towards(&x, middle / sigma).into(0), x.clone().into(BASE)];
        steps.push(Step::new(index, eval, update));
        let second = towards(&base, down / sigma) + up * &z;
        let eval = denoiser(problem.config.prediction, grid.timestep(middle), middle);
        steps.push(Step::new(index, eval, vec![second.into(0)]).drawing(true));
    }
    Ok(problem.plan(grid.init_scale, 2, (1.0, grid.sigmas[problem.skip]), steps))
}
