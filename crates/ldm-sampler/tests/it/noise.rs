//! `NoiseSource` against `torch.randn`.

use ldm_sampler::{NoiseSource, NoiseSpec, RandomSource, Variation};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Golden {
    seed: u64,
    draws: Vec<Draw>,
}

#[derive(Debug, Deserialize)]
struct Draw {
    n: usize,
    at: Vec<usize>,
    values: Vec<f32>,
}

#[test]
fn draws_equal_torch() {
    let goldens: Vec<Golden> = serde_json::from_str(include_str!("../goldens/noise.json")).expect("goldens");
    let mut worst: f32 = 0.0;
    for golden in &goldens {
        let mut source = NoiseSource::new(golden.seed);
        for draw in &golden.draws {
            let normals = source.normal(draw.n);
            assert_eq!(normals.len(), draw.n);
            for (at, expected) in draw.at.iter().zip(&draw.values) {
                let error = (normals[*at] - expected).abs() / expected.abs();
                assert!(error < 3e-7, "seed {} n {} at {at}: {} {expected}", golden.seed, draw.n, normals[*at]);
                worst = worst.max(error);
            }
        }
    }
    println!("worst relative error {worst:e}");
}

#[test]
fn anchors() {
    let image = NoiseSource::new(0).normal(4 * 64 * 64);
    let near = |found: f32, expected: f32| (found - expected).abs() < 5e-7;
    assert!(near(image[0], -1.1258398) && near(image[1], -1.1523602) && near(image[2], -0.2505786));
    assert!(near(image[3], -0.4338788) && near(image[16383], -1.078208));
    assert!((image.iter().map(|x| f64::from(*x)).sum::<f64>() + 124.1127).abs() < 2e-3);
    // Fewer than 16 come from float64 pairs; of 17, the last 16 are made twice, the second time from new uniforms.
    let few = NoiseSource::new(0).normal(4);
    for (found, expected) in few.iter().zip([1.5409961, -0.2934289, -2.1787894, 0.5684313]) {
        assert!(near(*found, expected), "{found} {expected}");
    }
    let odd = NoiseSource::new(0).normal(17);
    assert!(near(odd[0], image[0]) && !near(odd[1], image[1]));
    let answer = NoiseSource::new(42).normal(16384);
    assert!(near(answer[0], 1.9269153) && near(answer[1], 1.4872841) && near(answer[3], -2.105521));
}

#[test]
fn a_clone_is_a_checkpoint() {
    let mut source = NoiseSource::new(3);
    source.normal(5);
    let mut later = source.clone();
    assert_eq!(source.normal(7), later.normal(7));
    assert_eq!(source.normal(1000), later.normal(1000));
}

/// What A1111's documentation of its "NV" source prints for seed 0.
#[test]
fn nvidia_anchors() {
    let nvidia = |seed| NoiseSource::with(NoiseSpec { seed, source: RandomSource::Nvidia, ..NoiseSpec::default() });
    let expected = [
        [-0.924_662_6, -0.425_344_15, -2.643_845_7, 0.145_183_88],
        [-0.120_866_47, -0.579_725_6, -0.622_851_2, -0.328_387_1],
        [-1.074_542_3, -0.363_144_07, -1.671_050_7, 2.265_505],
    ];
    let mut source = nvidia(0);
    let found = source.normal(12);
    for (found, expected) in found.iter().zip(expected.as_flattened()) {
        let expected: f32 = *expected;
        // A GPU's float32 logarithm and A1111's float64 differ by two units in the last place.
        assert!((found - expected).abs() < 3e-7, "{found} {expected}");
    }
    // A longer draw begins alike; a later one is another; all 64 bits of the seed count.
    assert_eq!(nvidia(0).normal(16)[..12], found[..]);
    assert_ne!(source.normal(12), found);
    assert_ne!(nvidia(1 << 32).normal(12), found);
    assert_eq!(NoiseSource::new(1 << 32).normal(12), NoiseSource::new(0).normal(12));
    let many = nvidia(3).normal(100_000);
    let mean = many.iter().map(|z| f64::from(*z)).sum::<f64>() / 1e5;
    let variance = many.iter().map(|z| f64::from(*z).powi(2)).sum::<f64>() / 1e5;
    assert!(mean.abs() < 0.013 && (variance - 1.0).abs() < 0.018, "{mean} {variance}");
    for source in [RandomSource::Cpu, RandomSource::Nvidia] {
        assert_eq!(RandomSource::parse(source.name()), Some(source));
    }
    assert_eq!((RandomSource::parse("GPU"), RandomSource::parse("TPU")), (Some(RandomSource::Nvidia), None));
}

const SHAPE: [usize; 3] = [2, 5, 3];

fn varied(seed: u64, strength: f64, eta_seed_delta: i64) -> NoiseSource {
    let variation = Some(Variation { seed: 21, strength });
    NoiseSource::with(NoiseSpec { seed, variation, eta_seed_delta, ..NoiseSpec::default() })
}

#[test]
fn a_variation_goes_from_one_seed_to_the_other() {
    let (one, other) = (NoiseSource::new(20).normal(30), NoiseSource::new(21).normal(30));
    assert_eq!(varied(20, 0.0, 0).initial(SHAPE), one);
    let near = |found: &[f32], expected: &[f32]| found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 1e-6);
    assert!(near(&varied(20, 1.0, 0).initial(SHAPE), &other) && near(&varied(20, 9.0, 0).initial(SHAPE), &other));
    assert!(near(&varied(21, 1.0, 0).initial(SHAPE), &other), "a seed varied by itself");
    // Every column turns by its share of the angle between both: sin((1 - s) w) : sin(s w).
    let half = varied(20, 0.25, 0).initial(SHAPE);
    for (channel, column) in [(0, 0), (0, 2), (1, 1)] {
        let take = |values: &[f32]| -> Vec<f64> { (0..5).map(|h| f64::from(values[channel * 15 + h * 3 + column])).collect() };
        let (a, b, mixed) = (take(&one), take(&other), take(&half));
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let angle = (dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()).acos();
        for ((a, b), mixed) in a.iter().zip(&b).zip(&mixed) {
            let expected = ((0.75 * angle).sin() * a + (0.25 * angle).sin() * b) / angle.sin();
            assert!((mixed - expected).abs() < 1e-6, "{mixed} {expected}");
        }
    }
}

#[test]
fn eta_noise_seed_delta_changes_what_comes_after_the_initial_noise() {
    let mut plain = NoiseSource::new(20);
    let mut shifted = NoiseSource::with(NoiseSpec { seed: 20, eta_seed_delta: 31337, ..NoiseSpec::default() });
    assert_eq!(plain.initial(SHAPE), shifted.initial(SHAPE));
    let mut expected = NoiseSource::new(20 + 31337);
    assert_eq!(shifted.normal(30), expected.normal(30));
    assert_ne!(plain.normal(30), NoiseSource::new(20).normal(30), "without a delta the stream goes on");
    let mut back = NoiseSource::with(NoiseSpec { seed: 20, eta_seed_delta: -20, ..NoiseSpec::default() });
    back.initial(SHAPE);
    assert_eq!(back.normal(7), NoiseSource::new(0).normal(7));
}
