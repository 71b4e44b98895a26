//! DEIS: Adams-Bashforth on the noise over sigma, with polynomials in ln sigma (Zhang & Chen 2023, rho-AB with log rho;
//! diffusers `DEISMultistepScheduler`; order 2 unless the config has another).

use super::{noise, preserve};
use crate::form::Form;
use crate::sigmas::{Whole, solver_levels};
use crate::spec::Problem;
use crate::{Plan, PlanError, SigmaSchedule, Step};

/// Up to this many steps the last ones are of lower order.
const FEW_STEPS: usize = 14;

pub(crate) fn plan(problem: &Problem<'_>) -> Result<Plan, PlanError> {
    let mut grid = solver_levels(problem, Whole::Rounded);
    // ln sigma does not reach the clean latent: the last step ends at the smallest trained level, or (under schedules,
    // which end on it) goes nowhere. `final_sigmas_type` has no say.
    let levels = &mut grid.sigmas;
    levels.pop();
    if levels.windows(2).any(|pair| pair[0] <= pair[1]) {
        return Err(PlanError::StepsTooDense { steps: problem.steps });
    }
    levels.push(match problem.sigmas {
        SigmaSchedule::Default => problem.noise.sigmas()[0],
        _ => levels[problem.steps - 1],
    });
    let most = problem.order()?;
    // The noises by age: the present one, then the history, newest first.
    let e: Vec<Form> = std::iter::once(Form::estimate()).chain((1..most).map(Form::register)).collect();
    let step = |i: usize| {
        let (sigma, next, counter) = (grid.sigmas[i], grid.sigmas[i + 1], i - problem.skip);
        let few = problem.config.solver.lower_order_final && problem.steps <= FEW_STEPS;
        let left = if few { problem.steps - i } else { most };
        let order = most.min(left).min(counter + 1);
        let (alpha, alpha_next) = (preserve(sigma).0, preserve(next).0);
        let unscaled = (1.0 / alpha) * &Form::register(0);
        let known: Vec<f64> = (0..order).map(|age| grid.sigmas[i - age].ln()).collect();
        let terms = e.iter().take(order).enumerate().map(|(age, noise)| weight(&known, age, sigma, next) * noise);
        let update = alpha_next * &terms.fold(unscaled, |sum, term| sum + term);
        let kept = (0..(counter + 1).min(most - 1)).map(|age| e[age].clone().into(age + 1));
        let update = std::iter::once(update.into(0)).chain(kept).collect();
        Step::new(counter, noise(problem.config.prediction, grid.timesteps[i], alpha * alpha), update)
    };
    let start = preserve(grid.sigmas[problem.skip]);
    let steps = (problem.skip..problem.steps).map(step).collect();
    Ok(problem.plan(grid.init_scale, most, start, steps))
}

/// The integral over sigma, from one level to another, of the Lagrange polynomial in ln sigma that is 1 at the known
/// point of some age and 0 at the others.
fn weight(known: &[f64], age: usize, from: f64, to: f64) -> f64 {
    let others: Vec<f64> = known.iter().enumerate().filter(|(other, _)| *other != age).map(|(_, known)| *known).collect();
    let primitive = |sigma: f64| {
        let l = sigma.ln();
        // The integrals of 1, l and l².
        let (zeroth, first, second) = (sigma, sigma * (l - 1.0), sigma * (l * l - 2.0 * l + 2.0));
        match others[..] {
            [] => zeroth,
            [c] => first - c * zeroth,
            [c, d, ..] => second - (c + d) * first + c * d * zeroth,
        }
    };
    let scale: f64 = others.iter().map(|other| known[age] - other).product();
    (primitive(to) - primitive(from)) / scale
}
