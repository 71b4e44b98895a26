//! The products that networks spend their time in, each with its choice of kernel.
//!
//! Trained parameters stay as they are and go through ATen, which knows gradients. Weights that serve on a CPU are packed
//! once, when they are loaded; where a processor or dtype has no such kernel, ATen is the fallback again.

#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) mod flash;
#[cfg(target_arch = "x86_64")]
mod group_norm;
mod norm;
mod onednn;
pub(crate) mod scratch;
#[cfg(target_arch = "x86_64")]
mod taps;
#[cfg(target_arch = "x86_64")]
mod team;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod winograd;

use tch::{Device, Kind, Tensor};

use crate::weights::{Layout, Weights, channels_last};
use onednn::Post;
#[cfg(target_arch = "x86_64")]
use winograd::Filters as WinogradFilters;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::available;
pub(crate) use norm::Norm;

/// Channels in a block of oneDNN's packed convolution weights.
const BLOCK: i64 = 64;

/// Whether what `w` gives is worth packing: it is not trained and lives on a CPU.
fn serves_on_cpu(w: &Weights) -> bool {
    !w.is_fresh() && w.device() == Device::Cpu
}

/// `parameter` in the dtype of `like`.
fn cast(parameter: &Tensor, like: &Tensor) -> Tensor {
    if parameter.kind() == like.kind() { parameter.shallow_clone() } else { parameter.to_kind(like.kind()) }
}

/// Runs `f` on `x` in the dtype that packed weights have, and gives the result in the dtype of `x`.
fn in_kind(x: &Tensor, kind: Kind, f: impl FnOnce(&Tensor) -> Tensor) -> Tensor {
    if x.kind() == kind { f(x) } else { f(&x.to_kind(kind)).to_kind(x.kind()) }
}

/// The weights of a linear layer, `[output, input]`.
#[derive(Debug)]
pub(crate) enum Matrix {
    /// As they were given.
    Plain(Tensor),
    /// In oneDNN's order.
    Packed(Tensor),
}

impl Matrix {
    /// Packs `weight`, which is as `w` has it [stored](Weights::stored), where that pays.
    pub(crate) fn new(w: &Weights, weight: Tensor) -> Self {
        // What stands in for absent numbers is one number expanded: it must not become a real matrix.
        if serves_on_cpu(w) && weight.is_contiguous() { Self::packed(weight, w.kind()) } else { Self::Plain(w.placed(weight)) }
    }

    /// Packs `weight`, of whatever dtype, as `kind`.
    fn packed(weight: Tensor, kind: Kind) -> Self {
        let packed = if weight.kind() == kind {
            onednn::pack_linear(&weight)
        } else {
            scratch::converted(&weight, kind, onednn::pack_linear)
        };
        packed.map_or_else(|| Self::Plain(weight.to_kind(kind)), Self::Packed)
    }

    /// `x Wᵀ + b` on the last dimension.
    pub(crate) fn forward(&self, x: &Tensor, bias: Option<&Tensor>) -> Tensor {
        match self {
            Self::Plain(weight) => x.linear(&cast(weight, x), bias.map(|bias| cast(bias, x))),
            Self::Packed(weight) => in_kind(x, weight.kind(), |x| onednn::linear(x, weight, bias, Post::Nothing)),
        }
    }

    /// gelu(x Wᵀ + b), the exact one.
    pub(crate) fn forward_gelu(&self, x: &Tensor, bias: Option<&Tensor>) -> Tensor {
        match self {
            Self::Plain(_) => self.forward(x, bias).gelu("none"),
            Self::Packed(weight) => in_kind(x, weight.kind(), |x| onednn::linear(x, weight, bias, Post::Gelu)),
        }
    }

    /// (x Wᵀ + b) · other.
    pub(crate) fn forward_times(&self, x: &Tensor, bias: Option<&Tensor>, other: &Tensor) -> Tensor {
        match self {
            Self::Packed(weight) if x.kind() == weight.kind() && other.kind() == x.kind() => {
                onednn::linear_times(x, weight, bias, other)
            }
            _ => self.forward(x, bias) * other,
        }
    }
}

/// The weights of a 2-D convolution, `[output, input, h, w]`.
#[derive(Debug)]
pub(crate) enum Filter {
    /// As they were given.
    Plain(Tensor),
    /// 1×1: a linear layer on the channels, which channels_last keeps together.
    Pointwise(Matrix),
    /// In oneDNN's order.
    Packed(Tensor),
    /// 3×3, stride 1, padded by 1: in the order of Winograd's kernel.
    #[cfg(target_arch = "x86_64")]
    Winograd(WinogradFilters),
}

impl Filter {
    /// Packs `weight`, which is as `w` has it [stored](Weights::stored), where that pays.
    pub(crate) fn new(w: &Weights, weight: Tensor, stride: i64, padding: i64) -> Self {
        let packs = serves_on_cpu(w) && w.layout() == Layout::ChannelsLast && weight.is_contiguous();
        if packs { Self::packed(weight, w.kind(), stride, padding) } else { Self::Plain(w.placed(weight)) }
    }

    /// Packs `weight`, of whatever dtype, as `kind`.
    fn packed(weight: Tensor, kind: Kind, stride: i64, padding: i64) -> Self {
        let (output, input, height, width) = weight.size4().expect("a filter has four dimensions");
        if (height, width, stride, padding) == (1, 1, 1, 0) {
            return Self::Pointwise(Matrix::packed(weight.reshape([output, input]), kind));
        }
        #[cfg(target_arch = "x86_64")]
        if (stride, padding) == (1, 1)
            && let Some(filters) = WinogradFilters::new(&weight, kind)
        {
            return Self::Winograd(filters);
        }
        let weight = channels_last(&weight.to_kind(kind));
        // Channels that do not fill oneDNN's blocks get a layout that it reorders again at every call, slowly.
        if input % BLOCK != 0 || output % BLOCK != 0 {
            return Self::Plain(weight);
        }
        onednn::pack_conv(&weight, stride, padding).map_or(Self::Plain(weight), Self::Packed)
    }

    /// `[B, input, H, W]` → `[B, output, H', W']`.
    pub(crate) fn forward(&self, x: &Tensor, bias: &Tensor, stride: i64, padding: i64) -> Tensor {
        match self {
            Self::Plain(weight) => x.conv2d(&cast(weight, x), Some(cast(bias, x)), [stride; 2], [padding; 2], [1, 1], 1),
            Self::Pointwise(matrix) => matrix.forward(&x.permute([0, 2, 3, 1]), Some(bias)).permute([0, 3, 1, 2]),
            Self::Packed(weight) => in_kind(x, weight.kind(), |x| onednn::conv(x, weight, bias, stride, padding)),
            #[cfg(target_arch = "x86_64")]
            Self::Winograd(filters) => in_kind(x, filters.kind(), |x| filters.forward(x, bias)),
        }
    }

    /// A 1×1 convolution as a linear layer on tokens: `[…, input]` → `[…, output]`.
    ///
    /// # Panics
    /// When the convolution is larger.
    pub(crate) fn forward_tokens(&self, x: &Tensor, bias: &Tensor) -> Tensor {
        match self {
            Self::Plain(weight) => {
                let (output, input) = (weight.size()[0], weight.size()[1]);
                x.linear(&cast(weight, x).view([output, input]), Some(cast(bias, x)))
            }
            Self::Pointwise(matrix) => matrix.forward(x, Some(bias)),
            _ => panic!("tokens need a convolution of 1×1"),
        }
    }
}
