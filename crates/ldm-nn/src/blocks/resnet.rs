//! The residual block and the changes of resolution (openaimodel.py `ResBlock`, model.py `ResnetBlock`).

use tch::Tensor;

use super::basic::{Conv2d, GroupNorm, Linear, silu};
use crate::weights::Weights;

/// What a [`ResnetBlock2D`] is made of.
#[derive(Clone, Copy, Debug)]
pub struct ResnetConfig {
    /// Channels in.
    pub input: i64,
    /// Channels out.
    pub output: i64,
    /// Width of the timestep embedding, `None` in an autoencoder.
    pub time: Option<i64>,
    /// Whether the timestep scales and shifts what the second norm gives, rather than being added before it.
    pub scale_shift: bool,
    /// Groups of both norms.
    pub groups: i64,
    /// ε of both norms.
    pub eps: f64,
}

/// Norm, SiLU, convolution; the timestep; norm, SiLU, convolution; the skip.
#[derive(Debug)]
pub struct ResnetBlock2D {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
    scale_shift: bool,
}

impl ResnetBlock2D {
    /// `time` is the width of the timestep embedding, `None` in an autoencoder; it is added.
    pub fn new(w: &Weights, input: i64, output: i64, time: Option<i64>, groups: i64, eps: f64) -> Self {
        Self::with(w, ResnetConfig { input, output, time, scale_shift: false, groups, eps })
    }

    /// See [`ResnetConfig`].
    pub fn with(w: &Weights, config: ResnetConfig) -> Self {
        let ResnetConfig { input, output, time, scale_shift, groups, eps } = config;
        let embedded = if scale_shift { output * 2 } else { output };
        Self {
            norm1: GroupNorm::new(&w.sub("norm1"), groups, input, eps),
            conv1: Conv2d::new(&w.sub("conv1"), input, output, 3),
            time_emb_proj: time.map(|time| Linear::new(&w.sub("time_emb_proj"), time, embedded)),
            norm2: GroupNorm::new(&w.sub("norm2"), groups, output, eps),
            conv2: Conv2d::zeroed(&w.sub("conv2"), output, output, 3),
            conv_shortcut: (input != output).then(|| Conv2d::new(&w.sub("conv_shortcut"), input, output, 1)),
            scale_shift,
        }
    }

    /// `x` `[B, C, H, W]`, `time` = SiLU of the timestep embedding `[B, D]` → `[B, C', H, W]`.
    pub fn forward(&self, x: &Tensor, time: Option<&Tensor>) -> Tensor {
        self.forward_through(x, time, Tensor::shallow_clone)
    }

    /// As [`forward`](Self::forward), with `resize` on both paths: on the main one before the first convolution.
    pub fn forward_through(&self, x: &Tensor, time: Option<&Tensor>, resize: impl Fn(&Tensor) -> Tensor) -> Tensor {
        let mut h = self.conv1.forward(&resize(&self.norm1.forward_silu(x)));
        let embedded = match (&self.time_emb_proj, time) {
            (Some(project), Some(time)) => Some(project.forward(time).unsqueeze(-1).unsqueeze(-1)), // [B, C' or 2C', 1, 1]
            _ => None,
        };
        let h = match embedded {
            Some(embedded) if self.scale_shift => {
                let scale_and_shift = embedded.chunk(2, 1);
                silu(&(self.norm2.forward(&h) * (&scale_and_shift[0] + 1.) + &scale_and_shift[1]))
            }
            Some(embedded) => {
                h += embedded;
                self.norm2.forward_silu(&h)
            }
            None => self.norm2.forward_silu(&h),
        };
        let h = self.conv2.forward(&h);
        let x = resize(x);
        match &self.conv_shortcut {
            Some(shortcut) => shortcut.forward(&x) + h,
            None => x + h,
        }
    }
}

/// Halves height and width by a convolution of stride 2.
#[derive(Debug)]
pub struct Downsample2D {
    conv: Conv2d,
    asymmetric: bool,
}

impl Downsample2D {
    /// Padded by 1 on every side, as the UNet does.
    pub fn symmetric(w: &Weights, channels: i64) -> Self {
        Self { conv: Conv2d::strided(&w.sub("conv"), channels, channels, 1), asymmetric: false }
    }

    /// Padded by 1 on the right and below alone, as the autoencoder does.
    pub fn asymmetric(w: &Weights, channels: i64) -> Self {
        Self { conv: Conv2d::strided(&w.sub("conv"), channels, channels, 0), asymmetric: true }
    }

    /// `[B, C, H, W]` → `[B, C, H/2, W/2]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        if self.asymmetric { self.conv.forward(&x.constant_pad_nd([0, 1, 0, 1])) } else { self.conv.forward(x) }
    }
}

/// Doubles height and width by repeating pixels, then a convolution.
#[derive(Debug)]
pub struct Upsample2D {
    conv: Conv2d,
}

impl Upsample2D {
    /// Keeps the number of channels.
    pub fn new(w: &Weights, channels: i64) -> Self {
        Self { conv: Conv2d::new(&w.sub("conv"), channels, channels, 3) }
    }

    /// `[B, C, H, W]` → `[B, C, height, width]`, normally twice the size.
    pub fn forward(&self, x: &Tensor, (height, width): (i64, i64)) -> Tensor {
        self.conv.forward(&x.upsample_nearest2d([height, width], None, None))
    }
}
