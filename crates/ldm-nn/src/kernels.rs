//! The products that networks spend their time in, each with its choice of kernel.

use tch::Tensor;

/// `x Wᵀ + b` on the last dimension; `weight` `[output, input]`.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    x.linear(weight, bias)
}
