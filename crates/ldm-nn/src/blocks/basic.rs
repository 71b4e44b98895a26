//! Linear, convolution, normalisation and embedding layers.
//!
//! A layer computes in the dtype of its input: parameters of another dtype are converted on the way, which is how training
//! runs in bfloat16 on float32 variables. In serving both are the same and nothing is converted.

use tch::{Kind, Tensor};

use crate::adapters::{LowRank, Slot};
use crate::kernels::{Filter, Matrix, Norm};
use crate::weights::{Init, Weights};

/// `parameter` in the dtype of `like`.
fn cast(parameter: &Tensor, like: &Tensor) -> Tensor {
    if parameter.kind() == like.kind() { parameter.shallow_clone() } else { parameter.to_kind(like.kind()) }
}

/// `y = x Wᵀ + b` on the last dimension.
#[derive(Debug)]
pub struct Linear {
    weight: Matrix,
    bias: Option<Tensor>,
    slot: Slot,
}

impl Linear {
    /// With a bias.
    pub fn new(w: &Weights, input: i64, output: i64) -> Self {
        Self { bias: Some(w.tensor("bias", &[output], Init::FanIn(input))), ..Self::without_bias(w, input, output) }
    }

    /// Without a bias.
    pub fn without_bias(w: &Weights, input: i64, output: i64) -> Self {
        Self::started(w, input, output, Init::FanIn(input))
    }

    /// Starting at zero, so that a fresh residual branch is the identity.
    pub fn zeroed(w: &Weights, input: i64, output: i64) -> Self {
        let zero = Init::Constant(0.);
        // The weight first: trained vectors keep the order in which parameters were made.
        let layer = Self::started(w, input, output, zero);
        Self { bias: Some(w.tensor("bias", &[output], zero)), ..layer }
    }

    fn started(w: &Weights, input: i64, output: i64, init: Init) -> Self {
        let shape = [output, input];
        Self { weight: Matrix::new(w, w.stored("weight", &shape, init)), bias: None, slot: w.slot(&shape) }
    }

    /// `[…, input]` → `[…, output]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.slot.add(x, self.weight.forward(x, self.bias.as_ref()), LowRank::tokens)
    }
}

/// A linear layer that is gated by a second one: value · gelu(gate) (GEGLU, Shazeer 2020). The first half of the parameters is
/// the value. Two products instead of one that is then halved: each comes out contiguous.
#[derive(Debug)]
pub struct GatedLinear {
    weight: Halves,
    bias: Tensor,
    output: i64,
    slot: Slot,
}

#[derive(Debug)]
enum Halves {
    /// One variable, as optimisers want it.
    Together(Tensor),
    /// Value, gate.
    Apart(Matrix, Matrix),
}

impl GatedLinear {
    /// `output` numbers are left of the `2 · output` that are computed.
    pub fn new(w: &Weights, input: i64, output: i64) -> Self {
        let fan_in = Init::FanIn(input);
        let bias = w.tensor("bias", &[output * 2], fan_in);
        let weight = w.stored("weight", &[output * 2, input], fan_in);
        let weight = if w.is_fresh() {
            Halves::Together(weight)
        } else {
            Halves::Apart(Matrix::new(w, weight.narrow(0, 0, output)), Matrix::new(w, weight.narrow(0, output, output)))
        };
        Self { weight, bias, output, slot: w.slot(&[output * 2, input]) }
    }

    /// `[…, input]` → `[…, output]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let half = |x: &Tensor, i: i64| x.narrow(0, i * self.output, self.output);
        let (value_bias, gate_bias) = (half(&self.bias, 0), half(&self.bias, 1));
        let both = |value: &Matrix, gate: &Matrix| {
            if self.slot.is_occupied() {
                let parts = [value.forward(x, Some(&value_bias)), gate.forward(x, Some(&gate_bias))];
                let sum = self.slot.add(x, Tensor::cat(&parts, -1), LowRank::tokens).chunk(2, -1);
                return &sum[0] * sum[1].gelu("none");
            }
            let gate = gate.forward_gelu(x, Some(&gate_bias));
            value.forward_times(x, Some(&value_bias), &gate)
        };
        match &self.weight {
            Halves::Together(weight) => both(&Matrix::Plain(half(weight, 0)), &Matrix::Plain(half(weight, 1))),
            Halves::Apart(value, gate) => both(value, gate),
        }
    }
}

/// A 2-D convolution.
#[derive(Debug)]
pub struct Conv2d {
    weight: Filter,
    bias: Tensor,
    stride: i64,
    padding: i64,
    slot: Slot,
}

impl Conv2d {
    /// `size`×`size`, stride 1, keeping height and width.
    pub fn new(w: &Weights, input: i64, output: i64, size: i64) -> Self {
        Self::started(w, [output, input, size, size], Init::FanIn(input * size * size), 1, size / 2)
    }

    /// 3×3, stride 2.
    pub fn strided(w: &Weights, input: i64, output: i64, padding: i64) -> Self {
        Self::started(w, [output, input, 3, 3], Init::FanIn(input * 9), 2, padding)
    }

    /// `size`×`size`, starting at zero.
    pub fn zeroed(w: &Weights, input: i64, output: i64, size: i64) -> Self {
        Self::started(w, [output, input, size, size], Init::Constant(0.), 1, size / 2)
    }

    /// 3×3, padded by 1, without a bias.
    pub fn without_bias(w: &Weights, input: i64, output: i64, stride: i64) -> Self {
        let shape = [output, input, 3, 3];
        let weight = Filter::new(w, w.stored("weight", &shape, Init::FanIn(input * 9)), stride, 1);
        let bias = Tensor::zeros([output], (w.kind(), w.device()));
        Self { weight, bias, stride, padding: 1, slot: w.slot(&shape) }
    }

    fn started(w: &Weights, shape: [i64; 4], init: Init, stride: i64, padding: i64) -> Self {
        let weight = Filter::new(w, w.stored("weight", &shape, init), stride, padding);
        Self { weight, bias: w.tensor("bias", &shape[..1], init), stride, padding, slot: w.slot(&shape) }
    }

    /// `[B, input, H, W]` → `[B, output, H', W']`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let y = self.weight.forward(x, &self.bias, self.stride, self.padding);
        self.slot.add(x, y, |layer, x| layer.filter(x, self.stride, self.padding))
    }

    /// A 1×1 convolution as a linear layer on tokens: `[…, input]` → `[…, output]`.
    pub fn forward_tokens(&self, x: &Tensor) -> Tensor {
        self.slot.add(x, self.weight.forward_tokens(x, &self.bias), LowRank::tokens)
    }
}

/// Normalisation over groups of channels (Wu & He, 2018); statistics in float32 or better whatever the dtype.
#[derive(Debug)]
pub struct GroupNorm {
    norm: Norm,
}

impl GroupNorm {
    /// `channels` in `groups`.
    pub fn new(w: &Weights, groups: i64, channels: i64, eps: f64) -> Self {
        let weight = w.tensor("weight", &[channels], Init::Constant(1.));
        let bias = w.tensor("bias", &[channels], Init::Constant(0.));
        Self { norm: Norm::new(w, weight, bias, groups, eps) }
    }

    /// `[B, C, …]` → the same.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.norm.forward(x)
    }

    /// The [`silu`] of [`forward`](Self::forward), in one pass where a kernel has both.
    pub fn forward_silu(&self, x: &Tensor) -> Tensor {
        self.norm.forward_silu(x)
    }
}

/// Normalisation over the last dimension.
#[derive(Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// Of width `width`.
    pub fn new(w: &Weights, width: i64, eps: f64) -> Self {
        let weight = w.tensor("weight", &[width], Init::Constant(1.));
        Self { weight, bias: w.tensor("bias", &[width], Init::Constant(0.)), eps }
    }

    /// `[…, D]` → the same.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.layer_norm([self.weight.size()[0]], Some(&cast(&self.weight, x)), Some(&cast(&self.bias, x)), self.eps, true)
    }
}

/// A table of vectors.
#[derive(Debug)]
pub struct Embedding {
    weight: Tensor,
}

impl Embedding {
    /// `count` vectors of `width`, starting normal with `std`.
    pub fn new(w: &Weights, count: i64, width: i64, std: f64) -> Self {
        Self { weight: w.tensor("weight", &[count, width], Init::Normal(std)) }
    }

    /// int64 `[…]` → `[…, D]`.
    pub fn forward(&self, ids: &Tensor) -> Tensor {
        Tensor::embedding(&self.weight, ids, -1, false, false)
    }

    /// The dtype of the table.
    pub fn kind(&self) -> Kind {
        self.weight.kind()
    }
}

/// `x · sigmoid(x)`.
pub fn silu(x: &Tensor) -> Tensor {
    x.silu()
}
