//! DPM++ 3M SDE: multistep solver of order 3 for the reverse SDE (k-diffusion `sample_dpmpp_3m_sde`, eta 1).

use super::denoiser;
use crate::form::Form;
use crate::sigmas::{Whole, ode_grid};
use crate::spec::Problem;
use crate::{Plan, PlanError, Step};

/// The clean latents that the previous evaluations found, newest first.
const HISTORY: [usize; 2] = [1, 2];

pub(crate) fn plan(problem: &Problem<'_>) -> Result<Plan, PlanError> {
    let grid = ode_grid(problem, Whole::Fractional).descending()?;
    let brownian = problem.brownian(true);
    let (x, z) = (Form::register(0), Form::noise());
    let d: [Form; 3] = [Form::estimate(), Form::register(HISTORY[0]), Form::register(HISTORY[1])];
    let h = |i: usize| (grid.sigmas[i] / grid.sigmas[i + 1]).ln();
    let step = |i: usize| {
        let (sigma, next, counter) = (grid.sigmas[i], grid.sigmas[i + 1], i - problem.skip);
        let eval = denoiser(problem.config.prediction, grid.timesteps[i], sigma);
        let kept = (0..=counter.min(HISTORY.len() - 1)).map(|age| d[age].clone().into(HISTORY[age]));
        if next == 0.0 {
            return Step::new(counter, eval, vec![d[0].clone().into(0)]);
        }
        let decay = next / sigma;
        let twice = 2.0 * h(i);
        // The integral of exp over twice the step in ln(1 / sigma), and those of its moments.
        let phi_1 = 1.0 - decay * decay;
        let phi_2 = 1.0 - phi_1 / twice;
        let phi_3 = phi_2 / twice - 0.5;
        let difference = |age: usize, r: f64| (1.0 / r) * &(d[age].clone() - d[age + 1].clone());
        let bend = match counter {
            0 => Form::default(),
            1 => phi_2 * &difference(0, h(i - 1) / h(i)),
            _ => {
                let (r0, r1) = (h(i - 1) / h(i), h(i - 2) / h(i));
                let (newer, older) = (difference(0, r0), difference(1, r1));
                let rise = newer.clone() - older;
                phi_2 * &(newer + (r0 / (r0 + r1)) * &rise) - phi_3 / (r0 + r1) * &rise
            }
        };
        let update = (decay * decay) * &x + phi_1 * &d[0] + bend + (next * phi_1.sqrt()) * &z;
        let update = std::iter::once(update.into(0)).chain(kept).collect();
        Step::new(counter, eval, update).drawing_on(brownian.then(|| grid.interval(sigma, next)))
    };
    let start = (1.0, grid.sigmas[problem.skip]);
    let steps = (problem.skip..problem.steps).map(step).collect();
    Ok(problem.plan(grid.init_scale, 1 + HISTORY.len(), start, steps))
}
