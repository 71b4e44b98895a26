//! The autoencoder with KL regularisation, the first stage (model.py `Encoder`, `Decoder`; autoencoder.py `AutoencoderKL`).

use std::path::Path;

use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use crate::attention::attention;
use crate::blocks::{Conv2d, Downsample2D, GroupNorm, Linear, ResnetBlock2D, Upsample2D, in_layout, silu};
use crate::config::{ConfigError, read_json};
use crate::weights::{Layout, Weights};

/// ε of every normalisation.
const EPS: f64 = 1e-6;

/// `vae/config.json`, with the defaults of diffusers' class.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct AutoencoderKlConfig {
    /// Channels of pictures.
    pub in_channels: i64,
    /// Channels of decoded pictures.
    pub out_channels: i64,
    /// Channels of each level, highest resolution first; each level but the last halves the size.
    pub block_out_channels: Vec<i64>,
    /// Residual blocks of each level of the encoder; the decoder has one more.
    pub layers_per_block: i64,
    /// Channels of latents.
    pub latent_channels: i64,
    /// Groups of every normalisation.
    pub norm_num_groups: i64,
    /// What latents are multiplied by for the denoiser.
    pub scaling_factor: f64,
    /// What is subtracted before that; not supported unless null or 0.
    pub shift_factor: Option<f64>,
    /// Width of the pictures that it was trained on.
    pub sample_size: i64,
    /// `silu`.
    pub act_fn: String,
    /// Whether the middle block has attention.
    pub mid_block_add_attention: bool,
    /// Whether there is a 1×1 convolution behind the encoder.
    pub use_quant_conv: bool,
    /// Whether there is a 1×1 convolution before the decoder.
    pub use_post_quant_conv: bool,
    /// Whether it must run in float32.
    pub force_upcast: bool,
    /// `DownEncoderBlock2D` at each level.
    pub down_block_types: Vec<String>,
    /// `UpDecoderBlock2D` at each level.
    pub up_block_types: Vec<String>,
}

impl Default for AutoencoderKlConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            block_out_channels: vec![64],
            layers_per_block: 1,
            latent_channels: 4,
            norm_num_groups: 32,
            scaling_factor: 0.18215,
            shift_factor: None,
            sample_size: 32,
            act_fn: "silu".into(),
            mid_block_add_attention: true,
            use_quant_conv: true,
            use_post_quant_conv: true,
            force_upcast: true,
            down_block_types: vec![],
            up_block_types: vec![],
        }
    }
}

impl AutoencoderKlConfig {
    /// Reads and checks a `config.json`.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let config: Self = read_json(path)?;
        config.check()?;
        Ok(config)
    }

    /// Refuses what this network does not have, rather than ignoring it.
    pub fn check(&self) -> Result<(), ConfigError> {
        let fail = |key, value: &dyn std::fmt::Debug, why| Err(ConfigError::unsupported(key, value, why));
        let groups = self.norm_num_groups;
        if self.block_out_channels.is_empty() || groups <= 0 || self.block_out_channels.iter().any(|&c| c <= 0 || c % groups != 0)
        {
            return fail("block_out_channels", &self.block_out_channels, "multiples of norm_num_groups");
        }
        if self.down_block_types.iter().any(|kind| kind != "DownEncoderBlock2D") {
            return fail("down_block_types", &self.down_block_types, "DownEncoderBlock2D");
        }
        if self.up_block_types.iter().any(|kind| kind != "UpDecoderBlock2D") {
            return fail("up_block_types", &self.up_block_types, "UpDecoderBlock2D");
        }
        if self.act_fn != "silu" {
            return fail("act_fn", &self.act_fn, "silu");
        }
        if self.shift_factor.is_some_and(|shift| shift != 0.) {
            return fail("shift_factor", &self.shift_factor, "null or 0");
        }
        if !(self.scaling_factor > 0. && self.scaling_factor.is_finite()) {
            return fail("scaling_factor", &self.scaling_factor, "a positive number");
        }
        Ok(())
    }

    /// Pixels of a picture per pixel of a latent, along one side.
    pub fn factor(&self) -> i64 {
        1 << (self.block_out_channels.len() - 1)
    }
}

/// The encoder's answer: a diagonal Gaussian over latents `[B, C, H, W]`.
#[derive(Debug)]
pub struct Posterior {
    mean: Tensor,
    log_variance: Tensor,
}

impl Posterior {
    /// From the encoder's `[B, 2C, H, W]`; the log-variance is clamped to [−30, 20] (distributions.py).
    fn new(moments: &Tensor) -> Self {
        let parts = moments.chunk(2, 1);
        Self { mean: parts[0].shallow_clone(), log_variance: parts[1].clamp(-30., 20.) }
    }

    /// The most likely latent.
    pub fn mode(&self) -> Tensor {
        self.mean.shallow_clone()
    }

    /// The standard deviation of each number.
    pub fn std(&self) -> Tensor {
        (&self.log_variance * 0.5).exp()
    }

    /// The same in another dtype.
    pub fn to_kind(&self, kind: Kind) -> Self {
        Self { mean: self.mean.to_kind(kind), log_variance: self.log_variance.to_kind(kind) }
    }

    /// A latent for standard normal `noise` of the same shape.
    pub fn sample(&self, noise: &Tensor) -> Tensor {
        &self.mean + self.std() * noise
    }

    /// Divergence from the standard normal, nats per picture, averaged over the batch (Kingma & Welling 2014, App. B).
    pub fn kl(&self) -> Tensor {
        let per = (self.mean.square() + self.log_variance.exp() - 1. - &self.log_variance) * 0.5;
        per.sum_dim_intlist([1i64, 2, 3].as_slice(), false, Kind::Float).mean(Kind::Float)
    }
}

/// Self-attention over the pixels of a feature map, one head (model.py `AttnBlock`).
#[derive(Debug)]
struct AttentionBlock {
    group_norm: GroupNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
}

impl AttentionBlock {
    fn new(w: &Weights, channels: i64, groups: i64) -> Self {
        let linear = |w: Weights| Linear::new(&w, channels, channels);
        Self {
            group_norm: GroupNorm::new(&w.sub("group_norm"), groups, channels, EPS),
            to_q: linear(w.sub("to_q")),
            to_k: linear(w.sub("to_k")),
            to_v: linear(w.sub("to_v")),
            to_out: linear(w.sub("to_out").sub(0)),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let (b, c, height, width) = x.size4().expect("a feature map has four dimensions");
        let h = self.group_norm.forward(x).permute([0, 2, 3, 1]).reshape([b, height * width, c]); // [B, HW, C]
        let h = attention(&self.to_q.forward(&h), &self.to_k.forward(&h), &self.to_v.forward(&h), 1, false);
        x + self.to_out.forward(&h).view([b, height, width, c]).permute([0, 3, 1, 2])
    }
}

#[derive(Debug)]
struct MidBlock {
    resnet_0: ResnetBlock2D,
    attention: Option<AttentionBlock>,
    resnet_1: ResnetBlock2D,
}

impl MidBlock {
    fn new(w: &Weights, channels: i64, config: &AutoencoderKlConfig) -> Self {
        let groups = config.norm_num_groups;
        let resnet = |i: i64| ResnetBlock2D::new(&w.sub("resnets").sub(i), channels, channels, None, groups, EPS);
        let attention = || AttentionBlock::new(&w.sub("attentions").sub(0), channels, groups);
        Self { resnet_0: resnet(0), attention: config.mid_block_add_attention.then(attention), resnet_1: resnet(1) }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let mut h = self.resnet_0.forward(x, None);
        if let Some(attention) = &self.attention {
            h = attention.forward(&h);
        }
        self.resnet_1.forward(&h, None)
    }
}

#[derive(Debug)]
struct Encoder {
    conv_in: Conv2d,
    down_blocks: Vec<(Vec<ResnetBlock2D>, Option<Downsample2D>)>,
    mid_block: MidBlock,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Encoder {
    fn new(w: &Weights, config: &AutoencoderKlConfig) -> Self {
        let (channels, groups) = (&config.block_out_channels, config.norm_num_groups);
        let mut input = channels[0];
        let last = channels[channels.len() - 1];
        let conv_in = Conv2d::new(&w.sub("conv_in"), config.in_channels, input, 3);
        let mut down_blocks = Vec::new();
        for (level, &output) in channels.iter().enumerate() {
            let w = w.sub("down_blocks").sub(level);
            let mut resnets = Vec::new();
            for layer in 0..config.layers_per_block {
                resnets.push(ResnetBlock2D::new(&w.sub("resnets").sub(layer), input, output, None, groups, EPS));
                input = output;
            }
            let down = (level + 1 < channels.len()).then(|| Downsample2D::asymmetric(&w.sub("downsamplers").sub(0), output));
            down_blocks.push((resnets, down));
        }
        Self {
            conv_in,
            down_blocks,
            mid_block: MidBlock::new(&w.sub("mid_block"), last, config),
            conv_norm_out: GroupNorm::new(&w.sub("conv_norm_out"), groups, last, EPS),
            conv_out: Conv2d::new(&w.sub("conv_out"), last, config.latent_channels * 2, 3),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let mut h = self.conv_in.forward(x);
        for (resnets, downsampler) in &self.down_blocks {
            for resnet in resnets {
                h = resnet.forward(&h, None);
            }
            if let Some(downsampler) = downsampler {
                h = downsampler.forward(&h);
            }
        }
        h = self.mid_block.forward(&h);
        self.conv_out.forward(&silu(&self.conv_norm_out.forward(&h)))
    }
}

#[derive(Debug)]
struct Decoder {
    conv_in: Conv2d,
    mid_block: MidBlock,
    up_blocks: Vec<(Vec<ResnetBlock2D>, Option<Upsample2D>)>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Decoder {
    fn new(w: &Weights, config: &AutoencoderKlConfig) -> Self {
        let (channels, groups) = (&config.block_out_channels, config.norm_num_groups);
        let mut input = channels[channels.len() - 1];
        let conv_in = Conv2d::new(&w.sub("conv_in"), config.latent_channels, input, 3);
        let mid_block = MidBlock::new(&w.sub("mid_block"), input, config);
        let mut up_blocks = Vec::new();
        for (i, &output) in channels.iter().rev().enumerate() {
            let w = w.sub("up_blocks").sub(i);
            let mut resnets = Vec::new();
            for layer in 0..=config.layers_per_block {
                resnets.push(ResnetBlock2D::new(&w.sub("resnets").sub(layer), input, output, None, groups, EPS));
                input = output;
            }
            let up = (i + 1 < channels.len()).then(|| Upsample2D::new(&w.sub("upsamplers").sub(0), output));
            up_blocks.push((resnets, up));
        }
        Self {
            conv_in,
            mid_block,
            up_blocks,
            conv_norm_out: GroupNorm::new(&w.sub("conv_norm_out"), groups, input, EPS),
            conv_out: Conv2d::new(&w.sub("conv_out"), input, config.out_channels, 3),
        }
    }

    fn forward(&self, z: &Tensor) -> Tensor {
        let mut h = self.mid_block.forward(&self.conv_in.forward(z));
        for (resnets, upsampler) in &self.up_blocks {
            for resnet in resnets {
                h = resnet.forward(&h, None);
            }
            if let Some(upsampler) = upsampler {
                let (_, _, height, width) = h.size4().expect("a feature map has four dimensions");
                h = upsampler.forward(&h, (height * 2, width * 2));
            }
        }
        self.conv_out.forward(&silu(&self.conv_norm_out.forward(&h)))
    }
}

/// Pictures in [−1, 1] to latents and back.
#[derive(Debug)]
pub struct AutoencoderKl {
    encoder: Encoder,
    quant_conv: Option<Conv2d>,
    post_quant_conv: Option<Conv2d>,
    decoder: Decoder,
    config: AutoencoderKlConfig,
    layout: Layout,
    kind: Kind,
    device: Device,
}

impl AutoencoderKl {
    /// Builds what `config` describes (it must have passed [`AutoencoderKlConfig::check`]).
    pub fn new(w: &Weights, config: &AutoencoderKlConfig) -> Self {
        let z = config.latent_channels;
        Self {
            encoder: Encoder::new(&w.sub("encoder"), config),
            quant_conv: config.use_quant_conv.then(|| Conv2d::new(&w.sub("quant_conv"), 2 * z, 2 * z, 1)),
            post_quant_conv: config.use_post_quant_conv.then(|| Conv2d::new(&w.sub("post_quant_conv"), z, z, 1)),
            decoder: Decoder::new(&w.sub("decoder"), config),
            config: config.clone(),
            layout: w.layout(),
            kind: w.kind(),
            device: w.device(),
        }
    }

    /// What it was built from.
    pub fn config(&self) -> &AutoencoderKlConfig {
        &self.config
    }

    /// Its dtype.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where it lives.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Pictures `[B, 3, H, W]` in [−1, 1] → a Gaussian over *unscaled* latents `[B, C, H/f, W/f]`.
    pub fn encode(&self, x: &Tensor) -> Posterior {
        let h = self.encoder.forward(&in_layout(x, self.layout));
        Posterior::new(&self.quant_conv.as_ref().map_or(h.shallow_clone(), |conv| conv.forward(&h)))
    }

    /// *Unscaled* latents `[B, C, H, W]` → pictures `[B, 3, f·H, f·W]`, about [−1, 1].
    pub fn decode(&self, z: &Tensor) -> Tensor {
        let z = in_layout(z, self.layout);
        self.decoder.forward(&self.post_quant_conv.as_ref().map_or(z.shallow_clone(), |conv| conv.forward(&z)))
    }

    /// Old spellings of the attention's parameters (diffusers before 0.13, which SD 1.5's files still have).
    pub fn canonical_name(name: &str) -> Option<String> {
        if !name.contains(".attentions.") {
            return Some(name.to_owned());
        }
        let renamed = [(".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."), (".proj_attn.", ".to_out.0.")]
            .iter()
            .fold(name.to_owned(), |name, (old, new)| name.replace(old, new));
        Some(renamed)
    }
}
