//! Seeded normal noise: torch's CPU generator or its GPU generator, variations of a seed, and Brownian paths.

mod brownian;
mod philox;
mod seeds;
mod torch;

use crate::Step;
use brownian::BrownianTree;
use philox::Philox;
use torch::Cpu;

/// Whose random numbers a seed stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RandomSource {
    /// torch's generator on the CPU (A1111's "CPU"; diffusers with a CPU generator).
    #[default]
    Cpu,
    /// torch's generator on an NVIDIA GPU, computed here (A1111's "NV", and its "GPU" on such a card).
    Nvidia,
}

impl RandomSource {
    /// The name users see and send.
    pub fn name(self) -> &'static str {
        match self {
            RandomSource::Cpu => "cpu",
            RandomSource::Nvidia => "nv",
        }
    }

    /// The source of a name, whatever its case (A1111's `randn_source`).
    pub fn parse(name: &str) -> Option<RandomSource> {
        match name.trim().to_ascii_lowercase().as_str() {
            "cpu" => Some(RandomSource::Cpu),
            "nv" | "gpu" => Some(RandomSource::Nvidia),
            _ => None,
        }
    }

    fn generator(self, seed: u64) -> Generator {
        match self {
            RandomSource::Cpu => Generator::Cpu(Cpu::new(seed)),
            RandomSource::Nvidia => Generator::Nvidia(Philox::new(seed)),
        }
    }
}

#[derive(Debug, Clone)]
enum Generator {
    Cpu(Cpu),
    Nvidia(Philox),
}

impl Generator {
    fn normal(&mut self, n: usize) -> Vec<f32> {
        match self {
            Generator::Cpu(generator) => generator.normal(n),
            Generator::Nvidia(generator) => generator.normal(n),
        }
    }
}

/// A second seed that the initial noise leans to (A1111's subseed, "variation").
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Variation {
    /// The second seed.
    pub seed: u64,
    /// How far to go to its noise, in [0, 1].
    pub strength: f64,
}

/// Everything that a picture's noise depends on.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct NoiseSpec {
    /// The seed. Of the CPU generator only the low 32 bits count.
    pub seed: u64,
    /// Whose random numbers.
    pub source: RandomSource,
    /// Another seed for [`NoiseSource::initial`] to lean to.
    pub variation: Option<Variation>,
    /// A1111's "eta noise seed delta" (ENSD): if it is not 0, noise after the initial one is that of `seed + delta`.
    pub eta_seed_delta: i64,
}

/// A seeded source of standard normal noise. A clone continues from the same place, so a clone is a checkpoint.
///
/// # Order of draws
/// A picture's draws come from one source, in this order; each is one call for the whole shape, because drawing in
/// pieces gives other noise.
/// - txt2img: the initial noise ([`NoiseSource::initial`]), then one draw per step that has noise, in order.
/// - img2img: the sample of the encoder's posterior, the initial noise, then the steps.
/// - inpainting: the initial noise, the posterior's sample of the picture, that of the masked picture, then the steps.
/// - upscaling by 4: the noise on the small picture, the initial noise, then the steps.
/// - Steps with a Brownian interval draw nothing: their path comes from the seed alone.
///
/// diffusers draws so, in float32 (half-precision draws consume the generator otherwise and are other noise). CompVis'
/// DDIM also draws (and drops) noise for every step at eta 0, which no plan does.
#[derive(Debug, Clone)]
pub struct NoiseSource {
    spec: NoiseSpec,
    generator: Generator,
    path: Option<BrownianTree>,
}

impl NoiseSource {
    /// `torch.Generator().manual_seed(seed)` on the CPU.
    pub fn new(seed: u64) -> NoiseSource {
        NoiseSource::with(NoiseSpec { seed, ..NoiseSpec::default() })
    }

    /// The source that a spec describes. A variation's strength is clamped to [0, 1].
    pub fn with(spec: NoiseSpec) -> NoiseSource {
        NoiseSource { spec, generator: spec.source.generator(spec.seed), path: None }
    }

    /// The next `torch.randn(n)`. How values are consumed depends on `n`, so drawing in pieces gives other noise.
    pub fn normal(&mut self, n: usize) -> Vec<f32> {
        self.generator.normal(n)
    }

    /// The initial noise of a latent `[channels, height, width]`: a draw, leaning to that of the variation's seed, and
    /// from then on the generator that the eta noise seed delta asks for (A1111 `modules/rng.py`, `ImageRNG.first`).
    pub fn initial(&mut self, [channels, height, width]: [usize; 3]) -> Vec<f32> {
        let n = channels * height * width;
        let mut noise = self.normal(n);
        if let Some(Variation { seed, strength }) = self.spec.variation.filter(|variation| variation.strength != 0.0) {
            let other = self.spec.source.generator(seed).normal(n);
            noise = slerp(&noise, &other, strength.clamp(0.0, 1.0), [channels, height, width]);
        }
        if self.spec.eta_seed_delta != 0 {
            self.generator = self.spec.source.generator(self.spec.seed.wrapping_add_signed(self.spec.eta_seed_delta));
        }
        noise
    }

    /// The `n` normals that a step asks for, empty if it asks for none: fresh ones, or the increment of the picture's
    /// Brownian path over [`Step::brownian`], scaled to variance 1. The path is that of k-diffusion's
    /// `BrownianTreeNoiseSampler` with this source's seed.
    pub fn for_step(&mut self, step: &Step, n: usize) -> Vec<f32> {
        match step.brownian {
            _ if !step.noise => Vec::new(),
            None => self.normal(n),
            Some(interval) => {
                if !self.path.as_ref().is_some_and(|path| path.fits(&interval, n)) {
                    self.path = Some(BrownianTree::new(self.spec.seed, self.spec.source, &interval, n));
                }
                let increment = |path: &mut BrownianTree| path.increment(interval.from, interval.to);
                self.path.as_mut().map(increment).unwrap_or_default()
            }
        }
    }
}

/// On average this alike, two noises are taken for the same.
const ALIKE: f64 = 0.9995;

/// Spherical interpolation, column by column of every channel, as A1111 does it (`modules/rng.py`, `slerp`).
fn slerp(low: &[f32], high: &[f32], strength: f64, [channels, height, width]: [usize; 3]) -> Vec<f32> {
    let columns = || (0..channels).flat_map(move |c| (0..width).map(move |w| c * height * width + w));
    let column = |values: &'_ [f32], at: usize| -> Vec<f64> { (0..height).map(|h| f64::from(values[at + h * width])).collect() };
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let cosine = |at: usize| {
        let (a, b) = (column(low, at), column(high, at));
        dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()
    };
    let cosines: Vec<f64> = columns().map(cosine).collect();
    let alike = cosines.iter().sum::<f64>() / cosines.len().max(1) as f64 > ALIKE;
    let mut mixed = vec![0.0; low.len()];
    for (at, cosine) in columns().zip(cosines) {
        let omega = cosine.clamp(-1.0, 1.0).acos();
        let weights = if alike {
            (strength, 1.0 - strength) // the wrong way round, but of two noises that are the same
        } else if omega.sin() > 1e-6 {
            (((1.0 - strength) * omega).sin() / omega.sin(), (strength * omega).sin() / omega.sin())
        } else {
            (1.0 - strength, strength) // parallel columns, where A1111 divides by zero
        };
        for index in (0..height).map(|h| at + h * width) {
            mixed[index] = (weights.0 * f64::from(low[index]) + weights.1 * f64::from(high[index])) as f32;
        }
    }
    mixed
}
