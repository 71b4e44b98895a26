//! What stands beside the picture: the timestep, classes, vectors and the guidance scale.

use tch::{Kind, Tensor};

use super::architecture::{Architecture, Labels};
use crate::blocks::{Embedding, Linear, silu};
use crate::weights::Weights;

/// Sinusoids of numbers `[N]` → float32 `[N, width]` (Vaswani et al. 2017, section 3.5), cosines in the first half or the second.
///
/// Frequencies are exp(−ln 10000 · i / (width/2 − shift)), in the reference's order of operations: at t = 1000 another order
/// moves an angle by 3e-5.
pub fn sinusoids(numbers: &Tensor, width: i64, cos_first: bool, shift: f64) -> Tensor {
    let half = width / 2;
    let exponents = Tensor::arange(half, (Kind::Float, numbers.device())) * -(10000f64.ln()) / (half as f64 - shift);
    let angles = numbers.to_kind(Kind::Float).unsqueeze(1) * exponents.exp().unsqueeze(0); // [N, half]
    let (sin, cos) = (angles.sin(), angles.cos());
    if cos_first { Tensor::cat(&[cos, sin], 1) } else { Tensor::cat(&[sin, cos], 1) }
}

/// The guidance scales `[B]` as a distilled network takes them → float32 `[B, width]`: sinusoids of (scale − 1) · 1000, sines first,
/// with width/2 − 1 in the denominator (Luo et al. 2023; `get_guidance_scale_embedding` of diffusers).
pub fn guidance_sinusoids(scales: &Tensor, width: i64) -> Tensor {
    let half = width / 2;
    // In float32 from the start, as the reference: arguments of 10⁴ carry the rounding of the frequencies into the third digit.
    let step = 10000f32.ln() / (half - 1) as f32;
    let frequencies = (Tensor::arange(half, (Kind::Float, scales.device())) * -f64::from(step)).exp();
    let angles = (scales.to_kind(Kind::Float) - 1.).unsqueeze(1) * 1000. * frequencies.unsqueeze(0); // [B, half]
    let both = Tensor::cat(&[angles.sin(), angles.cos()], 1);
    if width % 2 == 0 { both } else { both.constant_pad_nd([0, 1]) }
}

/// Two linear layers with SiLU between them.
#[derive(Debug)]
pub(super) struct Mlp {
    linear_1: Linear,
    linear_2: Linear,
}

impl Mlp {
    pub(super) fn new(w: &Weights, input: i64, output: i64) -> Self {
        Self {
            linear_1: Linear::new(&w.sub("linear_1"), input, output),
            linear_2: Linear::new(&w.sub("linear_2"), output, output),
        }
    }

    /// `[B, input]` → `[B, output]`.
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        self.linear_2.forward(&silu(&self.linear_1.forward(x)))
    }
}

#[derive(Debug)]
pub(super) struct TimeEmbedding {
    layers: Mlp,
    cond_proj: Option<Linear>,
    width: i64,
    flip_sin_to_cos: bool,
    freq_shift: f64,
}

impl TimeEmbedding {
    pub(super) fn new(w: &Weights, architecture: &Architecture) -> Self {
        let width = architecture.sinusoids();
        Self {
            layers: Mlp::new(w, width, architecture.time()),
            cond_proj: architecture.guidance.map(|guidance| Linear::without_bias(&w.sub("cond_proj"), guidance, width)),
            width,
            flip_sin_to_cos: architecture.flip_sin_to_cos,
            freq_shift: architecture.freq_shift,
        }
    }

    /// What the guidance scale's sinusoids `[B, G]` add to those of the timestep: `[B, width]`.
    pub(super) fn guidance(&self, sinusoids: &Tensor) -> Option<Tensor> {
        self.cond_proj.as_ref().map(|project| project.forward(sinusoids))
    }

    /// Numbers `[B]` → their sinusoids `[B, width]`.
    pub(super) fn sinusoids(&self, numbers: &Tensor) -> Tensor {
        sinusoids(numbers, self.width, self.flip_sin_to_cos, self.freq_shift)
    }

    /// `t` float32 `[B]`, `guidance` `[B, width]` → `[B, 4·width]` in `kind`. Sinusoids in float32.
    pub(super) fn forward(&self, t: &Tensor, guidance: Option<&Tensor>, kind: Kind) -> Tensor {
        let mut h = self.sinusoids(t).to_kind(kind);
        if let Some(guidance) = guidance {
            h += guidance.to_kind(kind);
        }
        self.layers.forward(&h)
    }
}

/// See [`Labels`].
#[derive(Debug)]
pub(super) enum LabelEmbedding {
    Table(Embedding),
    Sinusoids(Mlp),
    Vector(Mlp),
    Linear(Linear),
    Identity,
}

impl LabelEmbedding {
    pub(super) fn new(w: &Weights, architecture: &Architecture) -> Option<Self> {
        let time = architecture.time();
        Some(match architecture.labels {
            Labels::None => return None,
            Labels::Table(count) => Self::Table(Embedding::new(w, count, time, 1.)),
            Labels::Sinusoids => Self::Sinusoids(Mlp::new(w, architecture.sinusoids(), time)),
            Labels::Vector(width) => Self::Vector(Mlp::new(w, width, time)),
            Labels::Linear(width) => Self::Linear(Linear::new(w, width, time)),
            Labels::Identity => Self::Identity,
        })
    }
}
