//! Group normalisation with its choice of kernel.

use tch::{Device, Kind, Tensor};

#[cfg(target_arch = "x86_64")]
use super::group_norm::{Parameters, fits, group_norm};
use super::{cast, serves_on_cpu};
use crate::weights::{Layout, Weights, channels_last};

/// Parameters `[C]` of a normalisation over groups of channels.
#[derive(Debug)]
pub(crate) struct Norm {
    pub(super) weight: Tensor,
    pub(super) bias: Tensor,
    pub(super) groups: i64,
    pub(super) eps: f64,
    /// Whether it serves on a CPU in channels_last.
    pub(super) serves: bool,
}

impl Norm {
    /// `weight` and `bias` are what `w` gives.
    pub(crate) fn new(w: &Weights, weight: Tensor, bias: Tensor, groups: i64, eps: f64) -> Self {
        Self { weight, bias, groups, eps, serves: serves_on_cpu(w) && w.layout() == Layout::ChannelsLast }
    }

    /// `[B, C, …]` → the same.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        self.ours::<false>(x).unwrap_or_else(|| self.aten(x))
    }

    /// The SiLU of [`forward`](Self::forward), x · sigmoid(x).
    pub(crate) fn forward_silu(&self, x: &Tensor) -> Tensor {
        self.ours::<true>(x).unwrap_or_else(|| self.aten(x).silu())
    }

    /// By our kernel, where it can.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn ours<const SILU: bool>(&self, x: &Tensor) -> Option<Tensor> {
        let &Self { ref weight, ref bias, groups, eps, serves } = self;
        let fits = serves && x.dim() == 4 && x.device() == Device::Cpu && fits(x.kind(), x.size()[1]);
        fits.then(|| group_norm::<SILU>(x, Parameters { weight, bias, groups, eps }))
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub(super) fn ours<const SILU: bool>(&self, _: &Tensor) -> Option<Tensor> {
        None
    }

    /// By ATen.
    pub(super) fn aten(&self, x: &Tensor) -> Tensor {
        let norm =
            |x: &Tensor| x.group_norm(self.groups, Some(&cast(&self.weight, x)), Some(&cast(&self.bias, x)), self.eps, true);
        // In channels_last ATen sums squares in float32: a group whose mean is four deviations loses two digits at 64² already.
        if self.serves && x.kind() == Kind::Float && x.dim() == 4 && x.device() == Device::Cpu {
            return channels_last(&norm(&x.contiguous()));
        }
        norm(x)
    }
}
