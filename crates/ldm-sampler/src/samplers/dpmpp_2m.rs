//! DPM++ 2M: multistep data-prediction solver (Lu et al. 2022b, algorithm 2; order 2 unless the config has another).

use super::{clean, preserve};
use crate::form::Form;
use crate::sigmas::{Grid, Whole, solver_grid};
use crate::spec::{Problem, SolverType};
use crate::{FinalSigma, Plan, PlanError, Step};

/// The clean latents that the previous evaluations found, newest first.
const HISTORY: [usize; 2] = [1, 2];
/// Up to this many steps the last ones are of lower order even if they do not end at the clean latent.
const FEW_STEPS: usize = 14;

pub(crate) fn plan(problem: &Problem<'_>) -> Result<Plan, PlanError> {
    let grid = solver_grid(problem, Whole::CutUnderCosine)?;
    let order = problem.order()?;
    let x = Form::register(0);
    let step = |i: usize| {
        let (sigma, next) = (grid.sigmas[i], grid.sigmas[i + 1]);
        let ((_, s), (a_next, s_next)) = (preserve(sigma), preserve(next));
        let h = (sigma / next).ln();
        // phi_1 is the integral of exp over the step in ln(1 / sigma); the others are those of its moments.
        let phi_1 = 1.0 - next / sigma;
        let phi_2 = 1.0 - phi_1 / h;
        let phi_3 = (h - phi_1) / (h * h) - 0.5;
        let slopes = slopes(problem, &grid, i, order);
        let heading = match (&slopes, problem.config.solver.solver_type) {
            (Slopes::None, _) => phi_1 * &Form::estimate(),
            (Slopes::One(d1), SolverType::Heun) => phi_1 * &Form::estimate() + phi_2 * d1,
            (Slopes::One(d1), _) => phi_1 * &Form::estimate() + 0.5 * phi_1 * d1,
            (Slopes::Two(d1, d2), _) => phi_1 * &Form::estimate() + phi_2 * d1 - phi_3 * d2,
        };
        let update = (s_next / s) * &x + a_next * &heading;
        let eval = clean(problem.config.prediction, grid.timesteps[i], preserve(sigma).0.powi(2));
        Step::new(i - problem.skip, eval, remember(update, i - problem.skip, order))
    };
    let start = preserve(grid.sigmas[problem.skip]);
    let steps = (problem.skip..problem.steps).map(step).collect();
    Ok(problem.plan(grid.init_scale, order.max(2), start, steps))
}

/// The update of the latent, and the estimate as the newest of the history that the order asks for.
pub(crate) fn remember(update: Form, counter: usize, order: usize) -> Vec<crate::Assign> {
    let mut assigns = vec![update.into(0), Form::estimate().into(HISTORY[0])];
    if order > 2 && counter > 0 {
        assigns.push(Form::register(HISTORY[0]).into(HISTORY[1]));
    }
    assigns
}

/// Divided differences of the clean latents, in units of the step in ln(1 / sigma), as far as the step's order goes.
pub(crate) enum Slopes {
    /// First order: none.
    None,
    /// Second order: the first difference.
    One(Form),
    /// Third order: the first and (halved) second derivative of the parabola through the last three.
    Two(Form, Form),
}

/// The differences that step `i` may use: what there is of history, and less of it at the end.
pub(crate) fn slopes(problem: &Problem<'_>, grid: &Grid, i: usize, order: usize) -> Slopes {
    let solver = &problem.config.solver;
    let few = solver.lower_order_final && problem.steps <= FEW_STEPS;
    let left = problem.steps - i;
    let euler = solver.euler_at_final || few || problem.config.final_sigma == FinalSigma::Zero;
    let most = match left {
        1 if euler => 1,
        2 if few => 2,
        _ => 3,
    };
    let lambda = |i: usize| -grid.sigmas[i].ln();
    let h = |i: usize| lambda(i + 1) - lambda(i);
    let d: [Form; 3] = [Form::estimate(), Form::register(HISTORY[0]), Form::register(HISTORY[1])];
    let difference = |age: usize, r: f64| (1.0 / r) * &(d[age].clone() - d[age + 1].clone());
    match order.min(most).min(i - problem.skip + 1) {
        1 => Slopes::None,
        2 => Slopes::One(difference(0, h(i - 1) / h(i))),
        _ => {
            let (r0, r1) = (h(i - 1) / h(i), h(i - 2) / h(i));
            let (newer, older) = (difference(0, r0), difference(1, r1));
            let rise = newer.clone() - older;
            Slopes::Two(newer + (r0 / (r0 + r1)) * &rise, (1.0 / (r0 + r1)) * &rise)
        }
    }
}
