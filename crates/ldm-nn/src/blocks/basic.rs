//! Linear, convolution, normalisation and embedding layers.
//!
//! A layer computes in the dtype of its input: parameters of another dtype are converted on the way, which is how training
//! runs in bfloat16 on float32 variables. In serving both are the same and nothing is converted.

use tch::{Kind, Tensor};

use crate::weights::{Init, Weights};

/// `parameter` in the dtype of `like`.
fn cast(parameter: &Tensor, like: &Tensor) -> Tensor {
    if parameter.kind() == like.kind() { parameter.shallow_clone() } else { parameter.to_kind(like.kind()) }
}

/// `y = x Wᵀ + b` on the last dimension.
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// With a bias.
    pub fn new(w: &Weights, input: i64, output: i64) -> Self {
        Self { bias: Some(w.tensor("bias", &[output], Init::FanIn(input))), ..Self::without_bias(w, input, output) }
    }

    /// Without a bias.
    pub fn without_bias(w: &Weights, input: i64, output: i64) -> Self {
        Self { weight: w.tensor("weight", &[output, input], Init::FanIn(input)), bias: None }
    }

    /// Starting at zero, so that a fresh residual branch is the identity.
    pub fn zeroed(w: &Weights, input: i64, output: i64) -> Self {
        let zero = Init::Constant(0.);
        Self { weight: w.tensor("weight", &[output, input], zero), bias: Some(w.tensor("bias", &[output], zero)) }
    }

    /// `[…, input]` → `[…, output]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        crate::kernels::linear(x, &cast(&self.weight, x), self.bias.as_ref().map(|bias| cast(bias, x)).as_ref())
    }

    /// The rows `from .. from + count` of the output alone.
    pub fn forward_rows(&self, x: &Tensor, from: i64, count: i64) -> Tensor {
        let bias = self.bias.as_ref().map(|bias| cast(bias, x).narrow(0, from, count));
        crate::kernels::linear(x, &cast(&self.weight, x).narrow(0, from, count), bias.as_ref())
    }
}

/// A 2-D convolution.
#[derive(Debug)]
pub struct Conv2d {
    weight: Tensor,
    bias: Tensor,
    stride: i64,
    padding: i64,
}

impl Conv2d {
    /// `size`×`size`, stride 1, keeping height and width.
    pub fn new(w: &Weights, input: i64, output: i64, size: i64) -> Self {
        let fan_in = Init::FanIn(input * size * size);
        Self {
            weight: w.tensor("weight", &[output, input, size, size], fan_in),
            bias: w.tensor("bias", &[output], fan_in),
            stride: 1,
            padding: size / 2,
        }
    }

    /// 3×3, stride 2.
    pub fn strided(w: &Weights, input: i64, output: i64, padding: i64) -> Self {
        Self { stride: 2, padding, ..Self::new(w, input, output, 3) }
    }

    /// `size`×`size`, starting at zero.
    pub fn zeroed(w: &Weights, input: i64, output: i64, size: i64) -> Self {
        let zero = Init::Constant(0.);
        Self {
            weight: w.tensor("weight", &[output, input, size, size], zero),
            bias: w.tensor("bias", &[output], zero),
            stride: 1,
            padding: size / 2,
        }
    }

    /// `[B, input, H, W]` → `[B, output, H', W']`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let (s, p) = (self.stride, self.padding);
        x.conv2d(&cast(&self.weight, x), Some(&cast(&self.bias, x)), [s, s], [p, p], [1, 1], 1)
    }

    /// A 1×1 convolution as a linear layer on tokens: `[…, input]` → `[…, output]`.
    pub fn forward_tokens(&self, x: &Tensor) -> Tensor {
        let (output, input) = (self.weight.size()[0], self.weight.size()[1]);
        crate::kernels::linear(x, &cast(&self.weight, x).view([output, input]), Some(&cast(&self.bias, x)))
    }
}

/// Normalisation over groups of channels (Wu & He, 2018); statistics in float32 whatever the dtype.
#[derive(Debug)]
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: i64,
    eps: f64,
}

impl GroupNorm {
    /// `channels` in `groups`.
    pub fn new(w: &Weights, groups: i64, channels: i64, eps: f64) -> Self {
        let weight = w.tensor("weight", &[channels], Init::Constant(1.));
        Self { weight, bias: w.tensor("bias", &[channels], Init::Constant(0.)), groups, eps }
    }

    /// `[B, C, …]` → the same.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.group_norm(self.groups, Some(&cast(&self.weight, x)), Some(&cast(&self.bias, x)), self.eps, true)
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
