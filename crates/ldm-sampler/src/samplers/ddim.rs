//! DDIM: the implicit sampler with adjustable noise (Song et al. 2021, equations 12 and 16).

use super::clean;
use crate::form::Form;
use crate::spec::Problem;
use crate::{Plan, PlanError, Spacing, Step};

pub(crate) fn plan(problem: &Problem<'_>) -> Result<Plan, PlanError> {
    let timesteps = problem.whole_timesteps();
    let (x, x0, z) = (Form::register(0), Form::estimate(), Form::noise());
    let mut steps = Vec::with_capacity(problem.count());
    for (index, &t) in timesteps[problem.skip..].iter().enumerate() {
        let a = problem.alpha_bar(t)?;
        // The previous timestep is a stride away whatever the spacing (diffusers).
        let a_prev = match t.checked_sub(problem.stride()) {
            Some(previous) => problem.alpha_bar(previous)?,
            None => problem.final_alpha_bar(true),
        };
        let sigma = problem.eta * ((1.0 - a_prev) / (1.0 - a) * (1.0 - a / a_prev)).max(0.0).sqrt();
        let direction = (1.0 - a_prev - sigma * sigma).max(0.0).sqrt();
        // The noise follows from the clean latent, so that a step from pure noise is no special case.
        let epsilon = (1.0 / (1.0 - a).sqrt()) * &x - (a / (1.0 - a)).sqrt() * &x0;
        let next = a_prev.sqrt() * &x0 + direction * &epsilon;
        let noise = problem.eta > 0.0;
        let update = if noise { next + sigma * &z } else { next };
        let eval = clean(problem.config.prediction, t as f64, a);
        steps.push(Step::new(index, eval, vec![update.into(0)]).drawing(noise));
    }
    // CompVis' img2img adds the noise of the level above the one it begins at.
    let above = match problem.spacing {
        Spacing::Compvis => problem.skip.saturating_sub(1),
        _ => problem.skip,
    };
    let a = problem.alpha_bar(timesteps[above])?;
    let start = (a.sqrt(), (1.0 - a).sqrt());
    Ok(problem.plan(1.0, 1, start, steps))
}
