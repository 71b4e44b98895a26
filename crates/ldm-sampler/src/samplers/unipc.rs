//! UniPC: unified predictor-corrector of order 2, B(h) = exp(h) - 1, on data prediction (Zhao et al. 2023, section 3).

use super::{clean, preserve};
use crate::form::Form;
use crate::sigmas::{Grid, Whole, solver_grid};
use crate::spec::Problem;
use crate::{Plan, PlanError, Step};

/// The corrected latent of the previous step.
const CORRECTED: usize = 1;
/// The clean latents of the last two evaluations, newest first.
const HISTORY: [usize; 2] = [2, 3];

pub(crate) fn plan(problem: &Problem<'_>) -> Result<Plan, PlanError> {
    let grid = solver_grid(problem, Whole::Rounded)?;
    let order = |i: usize| 2.min(problem.steps - i).min(i - problem.skip + 1);
    let (estimate, history) = (Form::estimate(), HISTORY.map(Form::register));
    let step = |i: usize| {
        // One evaluation serves twice: it corrects the latent that was predicted for this point, and then predicts the
        // next one from the corrected latent.
        let first = i == problem.skip;
        let x = match first {
            true => Form::register(0),
            false => {
                let span = Span::new(&grid, i - 1);
                correct(&span, &Form::register(CORRECTED), &history, &estimate, order(i - 1))
            }
        };
        let next = predict(&Span::new(&grid, i), &x, &estimate, &history[0], order(i));
        let mut update = vec![next.into(0), x.into(CORRECTED), estimate.clone().into(HISTORY[0])];
        if !first {
            update.push(history[0].clone().into(HISTORY[1]));
        }
        let eval = clean(problem.config.prediction, grid.timesteps[i], preserve(grid.sigmas[i]).0.powi(2));
        Step { eval, update, noise: false, index: i - problem.skip }
    };
    Ok(Plan {
        init_scale: grid.init_scale,
        registers: 2 + HISTORY.len(),
        final_scale: 1.0,
        count: problem.count(),
        start: preserve(grid.sigmas[problem.skip]),
        steps: (problem.skip..problem.steps).map(step).collect(),
    })
}

/// The scalars of the way from point `i` to the next: `h` in ln(1 / sigma), and `phi = exp(-h) - 1`.
struct Span {
    h: f64,
    phi: f64,
    /// The ratio of the noise scales.
    shrink: f64,
    /// The signal scale at the end.
    alpha: f64,
    /// The step before this one, seen from its end, in units of `h` (negative).
    r: f64,
}

impl Span {
    fn new(grid: &Grid, i: usize) -> Span {
        let (sigma, next) = (grid.sigmas[i], grid.sigmas[i + 1]);
        let ((_, s), (alpha, s_next)) = (preserve(sigma), preserve(next));
        let h = (sigma / next).ln();
        let r = if i == 0 { f64::NAN } else { (sigma / grid.sigmas[i - 1]).ln() / h };
        Span { h, phi: next / sigma - 1.0, shrink: s_next / s, alpha, r }
    }
}

/// UniP: the latent at the end of a span from the estimate at its beginning and the one before.
fn predict(span: &Span, x: &Form, now: &Form, before: &Form, order: usize) -> Form {
    let straight = span.shrink * x - span.alpha * span.phi * now;
    match order {
        1 => straight,
        _ => straight - span.alpha * span.phi * 0.5 / span.r * &(before.clone() - now.clone()),
    }
}

/// UniC: the latent at the end of a span, when the estimate at its end is known as well.
fn correct(span: &Span, x: &Form, [now, before]: &[Form; 2], end: &Form, order: usize) -> Form {
    let straight = span.shrink * x - span.alpha * span.phi * now;
    let rise = end.clone() - now.clone();
    let bend = match order {
        1 => 0.5 * &rise,
        _ => {
            // The weights reproduce the first two moments of exp over the span (Zhao et al. 2023, equation 5).
            let first = span.phi / -span.h - 1.0;
            let second = first / -span.h - 0.5;
            let (b1, b2) = (first / span.phi, second * 2.0 / span.phi);
            let past = (b2 - b1) / (span.r - 1.0);
            (past / span.r) * &(before.clone() - now.clone()) + (b1 - past) * &rise
        }
    };
    straight - span.alpha * span.phi * &bend
}
