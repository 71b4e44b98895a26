//! DDIM inversion: the DDIM step run from the clean latent to noise (Song et al. 2021, section 4.3; diffusers
//! `DDIMInverseScheduler`). Of a strength, the steps at the clean end are run.

use super::noise;
use crate::form::Form;
use crate::spec::Problem;
use crate::{Plan, PlanError, Prediction, Step};

pub(crate) fn plan(problem: &Problem<'_>) -> Result<Plan, PlanError> {
    let timesteps = problem.whole_timesteps();
    let (x, e) = (Form::register(0), Form::estimate());
    let mut steps = Vec::with_capacity(problem.count());
    for (index, &t) in timesteps.iter().rev().take(problem.count()).enumerate() {
        // The network is told the timestep that the step leads to, while the latent is still a stride below it.
        let a = match t.checked_sub(problem.stride()) {
            Some(below) => problem.alpha_bar(below)?,
            None => problem.final_alpha_bar(true),
        };
        if a == 1.0 && problem.config.prediction == Prediction::Sample {
            return Err(PlanError::NoiseUndefined { timestep: t });
        }
        let a_next = problem.alpha_bar(t)?;
        let shrink = (a_next / a).sqrt();
        let update = shrink * &x + ((1.0 - a_next).sqrt() - shrink * (1.0 - a).sqrt()) * &e;
        steps.push(Step::new(index, noise(problem.config.prediction, t as f64, a), vec![update.into(0)]));
    }
    Ok(problem.plan(1.0, 1, (1.0, 0.0), steps))
}
