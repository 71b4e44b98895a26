//! DPM++ 2M: multistep data-prediction solver of order 2 (Lu et al. 2022b, algorithm 2, midpoint).

use super::{clean, preserve};
use crate::form::Form;
use crate::sigmas::{Grid, Whole, solver_grid};
use crate::spec::Problem;
use crate::{Plan, PlanError, Step};

/// The clean latent that the previous evaluation found.
const PREVIOUS: usize = 1;
/// Up to this many steps the last one is of first order even if it does not end at the clean latent.
const FEW_STEPS: usize = 14;

pub(crate) fn plan(problem: &Problem<'_>) -> Result<Plan, PlanError> {
    let grid = solver_grid(problem, Whole::CutUnderCosine)?;
    let x = Form::register(0);
    let step = |i: usize| {
        let (sigma, next) = (grid.sigmas[i], grid.sigmas[i + 1]);
        let ((_, s), (a_next, s_next)) = (preserve(sigma), preserve(next));
        // exp(-h) = next / sigma, h being the step in ln(1 / sigma).
        let update = (s_next / s) * &x + a_next * (1.0 - next / sigma) * &target(problem, &grid, i);
        let eval = clean(problem.config.prediction, grid.timesteps[i], preserve(sigma).0.powi(2));
        let kept = Form::estimate().into(PREVIOUS);
        Step { eval, update: vec![update.into(0), kept], noise: false, index: i - problem.skip }
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

/// The clean latent that step `i` heads for: the present estimate, extrapolated by half a step along the last two.
pub(crate) fn target(problem: &Problem<'_>, grid: &Grid, i: usize) -> Form {
    let (d, previous) = (Form::estimate(), Form::register(PREVIOUS));
    let last = i + 1 == problem.steps && (grid.sigmas[i + 1] == 0.0 || problem.steps <= FEW_STEPS);
    if i == problem.skip || last {
        return d;
    }
    let lambda = |i: usize| -grid.sigmas[i].ln();
    let r = (lambda(i) - lambda(i - 1)) / (lambda(i + 1) - lambda(i));
    (1.0 + 0.5 / r) * &d - 0.5 / r * &previous
}
