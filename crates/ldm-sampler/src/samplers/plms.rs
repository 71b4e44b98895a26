//! PLMS: pseudo linear multistep, PNDM without its Runge-Kutta start (Liu et al. 2022, equations 9 and 12).

use crate::form::Form;
use crate::spec::Problem;
use crate::{Eval, Plan, PlanError, Prediction, Spacing, Step};

/// Where the latent before the first step is kept while the second evaluation looks ahead.
const ORIGIN: usize = 1;
/// The three outputs before the present one, newest first.
const HISTORY: [usize; 3] = [2, 3, 4];

pub(crate) fn plan(problem: &Problem<'_>) -> Result<Plan, PlanError> {
    let prediction = problem.config.prediction;
    let stride = problem.stride();
    let timesteps = visited(problem);
    let visited = &timesteps[problem.skip..];
    let x = Form::register(0);
    let e: Vec<Form> = std::iter::once(Form::estimate()).chain(HISTORY.map(Form::register)).collect();
    let mut steps = Vec::with_capacity(visited.len());
    for (counter, &t) in visited.iter().enumerate() {
        // The second evaluation, at the end of the first step, repeats that step with the mean of both outputs. An
        // img2img run starts behind the repeated timestep, where diffusers repeats a step all the same and goes on one
        // level too low; so do we.
        let (base, from, to) = match counter {
            1 if problem.steps > 1 => (Form::register(ORIGIN), t + stride, Some(t)),
            1 => (Form::register(ORIGIN), t, t.checked_sub(stride)),
            _ => (x.clone(), t, t.checked_sub(stride)),
        };
        let output = match counter {
            0 => 1.0 * &e[0],
            1 => 0.5 * &e[0] + 0.5 * &e[1],
            2 => 1.5 * &e[0] - 0.5 * &e[1],
            3 => 23.0 / 12.0 * &e[0] - 16.0 / 12.0 * &e[1] + 5.0 / 12.0 * &e[2],
            _ => 55.0 / 24.0 * &e[0] - 59.0 / 24.0 * &e[1] + 37.0 / 24.0 * &e[2] - 9.0 / 24.0 * &e[3],
        };
        let a = problem.alpha_bar(from)?;
        let a_prev = match to {
            Some(previous) => problem.alpha_bar(previous)?,
            None => problem.final_alpha_bar(false),
        };
        // The history holds velocities as they are; their combination is turned into noise (diffusers).
        let epsilon = match prediction {
            Prediction::V => a.sqrt() * &output + (1.0 - a).sqrt() * &base,
            Prediction::Epsilon | Prediction::Sample => output,
        };
        let denominator = a * (1.0 - a_prev).sqrt() + (a * (1.0 - a) * a_prev).sqrt();
        let next = (a_prev / a).sqrt() * &base - (a_prev - a) / denominator * &epsilon;
        let mut update = vec![next.into(0)];
        if counter == 0 {
            update.push(Form::register(0).into(ORIGIN));
        }
        if counter != 1 {
            // The present output becomes the newest of the history, and what there is of it moves on.
            let oldest = counter.saturating_sub(1).min(HISTORY.len() - 1);
            update.extend((0..=oldest).map(|age| e[age].clone().into(HISTORY[age])));
        }
        let index = counter.saturating_sub(1).min(problem.count() - 1);
        steps.push(Step::new(index, eval(prediction, t, problem.alpha_bar(t)?), update));
    }
    let a = problem.alpha_bar(visited[0])?;
    let start = (a.sqrt(), (1.0 - a).sqrt());
    let registers = 2 + HISTORY.len();
    Ok(problem.plan(1.0, registers, start, steps))
}

/// The timesteps with the second one repeated. Of a single one, CompVis repeats the first.
fn visited(problem: &Problem<'_>) -> Vec<usize> {
    let mut timesteps = problem.whole_timesteps();
    match (timesteps.get(1), problem.spacing) {
        (Some(&second), _) => timesteps.insert(1, second),
        (None, Spacing::Compvis) => timesteps.push(timesteps[0]),
        (None, _) => {}
    }
    timesteps
}

/// The estimate is the noise or, under v-prediction, the velocity as it comes.
fn eval(prediction: Prediction, t: usize, alpha_bar: f64) -> Eval {
    let (alpha, sigma) = (alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt());
    let (skip, out, denoised) = match prediction {
        Prediction::Epsilon => (0.0, 1.0, (1.0 / alpha, -sigma / alpha)),
        Prediction::V => (0.0, 1.0, (alpha, -sigma)),
        Prediction::Sample => (1.0 / sigma, -alpha / sigma, (1.0 / alpha, -sigma / alpha)),
    };
    Eval { input: 0, c_in: 1.0, timestep: t as f64, sigma: sigma / alpha, skip, out, denoised }
}
