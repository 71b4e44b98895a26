//! DPM++ SDE: two evaluations per step of the reverse SDE, on one Brownian path (Lu et al. 2022b, algorithm 1 on the SDE;
//! k-diffusion `sample_dpmpp_sde` with r 1/2 and eta 1; diffusers `DPMSolverSDEScheduler`).

use super::dpm2::BASE;
use super::{ancestral, denoiser};
use crate::form::Form;
use crate::sigmas::{Whole, ode_grid};
use crate::spec::Problem;
use crate::{Plan, PlanError, Step};

pub(crate) fn plan(problem: &Problem<'_>) -> Result<Plan, PlanError> {
    let grid = ode_grid(problem, Whole::Fractional).descending()?;
    let (x, base, d, z) = (Form::register(0), Form::register(BASE), Form::estimate(), Form::noise());
    let brownian = problem.brownian(true);
    // Both halves start at the beginning of the step, so that the first noise is a part of the second.
    let towards = |x: &Form, sigma: f64, next: f64| {
        let (down, up) = ancestral(sigma, next);
        (down / sigma) * x + (1.0 - down / sigma) * &d + up * &z
    };
    let mut steps = Vec::with_capacity(2 * problem.count());
    for i in problem.skip..problem.steps {
        let (sigma, next, index) = (grid.sigmas[i], grid.sigmas[i + 1], i - problem.skip);
        let eval = denoiser(problem.config.prediction, grid.timesteps[i], sigma);
        if next == 0.0 {
            steps.push(Step::new(index, eval, vec![d.clone().into(0)]));
            continue;
        }
        let middle = (sigma * next).sqrt();
        let path = |to: f64| brownian.then(|| grid.interval(sigma, to));
        let update = vec![towards(&x, sigma, middle).into(0), x.clone().into(BASE)];
        steps.push(Step::new(index, eval, update).drawing_on(path(middle)));
        let eval = denoiser(problem.config.prediction, grid.timestep(middle), middle);
        steps.push(Step::new(index, eval, vec![towards(&base, sigma, next).into(0)]).drawing_on(path(next)));
    }
    Ok(problem.plan(grid.init_scale, 2, (1.0, grid.sigmas[problem.skip]), steps))
}
