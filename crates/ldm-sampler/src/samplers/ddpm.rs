//! DDPM: ancestral sampling from the posterior (Ho et al. 2020, equations 6, 7 and 11; variance `fixed_small`).

use super::clean;
use crate::form::Form;
use crate::spec::Problem;
use crate::{Plan, PlanError, Step};

pub(crate) fn plan(problem: &Problem<'_>) -> Result<Plan, PlanError> {
    let timesteps = problem.whole_timesteps();
    let (x, x0, z) = (Form::register(0), Form::estimate(), Form::noise());
    let mut steps = Vec::with_capacity(problem.count());
    for (index, &t) in timesteps[problem.skip..].iter().enumerate() {
        let a = problem.alpha_bar(t)?;
        let a_prev = match timesteps.get(problem.skip + index + 1) {
            Some(previous) => problem.alpha_bar(*previous)?,
            None => 1.0,
        };
        let beta = 1.0 - a / a_prev;
        let mean = (a_prev.sqrt() * beta / (1.0 - a)) * &x0 + ((a / a_prev).sqrt() * (1.0 - a_prev) / (1.0 - a)) * &x;
        let variance = ((1.0 - a_prev) / (1.0 - a) * beta).max(1e-20);
        // Noise is drawn whenever t > 0, also by a last step that has no use for it.
        let noise = t > 0;
        let update = if noise { mean + variance.sqrt() * &z } else { mean };
        let eval = clean(problem.config.prediction, t as f64, a);
        steps.push(Step::new(index, eval, vec![update.into(0)]).drawing(noise));
    }
    let a = problem.alpha_bar(timesteps[problem.skip])?;
    let start = (a.sqrt(), (1.0 - a).sqrt());
    Ok(problem.plan(1.0, 1, start, steps))
}
