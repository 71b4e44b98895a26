//! TCD: trajectory consistency sampling (Zheng et al. 2024, algorithm 4); eta is the paper's gamma.

use super::{clean, distilled_timesteps};
use crate::form::Form;
use crate::spec::Problem;
use crate::{Plan, PlanError, Step};

pub(crate) fn plan(problem: &Problem<'_>) -> Result<Plan, PlanError> {
    let timesteps = distilled_timesteps(problem)?;
    let (x, x0, z) = (Form::register(0), Form::estimate(), Form::noise());
    let mut steps = Vec::with_capacity(problem.count());
    for (index, &t) in timesteps[problem.skip..].iter().enumerate() {
        let a = problem.alpha_bar(t)?;
        let next = timesteps.get(problem.skip + index + 1).copied();
        // The consistency function goes further down than the next timestep, and noise comes back up to that. diffusers
        // multiplies in float32.
        let below = ((1.0 - problem.eta) as f32 * next.unwrap_or(0) as f32) as usize;
        let a_below = problem.alpha_bar(below)?;
        let epsilon = (1.0 / (1.0 - a).sqrt()) * &x - (a / (1.0 - a)).sqrt() * &x0;
        let consistent = a_below.sqrt() * &x0 + (1.0 - a_below).sqrt() * &epsilon;
        let (update, noise) = match next {
            Some(next) if problem.eta > 0.0 => {
                let ratio = problem.alpha_bar(next)? / a_below;
                (ratio.sqrt() * &consistent + (1.0 - ratio).max(0.0).sqrt() * &z, true)
            }
            _ => (consistent, false),
        };
        let eval = clean(problem.config.prediction, t as f64, a);
        steps.push(Step::new(index, eval, vec![update.into(0)]).drawing(noise));
    }
    let a = problem.alpha_bar(timesteps[problem.skip])?;
    Ok(problem.plan(1.0, 1, (a.sqrt(), (1.0 - a).sqrt()), steps))
}
