//! Order of convergence where the truth is known: for Gaussian data the exact denoiser is linear, and so is the map
//! from noise to data along the probability flow (Karras et al. 2022, appendix B).

use ldm_sampler::{
    NoiseSchedule, NoiseSource, PlanSpec, Prediction, Sampler, SchedulerConfig, SigmaSchedule, SolverConfig, Spacing, StepNoise,
    Variant, entries, plan,
};

const MEAN: f64 = 0.4;
const DEVIATION: f64 = 0.6;

/// ln sigma between trained timesteps, so that the target is smooth enough for the order to show.
struct Levels(Vec<f64>);

impl Levels {
    fn sigma(&self, t: f64) -> f64 {
        let low = (t as usize).min(self.0.len() - 2);
        self.0[low] + (t - low as f64) * (self.0[low + 1] - self.0[low])
    }
}

/// The error of the latent in its own space, at the noise level of the last evaluation.
///
/// The run is stopped before its last update: from the smallest noise level to zero every sampler takes one plain
/// step, whose error does not shrink with the number of steps. Runs that are even in timesteps, which ln sigma is far
/// from linear in near zero, are stopped earlier still.
fn error(case: &Case, prediction: Prediction, steps: usize) -> f64 {
    let Case { sampler, order, schedule, spacing, .. } = *case;
    let config = SchedulerConfig {
        timestep_spacing: Some(spacing),
        prediction,
        steps_offset: 0,
        solver: SolverConfig { order, ..SolverConfig::default() },
        ..SchedulerConfig::stable_diffusion()
    };
    let levels = Levels(NoiseSchedule::new(&config.schedule).expect("a schedule").sigmas());
    let mut plan = plan(&config, &PlanSpec { schedule, ..PlanSpec::new(sampler, steps) }).expect("a plan");
    let first = plan.steps[0].eval.clone();
    if schedule == SigmaSchedule::Default {
        let end = plan.steps.iter().position(|step| step.eval.timestep == 200.0).expect("a step at 200");
        plan.steps.truncate(end + 1);
    }
    let last = plan.steps.last().expect("a step").eval.clone();
    let exploding = |c_in: f64| c_in != 1.0;
    // x / alpha = clean + sigma * noise has mean MEAN and variance DEVIATION² + sigma².
    let scale = |sigma: f64, c_in: f64| if exploding(c_in) { 1.0 } else { 1.0 / (1.0 + sigma * sigma).sqrt() };
    let spread = |sigma: f64| (DEVIATION * DEVIATION + sigma * sigma).sqrt();
    let z = 0.8;
    let truth = |sigma: f64, c_in: f64| scale(sigma, c_in) * (MEAN + spread(sigma) * z);
    // The network is told the timestep only; the sigma it stands for is the one the plan is at.
    let mut at = plan.steps.iter().map(|step| (step.eval.sigma, step.eval.c_in)).collect::<Vec<_>>().into_iter();
    plan.steps.last_mut().expect("a step").update.clear();
    let network = |x: &[f64], t: f64| {
        let (sigma, _) = at.next().expect("a level");
        assert!((sigma / levels.sigma(t) - 1.0).abs() < 0.5, "the plan and the table are at odds");
        let alpha = 1.0 / (1.0 + sigma * sigma).sqrt();
        let predict = |x: &f64| {
            let unscaled = x / alpha;
            let clean = MEAN + (DEVIATION / spread(sigma)).powi(2) * (unscaled - MEAN);
            let noise = (unscaled - clean) / sigma;
            match prediction {
                Prediction::Epsilon => noise,
                Prediction::V => alpha * noise - sigma * alpha * clean,
                Prediction::Sample => clean,
            }
        };
        x.iter().map(predict).collect()
    };
    let start = truth(first.sigma, first.c_in);
    let found = plan.run(&[start], |_| unreachable!("no noise"), network);
    (found[0] - truth(last.sigma, last.c_in)).abs()
}

/// A solver, how it is run, and between what its observed order should lie.
struct Case {
    sampler: Sampler,
    /// What the config asks of multistep solvers.
    order: usize,
    schedule: SigmaSchedule,
    spacing: Spacing,
    /// The smaller number of steps; the other one is twice that.
    few: usize,
    expected: (f64, f64),
}

#[test]
fn errors_fall_with_the_order_of_the_sampler() {
    let (karras, exponential, spaced) = (SigmaSchedule::Karras, SigmaSchedule::Exponential, SigmaSchedule::Default);
    let (linspace, leading) = (Spacing::Linspace, Spacing::Leading);
    let case = |sampler, order, schedule, spacing, few, expected| Case { sampler, order, schedule, spacing, few, expected };
    let cases = [
        case(Sampler::Euler, 2, karras, linspace, 40, (0.9, 1.2)),
        case(Sampler::Euler, 2, exponential, linspace, 40, (0.9, 1.2)),
        case(Sampler::Heun, 2, karras, linspace, 40, (1.8, 2.5)),
        case(Sampler::Lms, 2, karras, linspace, 80, (1.8, 5.0)),
        case(Sampler::Dpmpp2m, 2, karras, linspace, 40, (1.8, 2.5)),
        case(Sampler::Dpmpp2m, 2, exponential, linspace, 40, (1.8, 2.5)),
        case(Sampler::Dpmpp2m, 1, karras, linspace, 40, (0.9, 1.2)),
        // The first steps of a run know too little for the third order, which shows in the size of the error.
        case(Sampler::Dpmpp2m, 3, exponential, linspace, 80, (1.8, 3.5)),
        case(Sampler::Unipc, 2, karras, linspace, 40, (1.8, 3.5)),
        case(Sampler::Unipc, 2, exponential, linspace, 40, (1.8, 3.5)),
        case(Sampler::Unipc, 1, karras, linspace, 40, (1.8, 2.2)),
        case(Sampler::Unipc, 3, exponential, linspace, 80, (2.7, 4.5)),
        case(Sampler::Dpm2, 2, karras, linspace, 40, (1.8, 2.5)),
        case(Sampler::Dpm2, 2, exponential, linspace, 40, (1.8, 2.5)),
        case(Sampler::Deis, 1, karras, linspace, 40, (0.9, 1.2)),
        case(Sampler::Deis, 2, karras, linspace, 40, (1.8, 2.5)),
        case(Sampler::Deis, 3, exponential, linspace, 80, (1.8, 3.5)),
        // Weights for even steps, on steps that are not.
        case(Sampler::Ipndm, 2, karras, linspace, 80, (0.9, 4.0)),
        case(Sampler::Ddim, 2, spaced, leading, 50, (0.8, 1.3)),
        case(Sampler::Plms, 2, spaced, leading, 100, (1.8, 5.0)),
    ];
    let mut failures = Vec::new();
    for case in &cases {
        let Case { sampler, order, schedule, .. } = *case;
        for prediction in [Prediction::Epsilon, Prediction::V, Prediction::Sample] {
            let found = (error(case, prediction, case.few) / error(case, prediction, 2 * case.few)).log2();
            println!("{} {order} {schedule:?} {prediction:?}: {found:.2}", sampler.name());
            // diffusers combines velocities of different noise levels as they are, which costs PLMS its order.
            let first = sampler == Sampler::Plms && prediction == Prediction::V;
            let (least, most) = if first { (0.8, 1.3) } else { case.expected };
            if !(least..=most).contains(&found) {
                failures.push(format!("{} {order} {schedule:?} {prediction:?}: {found}", sampler.name()));
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// At the same steps, a solver of higher order errs less.
#[test]
fn higher_orders_err_less() {
    let (schedule, spacing, expected) = (SigmaSchedule::Karras, Spacing::Linspace, (0.0, 0.0));
    for sampler in [Sampler::Dpmpp2m, Sampler::Deis, Sampler::Unipc] {
        let error = |order| error(&Case { sampler, order, schedule, spacing, few: 0, expected }, Prediction::Epsilon, 30);
        let errors = [1, 2, 3].map(error);
        println!("{} {errors:?}", sampler.name());
        assert!(errors[1] < errors[0] / 3.0 && errors[2] < errors[1] / 1.5, "{} {errors:?}", sampler.name());
    }
}

/// A single step of DDIM or Euler to a clean end is the denoiser itself.
#[test]
fn a_step_to_the_end_is_the_denoiser() {
    for sampler in [Sampler::Ddim, Sampler::Euler, Sampler::Heun, Sampler::Dpmpp2m, Sampler::Unipc] {
        let config = SchedulerConfig {
            set_alpha_to_one: Some(true),
            prediction: Prediction::Sample,
            timestep_spacing: Some(Spacing::Trailing),
            ..SchedulerConfig::stable_diffusion()
        };
        let plan = plan(&config, &PlanSpec::new(sampler, 1)).expect("a plan");
        let found = plan.run(&[3.0], |_| unreachable!("no noise"), |_, _| vec![0.25]);
        assert!((found[0] - 0.25).abs() < 1e-12, "{}: {}", sampler.name(), found[0]);
    }
}

/// A network that knows Gaussian data; a plan tells it where it is.
fn gaussian(levels: &Levels, x: &[f64], c_in: f64, t: f64) -> Vec<f64> {
    let sigma = levels.sigma(t);
    let (alpha, variance) = (1.0 / (1.0 + sigma * sigma).sqrt(), DEVIATION * DEVIATION + sigma * sigma);
    let unscaled = |x: &f64| if c_in == 1.0 { x / alpha } else { x / c_in };
    x.iter().map(|x| sigma * (unscaled(x) - MEAN) / variance).collect()
}

/// Every sampler turns noise into the data's distribution: exact in law as the steps get finer, so that thousands of
/// independent numbers have the data's mean and deviation.
#[test]
fn samples_of_a_gaussian_are_gaussian() {
    let (n, steps) = (4_000, 250);
    for entry in entries().iter().filter(|entry| !["lcm", "tcd", "ddim_inverse"].contains(&entry.name)) {
        let mut runs = vec![(StepNoise::Class, 0.0)];
        runs.extend(entry.eta.then_some((StepNoise::Class, 1.0)));
        if entry.brownian {
            runs = vec![(StepNoise::Independent, 0.0), (StepNoise::Brownian, 0.0)];
        }
        for (noise, eta) in runs {
            let config = SchedulerConfig { set_alpha_to_one: Some(true), ..SchedulerConfig::stable_diffusion() };
            let levels = Levels(NoiseSchedule::new(&config.schedule).expect("a schedule").sigmas());
            let variant = Variant { noise, ..Variant::DIFFUSERS };
            let schedule = entry.schedules.get(1).copied().unwrap_or_default();
            let spec = PlanSpec { variant, eta, schedule, ..PlanSpec::new(entry.sampler, steps) };
            let plan = plan(&config, &spec).expect(entry.name);
            let mut source = NoiseSource::new(9);
            // The model's noisiest level still holds a trace of the mean, which a start from noise does not.
            let first = &plan.steps[0].eval;
            let signal = if first.c_in == 1.0 { 1.0 / (1.0 + first.sigma.powi(2)).sqrt() } else { 1.0 };
            let start: Vec<f64> =
                source.initial([n, 1, 1]).iter().map(|z| plan.init_scale * f64::from(*z) + signal * MEAN).collect();
            let mut scales = plan.steps.iter().map(|step| step.eval.c_in).collect::<Vec<_>>().into_iter();
            let network = |x: &[f64], t: f64| {
                let c_in = scales.next().expect("a scale");
                let unscaled: Vec<f64> = x.iter().map(|x| x / c_in).collect();
                gaussian(&levels, &unscaled.iter().map(|x| x * c_in).collect::<Vec<_>>(), c_in, t)
            };
            let draw = |step: &ldm_sampler::Step, n| source.for_step(step, n).into_iter().map(f64::from).collect();
            let found = plan.run_with(&start, draw, network);
            let mean = found.iter().sum::<f64>() / n as f64;
            let deviation = (found.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64).sqrt();
            println!("{} {noise:?} {eta}: {mean:.4} {deviation:.4}", entry.name);
            assert!((mean - MEAN).abs() < 0.02, "{} {noise:?}: mean {mean}", entry.name);
            assert!((deviation / DEVIATION - 1.0).abs() < 0.04, "{} {noise:?}: deviation {deviation}", entry.name);
        }
    }
}

/// Inversion and sampling undo each other, the better the finer the steps.
#[test]
fn inversion_is_undone_by_ddim() {
    let error = |steps| {
        let config = SchedulerConfig::stable_diffusion();
        let levels = Levels(NoiseSchedule::new(&config.schedule).expect("a schedule").sigmas());
        let there = plan(&config, &PlanSpec::new(Sampler::DdimInverse, steps)).expect("a plan");
        let back = plan(&config, &PlanSpec::new(Sampler::Ddim, steps)).expect("a plan");
        let clean = [0.3, -0.7, 0.1, 0.9];
        let network = |x: &[f64], t: f64| gaussian(&levels, x, 1.0, t);
        let noise = there.run(&clean, |_| unreachable!("no noise"), network);
        let found = back.run(&noise, |_| unreachable!("no noise"), network);
        // The flow keeps every number's place among those of its noise level (Karras et al. 2022, appendix B).
        let sigma = levels.sigma(there.steps.last().expect("a step").eval.timestep);
        let alpha = 1.0 / (1.0 + sigma * sigma).sqrt();
        let place = |x: f64| alpha * (MEAN + (DEVIATION.powi(2) + sigma * sigma).sqrt() * (x - MEAN) / DEVIATION);
        let worst = |a: &mut dyn Iterator<Item = (f64, f64)>| a.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let far = worst(&mut noise.iter().zip(clean).map(|(noise, x)| (*noise, place(x))));
        (far, worst(&mut found.into_iter().zip(clean)))
    };
    let (coarse, fine) = (error(50), error(200));
    println!("{coarse:?} {fine:?}");
    assert!(fine.0 < 0.05 && coarse.0 / fine.0 > 2.0, "{coarse:?} {fine:?}");
    assert!(fine.1 < 0.05 && coarse.1 / fine.1 > 2.0, "{coarse:?} {fine:?}");
}
