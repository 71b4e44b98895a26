//! The toy network of `tools/goldens/sampler.py` and of the model spec's table of golden scalars.

use ldm_sampler::{NoiseSource, Plan};

pub(crate) const NOISE: [f64; 4] = [1.0, -0.5, 2.0, 0.25];
pub(crate) const CLEAN: [f64; 4] = [0.3, -0.7, 0.1, 0.9];

/// `1.1 tanh(0.3 x + t / 1000)`, taken for whatever the network is said to predict.
pub(crate) fn network(x: &[f64], t: f64) -> Vec<f64> {
    x.iter().map(|x| 1.1 * (0.3 * x + t / 1000.0).tanh()).collect()
}

/// Runs a plan on the toy, with `torch.randn` of seed 7 where it asks for noise.
pub(crate) fn run(plan: &Plan, latent: &[f64]) -> Vec<f64> {
    let mut source = NoiseSource::new(7);
    plan.run_with(latent, |step, n| source.for_step(step, n).into_iter().map(f64::from).collect(), network)
}

pub(crate) fn txt2img(plan: &Plan) -> Vec<f64> {
    NOISE.iter().map(|z| plan.init_scale * z).collect()
}

pub(crate) fn img2img(plan: &Plan) -> Vec<f64> {
    CLEAN.iter().zip(NOISE).map(|(x, z)| plan.start.0 * x + plan.start.1 * z).collect()
}

/// The greatest difference, relative to the greatest magnitude expected.
pub(crate) fn error(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
    let worst = found.iter().zip(expected).map(|(f, e)| (f - e).abs());
    worst.fold(0.0, |most: f64, d| if d.is_nan() { f64::INFINITY } else { most.max(d) }) / scale
}
