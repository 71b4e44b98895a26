//! DPM++ 2M SDE: DPM++ 2M on the reverse SDE instead of the ODE (Lu et al. 2022b, SDE-DPM-Solver++(2M), midpoint).

use super::dpmpp_2m::target;
use super::{clean, preserve};
use crate::form::Form;
use crate::sigmas::{Whole, solver_grid};
use crate::spec::Problem;
use crate::{Plan, PlanError, Step};

pub(crate) fn plan(problem: &Problem<'_>) -> Result<Plan, PlanError> {
    let grid = solver_grid(problem, Whole::CutUnderCosine)?;
    let (x, z) = (Form::register(0), Form::noise());
    let step = |i: usize| {
        let (sigma, next) = (grid.sigmas[i], grid.sigmas[i + 1]);
        let ((_, s), (a_next, s_next)) = (preserve(sigma), preserve(next));
        let decay = next / sigma; // exp(-h), h being the step in ln(1 / sigma)
        let fresh = 1.0 - decay * decay;
        let heading = a_next * fresh * &target(problem, &grid, i);
        let update = (s_next / s * decay) * &x + heading + (s_next * fresh.sqrt()) * &z;
        let eval = clean(problem.config.prediction, grid.timesteps[i], preserve(sigma).0.powi(2));
        let kept = Form::estimate().into(1);
        Step { eval, update: vec![update.into(0), kept], noise: true, index: i - problem.skip }
    };
    Ok(Plan {
        init_scale: grid.init_scale,
        registers: 2,
        final_scale: 1.0,
        count: problem.count(),
        start: preserve(grid.sigmas[problem.skip]),
        steps: (problem.skip..problem.steps).map(step).collect(),
    })
}
