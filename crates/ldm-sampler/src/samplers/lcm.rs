//! LCM: multistep consistency sampling (Luo et al. 2023, algorithm 3; Song et al. 2023, algorithm 1).

use super::{clean, distilled_timesteps};
use crate::form::Form;
use crate::spec::Problem;
use crate::{Plan, PlanError, Step};

/// The standard deviation of data in the boundary condition.
const SIGMA_DATA: f64 = 0.5;

pub(crate) fn plan(problem: &Problem<'_>) -> Result<Plan, PlanError> {
    let timesteps = distilled_timesteps(problem)?;
    let scaling = problem.config.timestep_scaling.unwrap_or(10.0);
    let (x, x0, z) = (Form::register(0), Form::estimate(), Form::noise());
    let mut steps = Vec::with_capacity(problem.count());
    for (index, &t) in timesteps[problem.skip..].iter().enumerate() {
        let a = problem.alpha_bar(t)?;
        let norm = (scaling * t as f64).powi(2) + SIGMA_DATA * SIGMA_DATA;
        let (c_skip, c_out) = (SIGMA_DATA * SIGMA_DATA / norm, scaling * t as f64 / norm.sqrt());
        let consistent = c_out * &x0 + c_skip * &x;
        let (update, noise) = match timesteps.get(problem.skip + index + 1) {
            Some(next) => {
                let a_next = problem.alpha_bar(*next)?;
                (a_next.sqrt() * &consistent + (1.0 - a_next).sqrt() * &z, true)
            }
            None => (consistent, false),
        };
        let mut eval = clean(problem.config.prediction, t as f64, a);
        eval.denoised = (c_skip, c_out);
        steps.push(Step::new(index, eval, vec![update.into(0)]).drawing(noise));
    }
    let a = problem.alpha_bar(timesteps[problem.skip])?;
    let start = (a.sqrt(), (1.0 - a).sqrt());
    Ok(problem.plan(1.0, 1, start, steps))
}
