//! iPNDM: Adams-Bashforth weights of even steps on the slope, up to order 4, without PNDM's costly start (Zhang & Chen
//! 2023, equation 14; diffusers `IPNDMScheduler`, whose own cosine schedule gives way to the model's).

use super::slope;
use crate::form::Form;
use crate::sigmas::{Whole, ode_grid};
use crate::spec::Problem;
use crate::{Plan, PlanError, Step};

/// The weights of the slopes, newest first, by how many there are.
const WEIGHTS: [&[f64]; 4] = [
    &[1.0],
    &[3.0 / 2.0, -1.0 / 2.0],
    &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
    &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
];

pub(crate) fn plan(problem: &Problem<'_>) -> Result<Plan, PlanError> {
    let grid = ode_grid(problem, Whole::Fractional);
    let order = WEIGHTS.len();
    // Slopes by age: the present one, then the history, newest first.
    let d: Vec<Form> = std::iter::once(Form::estimate()).chain((1..order).map(Form::register)).collect();
    let step = |i: usize| {
        let known = order.min(i - problem.skip + 1);
        let width = grid.sigmas[i + 1] - grid.sigmas[i];
        let terms = WEIGHTS[known - 1].iter().zip(&d).map(|(weight, slope)| width * weight * slope);
        let next = terms.fold(Form::register(0), |sum, term| sum + term);
        let history = (0..known.min(order - 1)).map(|age| d[age].clone().into(age + 1));
        let update = std::iter::once(next.into(0)).chain(history).collect();
        Step::new(i - problem.skip, slope(problem.config.prediction, grid.timesteps[i], grid.sigmas[i]), update)
    };
    let start = (1.0, grid.sigmas[problem.skip]);
    let steps = (problem.skip..problem.steps).map(step).collect();
    Ok(problem.plan(grid.init_scale, order, start, steps))
}
