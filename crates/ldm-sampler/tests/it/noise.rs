//! `NoiseSource` against `torch.randn`.

use ldm_sampler::NoiseSource;
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
