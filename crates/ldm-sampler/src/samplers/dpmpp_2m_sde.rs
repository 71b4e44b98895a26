//! DPM++ 2M SDE: DPM++ 2M on the reverse SDE instead of the ODE (Lu et al. 2022b, SDE-DPM-Solver++(2M)).

use super::dpmpp_2m::{Slopes, remember, slopes};
use super::{clean, preserve};
use crate::form::Form;
use crate::sigmas::{Whole, solver_grid};
use crate::spec::{Problem, SolverType};
use crate::{Plan, PlanError, Step};

pub(crate) fn plan(problem: &Problem<'_>) -> Result<Plan, PlanError> {
    let grid = solver_grid(problem, Whole::CutUnderCosine)?;
    let order = problem.order()?;
    let (x, z) = (Form::register(0), Form::noise());
    let brownian = problem.brownian(false);
    let step = |i: usize| {
        let (sigma, next) = (grid.sigmas[i], grid.sigmas[i + 1]);
        let ((_, s), (a_next, s_next)) = (preserve(sigma), preserve(next));
        let h = (sigma / next).ln();
        let decay = next / sigma; // exp(-h)
        let phi_1 = 1.0 - decay * decay;
        let phi_2 = 1.0 - phi_1 / (2.0 * h);
        // With the sign that diffusers gives the half, which k-diffusion's third order (DPM++ 3M SDE) does not share.
        let phi_3 = (2.0 * h - phi_1) / (4.0 * h * h) + 0.5;
        let heading = match (&slopes(problem, &grid, i, order), problem.config.solver.solver_type) {
            (Slopes::None, _) => phi_1 * &Form::estimate(),
            (Slopes::One(d1), SolverType::Heun) => phi_1 * &Form::estimate() + phi_2 * d1,
            (Slopes::One(d1), _) => phi_1 * &Form::estimate() + 0.5 * phi_1 * d1,
            (Slopes::Two(d1, d2), _) => phi_1 * &Form::estimate() + phi_2 * d1 - phi_3 * d2,
        };
        let update = (s_next / s * decay) * &x + a_next * &heading + (s_next * phi_1.sqrt()) * &z;
        let eval = clean(problem.config.prediction, grid.timesteps[i], preserve(sigma).0.powi(2));
        let step = Step::new(i - problem.skip, eval, remember(update, i - problem.skip, order));
        match (brownian, next > 0.0) {
            (true, true) => step.drawing_on(Some(grid.interval(sigma, next))),
            // A path has no increment down to the clean latent, and there is no noise in it.
            (true, false) => step,
            (false, _) => step.drawing(true),
        }
    };
    let start = preserve(grid.sigmas[problem.skip]);
    let steps = (problem.skip..problem.steps).map(step).collect();
    Ok(problem.plan(grid.init_scale, order.max(2), start, steps))
}
