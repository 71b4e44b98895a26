//! UniPC: unified predictor-corrector on data prediction (Zhao et al. 2023, section 3; order 2 and B(h) = exp(h) - 1
//! unless the config has others).

use super::{clean, preserve};
use crate::form::Form;
use crate::sigmas::{Grid, Whole, solver_grid};
use crate::spec::{Problem, SolverType};
use crate::{FinalSigma, Plan, PlanError, Step};

/// The corrected latent of the previous step.
const CORRECTED: usize = 1;
/// The clean latents of the last evaluations, newest first.
const HISTORY: [usize; 3] = [2, 3, 4];

pub(crate) fn plan(problem: &Problem<'_>) -> Result<Plan, PlanError> {
    let grid = solver_grid(problem, Whole::Rounded)?;
    let (most, solver) = (problem.order()?, problem.config.solver);
    if !solver.lower_order_final && problem.config.final_sigma == FinalSigma::Zero && most > 1 {
        let reason = "UniPC cannot end at the clean latent in a step of higher order";
        return Err(PlanError::InvalidSetting { setting: "lower_order_final", value: 0.0, reason });
    }
    let order = |i: usize| {
        let left = if solver.lower_order_final { problem.steps - i } else { most };
        most.min(left).min(i - problem.skip + 1)
    };
    let span = |i: usize| Span::new(&grid, i, order(i), solver.solver_type == SolverType::Bh1);
    let (estimate, history) = (Form::estimate(), HISTORY.map(Form::register));
    let step = |i: usize| {
        // One evaluation serves twice: it corrects the latent that was predicted for this point, and then predicts the
        // next one from the corrected latent.
        let counter = i - problem.skip;
        let x = match counter {
            0 => Form::register(0),
            _ => span(i - 1).correct(&Form::register(CORRECTED), &history, &estimate),
        };
        let known: Vec<Form> = std::iter::once(estimate.clone()).chain(history.clone()).collect();
        let next = span(i).predict(&x, &known);
        let kept = counter.min(most - 1).min(HISTORY.len() - 1);
        let mut update = vec![next.into(0), x.into(CORRECTED)];
        update.extend((0..=kept).map(|age| known[age].clone().into(HISTORY[age])));
        let eval = clean(problem.config.prediction, grid.timesteps[i], preserve(grid.sigmas[i]).0.powi(2));
        Step::new(counter, eval, update)
    };
    let start = preserve(grid.sigmas[problem.skip]);
    let steps = (problem.skip..problem.steps).map(step).collect();
    Ok(problem.plan(grid.init_scale, 2 + most, start, steps))
}

/// The scalars of the way from point `i` to the next.
struct Span {
    /// `exp(-h) - 1`, `h` being the step in ln(1 / sigma).
    phi: f64,
    /// B(h), of which only the ratio to the moments matters.
    b: f64,
    /// The moments of exp over the span that the weights have to reproduce, over B(h) (Zhao et al. 2023, equation 5).
    moments: Vec<f64>,
    /// The ratio of the noise scales.
    shrink: f64,
    /// The signal scale at the end.
    alpha: f64,
    /// The points before this one, seen from it, in units of `h` (negative), newest first; one fewer than the order.
    r: Vec<f64>,
}

impl Span {
    fn new(grid: &Grid, i: usize, order: usize, bh1: bool) -> Span {
        let (sigma, next) = (grid.sigmas[i], grid.sigmas[i + 1]);
        let ((_, s), (alpha, s_next)) = (preserve(sigma), preserve(next));
        let h = (sigma / next).ln();
        let phi = next / sigma - 1.0;
        let b = if bh1 { -h } else { phi };
        let (mut moment, mut factorial) = (phi / -h - 1.0, 1.0);
        let mut moments = Vec::with_capacity(order);
        for k in 1..=order {
            moments.push(moment * factorial / b);
            factorial *= (k + 1) as f64;
            moment = moment / -h - 1.0 / factorial;
        }
        let r = (1..order).map(|age| (sigma / grid.sigmas[i - age]).ln() / h).collect();
        Span { phi, b, moments, shrink: s_next / s, alpha, r }
    }

    /// UniP: the latent at the end from the estimates at the beginning and before, newest first.
    fn predict(&self, x: &Form, known: &[Form]) -> Form {
        let weights = match self.r.len() {
            0 => vec![],
            1 => vec![0.5],
            count => weights(&self.r, &self.moments[..count]),
        };
        self.straight(x, &known[0]) - self.alpha * self.b * &self.bend(&weights, known)
    }

    /// UniC: the latent at the end, when the estimate there is known as well.
    fn correct(&self, x: &Form, known: &[Form], end: &Form) -> Form {
        let points: Vec<f64> = self.r.iter().copied().chain([1.0]).collect();
        let weights = if self.r.is_empty() { vec![0.5] } else { weights(&points, &self.moments) };
        let rise = end.clone() - known[0].clone();
        let bend = self.bend(&weights, known) + weights[self.r.len()] * &rise;
        self.straight(x, &known[0]) - self.alpha * self.b * &bend
    }

    /// The step of first order.
    fn straight(&self, x: &Form, now: &Form) -> Form {
        self.shrink * x - self.alpha * self.phi * now
    }

    /// The weighted divided differences of the estimates before.
    fn bend(&self, weights: &[f64], known: &[Form]) -> Form {
        let terms = self.r.iter().zip(weights).zip(&known[1..]);
        let terms = terms.map(|((r, weight), before)| weight / r * &(before.clone() - known[0].clone()));
        terms.fold(Form::default(), |sum, term| sum + term)
    }
}

/// Solves `sum_k points[k]^j weights[k] = moments[j]`, a Vandermonde system of three points at most, by elimination.
fn weights(points: &[f64], moments: &[f64]) -> Vec<f64> {
    let n = points.len();
    let mut rows: Vec<Vec<f64>> =
        (0..n).map(|j| points.iter().map(|point| point.powi(j as i32)).chain([moments[j]]).collect()).collect();
    for pivot in 0..n {
        // The points differ, and the pivots of a Vandermonde matrix are products of their differences.
        let row = rows[pivot].clone();
        for other in (0..n).filter(|other| *other != pivot) {
            let factor = rows[other][pivot] / row[pivot];
            rows[other].iter_mut().zip(&row).for_each(|(value, above)| *value -= factor * above);
        }
    }
    (0..n).map(|k| rows[k][n] / rows[k][k]).collect()
}
