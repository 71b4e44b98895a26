//! Brownian noise: its law, its invariance, and what torchsde's tree gives for the same seed.

use ldm_sampler::{
    Interval, NoiseSource, NoiseSpec, PlanSpec, RandomSource, Sampler, SchedulerConfig, SigmaSchedule, Step, StepNoise, Variant,
    plan,
};
use serde::Deserialize;

const LOW: f64 = 0.03;
const HIGH: f64 = 14.6;

/// A step that asks for the noise between two levels of a path.
fn step(from: f64, to: f64) -> Step {
    let plan = plan(&SchedulerConfig::stable_diffusion(), &PlanSpec::new(Sampler::DpmppSde, 2)).expect("a plan");
    Step { brownian: Some(Interval { from, to, low: LOW, high: HIGH }), ..plan.steps[0].clone() }
}

/// The increment itself, with the deviation of its length.
fn increment(source: &mut NoiseSource, from: f64, to: f64, n: usize) -> Vec<f64> {
    let scale = (to - from).abs().sqrt();
    source.for_step(&step(from, to), n).into_iter().map(|z| scale * f64::from(z)).collect()
}

fn moments(a: &[f64], b: &[f64]) -> (f64, f64) {
    let n = a.len() as f64;
    (a.iter().sum::<f64>() / n, a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>() / n)
}

#[derive(Debug, Deserialize)]
struct Golden {
    seed: u64,
    low: f64,
    high: f64,
    asked: Vec<(f64, f64)>,
    values: Vec<Vec<f64>>,
}

#[test]
fn increments_equal_torchsde() {
    let goldens: Vec<Golden> = serde_json::from_str(include_str!("../goldens/brownian.json")).expect("goldens");
    let mut worst: f64 = 0.0;
    for golden in &goldens {
        let mut source = NoiseSource::new(golden.seed);
        for (&(from, to), expected) in golden.asked.iter().zip(&golden.values) {
            let interval = Interval { from, to, low: golden.low, high: golden.high };
            let found = source.for_step(&Step { brownian: Some(interval), ..step(from, to) }, expected.len());
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(expected) {
                worst = worst.max((f64::from(*found) - expected).abs());
            }
        }
    }
    println!("worst absolute error {worst:e}");
    assert!(worst < 1e-6, "{worst:e}");
}

#[test]
fn increments_have_the_law_of_a_brownian_motion() {
    let (n, mut source) = (40_000, NoiseSource::new(5));
    let levels = [HIGH, 9.0, 4.4, 4.3999, 1.0, 0.2, LOW];
    let noises: Vec<Vec<f64>> = levels.windows(2).map(|pair| increment(&mut source, pair[0], pair[1], n)).collect();
    for (i, pair) in levels.windows(2).enumerate() {
        let length = pair[0] - pair[1];
        let (mean, variance) = moments(&noises[i], &noises[i]);
        assert!(mean.abs() < 4.0 * (length / n as f64).sqrt(), "{pair:?}: mean {mean}");
        assert!((variance / length - 1.0).abs() < 4.0 * (2.0 / n as f64).sqrt(), "{pair:?}: variance {variance}");
        for other in noises.iter().take(i) {
            let (_, covariance) = moments(&noises[i], other);
            let scale = moments(other, other).1 * length;
            assert!(covariance.abs() < 4.0 * (scale / n as f64).sqrt(), "{pair:?}: covariance {covariance}");
        }
    }
    // A part and the whole share the part.
    let whole = increment(&mut source, 9.0, 1.0, n);
    let (_, covariance) = moments(&whole, &noises[1]);
    assert!((covariance / (9.0 - 4.4) - 1.0).abs() < 0.03, "{covariance}");
}

#[test]
fn increments_add_up_and_have_no_memory_of_the_questions() {
    let n = 64;
    let levels = [HIGH, 12.0, 3.3, 0.7, 0.05, LOW];
    let mut source = NoiseSource::new(11);
    let whole = increment(&mut source, HIGH, LOW, n);
    let mut sum = vec![0.0; n];
    for pair in levels.windows(2) {
        let part = increment(&mut source, pair[0], pair[1], n);
        sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    let backwards = increment(&mut NoiseSource::new(11), LOW, HIGH, n);
    for ((whole, sum), backwards) in whole.iter().zip(&sum).zip(&backwards) {
        assert!((whole - sum).abs() < 2e-6 && (whole + backwards).abs() < 1e-12, "{whole} {sum} {backwards}");
    }
    // Asked alone by another source, or after any other draws, an increment is the same to the last bit.
    let mut other = NoiseSource::new(11);
    other.normal(1000);
    assert_eq!(increment(&mut other, 3.3, 0.7, n), increment(&mut source, 3.3, 0.7, n));
    assert_ne!(increment(&mut NoiseSource::new(12), 3.3, 0.7, n), increment(&mut source, 3.3, 0.7, n));
    let nvidia = NoiseSpec { seed: 11, source: RandomSource::Nvidia, ..NoiseSpec::default() };
    assert_ne!(increment(&mut NoiseSource::with(nvidia), 3.3, 0.7, n), increment(&mut source, 3.3, 0.7, n));
}

/// Plans of 9 and 17 Karras steps share every second noise level, and the path between those.
#[test]
fn the_path_is_the_same_for_other_step_counts() {
    let spec = |sampler, steps| PlanSpec {
        schedule: SigmaSchedule::Karras,
        variant: Variant { noise: StepNoise::Brownian, ..Variant::DIFFUSERS },
        ..PlanSpec::new(sampler, steps)
    };
    let increments = |sampler, steps| {
        let plan = plan(&SchedulerConfig::stable_diffusion(), &spec(sampler, steps)).expect("a plan");
        let mut source = NoiseSource::new(3);
        let noisy: Vec<Step> = plan.steps.into_iter().filter(|step| step.brownian.is_some()).collect();
        let whole = |step: Step| {
            let Interval { from, to, .. } = step.brownian.expect("an interval");
            let scale = (from - to).sqrt();
            (from, to, source.for_step(&step, 8).into_iter().map(|z| scale * f64::from(z)).collect::<Vec<f64>>())
        };
        noisy.into_iter().map(whole).collect::<Vec<_>>()
    };
    let coarse = increments(Sampler::Dpmpp2mSde, 9);
    let fine = increments(Sampler::Dpmpp2mSde, 17);
    assert_eq!((coarse.len(), fine.len()), (8, 16));
    for ((from, to, expected), pair) in coarse.iter().zip(fine.chunks(2)) {
        assert!((from - pair[0].0).abs() < 1e-12 && (to - pair[1].1).abs() < 1e-12);
        for (i, expected) in expected.iter().enumerate() {
            let found = pair[0].2[i] + pair[1].2[i];
            assert!((found - expected).abs() < 1e-6, "{from} {to}: {found} {expected}");
        }
    }
    // The two evaluations of DPM++ SDE begin at the same level, and the second noise goes further on the same path.
    let halves = increments(Sampler::DpmppSde, 9);
    assert_eq!(halves.len(), 16);
    for pair in halves.chunks(2) {
        assert!(pair[0].0 == pair[1].0 && pair[0].1 > pair[1].1);
    }
}

#[test]
fn samplers_without_a_path_refuse_it() {
    let variant = Variant { noise: StepNoise::Brownian, ..Variant::DIFFUSERS };
    for entry in ldm_sampler::entries() {
        let spec = PlanSpec { variant, ..PlanSpec::new(entry.sampler, 10) };
        let plan = plan(&SchedulerConfig::stable_diffusion(), &spec);
        assert_eq!(plan.is_ok(), entry.brownian, "{}", entry.name);
        let drawn = |step: &Step| step.noise && step.brownian.is_none();
        assert!(plan.is_err() || !plan.expect("a plan").steps.iter().any(drawn), "{}", entry.name);
    }
}
