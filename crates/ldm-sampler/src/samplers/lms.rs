//! LMS: linear multistep of order 4 over uneven sigmas (k-diffusion `sample_lms`; Adams-Bashforth).

use super::slope;
use crate::form::Form;
use crate::sigmas::{Whole, ode_grid};
use crate::spec::Problem;
use crate::{Plan, PlanError, Step};

const ORDER: usize = 4;

pub(crate) fn plan(problem: &Problem<'_>) -> Result<Plan, PlanError> {
    let grid = ode_grid(problem, Whole::Fractional);
    let x = Form::register(0);
    // Slopes by age: the present one, then the history, newest first.
    let d: Vec<Form> = std::iter::once(Form::estimate()).chain((1..ORDER).map(Form::register)).collect();
    let step = |i: usize| {
        // An img2img run has less history than the order at its beginning; diffusers takes the coefficients of the full
        // order all the same and leaves out what it does not have, and so do we.
        let (order, known) = (ORDER.min(i + 1), ORDER.min(i - problem.skip + 1));
        let slopes = (0..known).map(|age| coefficient(&grid.sigmas, i, order, age) * &d[age]);
        let next = slopes.fold(x.clone(), |sum, term| sum + term);
        let history = (0..known.min(ORDER - 1)).map(|age| d[age].clone().into(age + 1));
        let update = std::iter::once(next.into(0)).chain(history).collect();
        let eval = slope(problem.config.prediction, grid.timesteps[i], grid.sigmas[i]);
        Step::new(i - problem.skip, eval, update)
    };
    let start = (1.0, grid.sigmas[problem.skip]);
    let steps = (problem.skip..problem.steps).map(step).collect();
    Ok(problem.plan(grid.init_scale, ORDER, start, steps))
}

/// The integral of the Lagrange polynomial of the slope of some age over the step: a cubic at most, so that two Gauss
/// points give it exactly.
fn coefficient(sigmas: &[f64], i: usize, order: usize, age: usize) -> f64 {
    let lagrange = |tau: f64| {
        let others = (0..order).filter(|other| *other != age);
        others.map(|other| (tau - sigmas[i - other]) / (sigmas[i - age] - sigmas[i - other])).product::<f64>()
    };
    let (middle, half) = ((sigmas[i] + sigmas[i + 1]) / 2.0, (sigmas[i + 1] - sigmas[i]) / 2.0);
    let gauss = half / 3f64.sqrt();
    half * (lagrange(middle - gauss) + lagrange(middle + gauss))
}
