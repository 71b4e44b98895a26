//! The encoder and the decoder that every first stage of latent diffusion shares (model.py `Encoder`, `Decoder`).

use tch::Tensor;

use super::basic::{Conv2d, GroupNorm, Linear};
use super::resnet::{Downsample2D, ResnetBlock2D, Upsample2D};
use crate::attention::attention;
use crate::config::ConfigError;
use crate::weights::Weights;

/// ε of every normalisation.
const EPS: f64 = 1e-6;

/// The largest settings that are taken; published models stay far below.
const MOST_LEVELS: usize = 10;
const MOST_LAYERS: i64 = 16;
const MOST_CHANNELS: i64 = 16_384;

/// What an [`Encoder`] and its [`Decoder`] are made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CoderConfig {
    /// Channels of pictures.
    pub in_channels: i64,
    /// Channels of decoded pictures.
    pub out_channels: i64,
    /// Channels that the encoder gives.
    pub encoded_channels: i64,
    /// Channels that the decoder takes.
    pub latent_channels: i64,
    /// Channels of each level, highest resolution first; each level but the last halves the size.
    pub channels: Vec<i64>,
    /// Residual blocks of each level of the encoder; the decoder has one more.
    pub layers: i64,
    /// Groups of every normalisation.
    pub groups: i64,
    /// Whether each level of the encoder has attention, in the order of `channels`.
    pub down_attention: Vec<bool>,
    /// Whether each level of the decoder has attention, in the order in which it runs: lowest resolution first.
    pub up_attention: Vec<bool>,
    /// Whether the middle blocks have attention.
    pub mid_attention: bool,
}

impl CoderConfig {
    /// Checks it, and takes the levels with attention from diffusers' names of blocks: one for each level, or none at all.
    pub(crate) fn with_levels(mut self, down: &[String], up: &[String]) -> Result<Self, ConfigError> {
        self.check()?;
        let levels = self.channels.len();
        self.down_attention = attention_levels(
            "down_block_types",
            down,
            levels,
            DOWN,
            "DownEncoderBlock2D or AttnDownEncoderBlock2D at each level",
        )?;
        self.up_attention =
            attention_levels("up_block_types", up, levels, UP, "UpDecoderBlock2D or AttnUpDecoderBlock2D at each level")?;
        Ok(self)
    }

    /// Refuses sizes that cannot be built.
    pub fn check(&self) -> Result<(), ConfigError> {
        let fail = |key, value: &dyn std::fmt::Debug, why| Err(ConfigError::unsupported(key, value, why));
        let channels = &self.channels;
        let whole = |&c: &i64| (1..=MOST_CHANNELS).contains(&c) && c % self.groups == 0;
        if channels.is_empty() || channels.len() > MOST_LEVELS || self.groups <= 0 || !channels.iter().all(whole) {
            return fail("block_out_channels", channels, "1 to 10 multiples of norm_num_groups, each at most 16384");
        }
        if !(1..=MOST_LAYERS).contains(&self.layers) {
            return fail("layers_per_block", &self.layers, "1 to 16");
        }
        let counts = [
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
            ("latent_channels", self.encoded_channels),
            ("latent_channels", self.latent_channels),
        ];
        match counts.into_iter().find(|(_, count)| !(1..=MOST_CHANNELS).contains(count)) {
            Some((key, count)) => fail(key, &count, "1 to 16384"),
            None => Ok(()),
        }
    }

    /// Pixels of a picture per pixel of a latent, along one side.
    pub fn factor(&self) -> i64 {
        1 << (self.channels.len() - 1)
    }
}

/// Names of a level of the encoder without and with attention.
pub const DOWN: [&str; 2] = ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"];
/// Names of a level of the decoder without and with attention.
pub const UP: [&str; 2] = ["UpDecoderBlock2D", "AttnUpDecoderBlock2D"];

/// Which of `levels` have attention, by `names`.
fn attention_levels(
    key: &'static str,
    names: &[String],
    levels: usize,
    [plain, attention]: [&str; 2],
    why: &'static str,
) -> Result<Vec<bool>, ConfigError> {
    if names.is_empty() {
        return Ok(vec![false; levels]);
    }
    if names.len() != levels || names.iter().any(|name| name != plain && name != attention) {
        return Err(ConfigError::unsupported(key, names, why));
    }
    Ok(names.iter().map(|name| name == attention).collect())
}

/// Self-attention over the pixels of a feature map, one head (model.py `AttnBlock`).
#[derive(Debug)]
struct PixelAttention {
    group_norm: GroupNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
}

impl PixelAttention {
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

/// The residual blocks of one level, each followed by attention where the level has it.
#[derive(Debug)]
struct Level {
    blocks: Vec<(ResnetBlock2D, Option<PixelAttention>)>,
}

impl Level {
    fn new(w: &Weights, mut input: i64, output: i64, layers: i64, groups: i64, attention: bool) -> Self {
        let mut blocks = Vec::new();
        for layer in 0..layers {
            let resnet = ResnetBlock2D::new(&w.sub("resnets").sub(layer), input, output, None, groups, EPS);
            let attention = attention.then(|| PixelAttention::new(&w.sub("attentions").sub(layer), output, groups));
            blocks.push((resnet, attention));
            input = output;
        }
        Self { blocks }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let mut h = x.shallow_clone();
        for (resnet, attention) in &self.blocks {
            h = resnet.forward(&h, None);
            if let Some(attention) = attention {
                h = attention.forward(&h);
            }
        }
        h
    }
}

#[derive(Debug)]
struct MidBlock {
    resnet_0: ResnetBlock2D,
    attention: Option<PixelAttention>,
    resnet_1: ResnetBlock2D,
}

impl MidBlock {
    fn new(w: &Weights, channels: i64, config: &CoderConfig) -> Self {
        let groups = config.groups;
        let resnet = |i: i64| ResnetBlock2D::new(&w.sub("resnets").sub(i), channels, channels, None, groups, EPS);
        let attention = || PixelAttention::new(&w.sub("attentions").sub(0), channels, groups);
        Self { resnet_0: resnet(0), attention: config.mid_attention.then(attention), resnet_1: resnet(1) }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let mut h = self.resnet_0.forward(x, None);
        if let Some(attention) = &self.attention {
            h = attention.forward(&h);
        }
        self.resnet_1.forward(&h, None)
    }
}

/// Pictures to what the latent is made of.
#[derive(Debug)]
pub struct Encoder {
    conv_in: Conv2d,
    down_blocks: Vec<(Level, Option<Downsample2D>)>,
    mid_block: MidBlock,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Encoder {
    /// Builds what `config` describes (it must have passed [`CoderConfig::check`]).
    pub fn new(w: &Weights, config: &CoderConfig) -> Self {
        let (channels, groups) = (&config.channels, config.groups);
        let mut input = channels[0];
        let last = channels[channels.len() - 1];
        let conv_in = Conv2d::new(&w.sub("conv_in"), config.in_channels, input, 3);
        let mut down_blocks = Vec::new();
        for (i, &output) in channels.iter().enumerate() {
            let w = w.sub("down_blocks").sub(i);
            let level = Level::new(&w, input, output, config.layers, groups, config.down_attention[i]);
            let down = (i + 1 < channels.len()).then(|| Downsample2D::asymmetric(&w.sub("downsamplers").sub(0), output));
            down_blocks.push((level, down));
            input = output;
        }
        Self {
            conv_in,
            down_blocks,
            mid_block: MidBlock::new(&w.sub("mid_block"), last, config),
            conv_norm_out: GroupNorm::new(&w.sub("conv_norm_out"), groups, last, EPS),
            conv_out: Conv2d::new(&w.sub("conv_out"), last, config.encoded_channels, 3),
        }
    }

    /// `[B, in_channels, H, W]` → `[B, encoded_channels, H/f, W/f]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let mut h = self.conv_in.forward(x);
        for (level, downsampler) in &self.down_blocks {
            h = level.forward(&h);
            if let Some(downsampler) = downsampler {
                h = downsampler.forward(&h);
            }
        }
        h = self.mid_block.forward(&h);
        self.conv_out.forward(&self.conv_norm_out.forward_silu(&h))
    }
}

/// Latents to pictures.
#[derive(Debug)]
pub struct Decoder {
    conv_in: Conv2d,
    mid_block: MidBlock,
    up_blocks: Vec<(Level, Option<Upsample2D>)>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Decoder {
    /// Builds what `config` describes (it must have passed [`CoderConfig::check`]).
    pub fn new(w: &Weights, config: &CoderConfig) -> Self {
        let (channels, groups) = (&config.channels, config.groups);
        let mut input = channels[channels.len() - 1];
        let conv_in = Conv2d::new(&w.sub("conv_in"), config.latent_channels, input, 3);
        let mid_block = MidBlock::new(&w.sub("mid_block"), input, config);
        let mut up_blocks = Vec::new();
        for (i, &output) in channels.iter().rev().enumerate() {
            let w = w.sub("up_blocks").sub(i);
            let level = Level::new(&w, input, output, config.layers + 1, groups, config.up_attention[i]);
            let up = (i + 1 < channels.len()).then(|| Upsample2D::new(&w.sub("upsamplers").sub(0), output));
            up_blocks.push((level, up));
            input = output;
        }
        Self {
            conv_in,
            mid_block,
            up_blocks,
            conv_norm_out: GroupNorm::new(&w.sub("conv_norm_out"), groups, input, EPS),
            conv_out: Conv2d::new(&w.sub("conv_out"), input, config.out_channels, 3),
        }
    }

    /// `[B, latent_channels, H, W]` → `[B, out_channels, f·H, f·W]`.
    pub fn forward(&self, z: &Tensor) -> Tensor {
        let mut h = self.mid_block.forward(&self.conv_in.forward(z));
        for (level, upsampler) in &self.up_blocks {
            h = level.forward(&h);
            if let Some(upsampler) = upsampler {
                let (_, _, height, width) = h.size4().expect("a feature map has four dimensions");
                h = upsampler.forward(&h, (height * 2, width * 2));
            }
        }
        self.conv_out.forward(&self.conv_norm_out.forward_silu(&h))
    }
}
