//! Heun: an Euler step, then again with the mean of the slopes at both ends (Karras et al. 2022, algorithm 1).

use super::slope;
use crate::form::Form;
use crate::sigmas::{Whole, ode_grid};
use crate::spec::Problem;
use crate::{Plan, PlanError, Step};

/// The latent at the beginning of the step.
const BASE: usize = 1;
/// The slope there.
const SLOPE: usize = 2;

pub(crate) fn plan(problem: &Problem<'_>) -> Result<Plan, PlanError> {
    let grid = ode_grid(problem, Whole::Fractional);
    let prediction = problem.config.prediction;
    let (x, base, first, d) = (Form::register(0), Form::register(BASE), Form::register(SLOPE), Form::estimate());
    let mut steps = Vec::with_capacity(2 * problem.count());
    for i in problem.skip..problem.steps {
        let (sigma, next, index) = (grid.sigmas[i], grid.sigmas[i + 1], i - problem.skip);
        let predictor = 1.0 * &x + (next - sigma) * &d;
        let eval = slope(prediction, grid.timesteps[i], sigma);
        let last = next == 0.0;
        let kept = if last { vec![] } else { vec![x.clone().into(BASE), d.clone().into(SLOPE)] };
        let update = std::iter::once(predictor.into(0)).chain(kept).collect();
        steps.push(Step::new(index, eval, update));
        if !last {
            let half = (next - sigma) / 2.0;
            let corrector = 1.0 * &base + half * &first + half * &d;
            let eval = slope(prediction, grid.timesteps[i + 1], next);
            steps.push(Step::new(index, eval, vec![corrector.into(0)]));
        }
    }
    let start = (1.0, grid.sigmas[problem.skip]);
    Ok(problem.plan(grid.init_scale, 3, start, steps))
}
