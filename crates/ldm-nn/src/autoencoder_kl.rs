//! The autoencoder with KL regularisation, the first stage (autoencoder.py `AutoencoderKL`).

use std::path::Path;

use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use crate::blocks::{CoderConfig, Conv2d, Decoder, Encoder, in_layout};
use crate::config::{ConfigError, read_json};
use crate::formats::first_stage;
use crate::weights::{Layout, Weights};

/// `vae/config.json`, with the defaults of diffusers' class.
#[derive(Clone, Debug, Deserialize, PartialEq)]
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
    /// Means that are subtracted from latents; not supported unless null.
    pub latents_mean: Option<Vec<f64>>,
    /// Deviations that latents are divided by; not supported unless null.
    pub latents_std: Option<Vec<f64>>,
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
    /// `DownEncoderBlock2D`, or `AttnDownEncoderBlock2D` with attention, at each level; none is the first everywhere.
    pub down_block_types: Vec<String>,
    /// `UpDecoderBlock2D`, or `AttnUpDecoderBlock2D` with attention, at each level, lowest resolution first.
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
            latents_mean: None,
            latents_std: None,
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
        self.coder()?;
        if !matches!(self.act_fn.as_str(), "silu" | "swish") {
            return fail("act_fn", &self.act_fn, "silu");
        }
        if self.shift_factor.is_some_and(|shift| shift != 0.) {
            return fail("shift_factor", &self.shift_factor, "null or 0");
        }
        if self.latents_mean.is_some() {
            return fail("latents_mean", &self.latents_mean, "null");
        }
        if self.latents_std.is_some() {
            return fail("latents_std", &self.latents_std, "null");
        }
        if !(self.scaling_factor > 0. && self.scaling_factor.is_finite()) {
            return fail("scaling_factor", &self.scaling_factor, "a positive number");
        }
        Ok(())
    }

    /// What its encoder and decoder are made of, checked.
    fn coder(&self) -> Result<CoderConfig, ConfigError> {
        let config = CoderConfig {
            in_channels: self.in_channels,
            out_channels: self.out_channels,
            encoded_channels: self.latent_channels.saturating_mul(2),
            latent_channels: self.latent_channels,
            channels: self.block_out_channels.clone(),
            layers: self.layers_per_block,
            groups: self.norm_num_groups,
            mid_attention: self.mid_block_add_attention,
            ..CoderConfig::default()
        };
        config.with_levels(&self.down_block_types, &self.up_block_types)
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
    pub(crate) fn new(moments: &Tensor) -> Self {
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
    /// Builds what `config` describes.
    ///
    /// # Panics
    /// When `config` would not pass [`AutoencoderKlConfig::check`].
    pub fn new(w: &Weights, config: &AutoencoderKlConfig) -> Self {
        let z = config.latent_channels;
        let coder = config.coder().expect("a checked configuration");
        Self {
            encoder: Encoder::new(&w.sub("encoder"), &coder),
            quant_conv: config.use_quant_conv.then(|| Conv2d::new(&w.sub("quant_conv"), 2 * z, 2 * z, 1)),
            post_quant_conv: config.use_post_quant_conv.then(|| Conv2d::new(&w.sub("post_quant_conv"), z, z, 1)),
            decoder: Decoder::new(&w.sub("decoder"), &coder),
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
        Posterior::new(&self.moments(x))
    }

    /// Means and log-variances of that Gaussian, as they leave the network: `[B, 2C, H/f, W/f]`.
    pub(crate) fn moments(&self, x: &Tensor) -> Tensor {
        let h = self.encoder.forward(&in_layout(x, self.layout));
        self.quant_conv.as_ref().map_or(h.shallow_clone(), |conv| conv.forward(&h))
    }

    /// *Unscaled* latents `[B, C, H, W]` → pictures `[B, 3, f·H, f·W]`, about [−1, 1].
    pub fn decode(&self, z: &Tensor) -> Tensor {
        let z = in_layout(z, self.layout);
        self.decoder.forward(&self.post_quant_conv.as_ref().map_or(z.shallow_clone(), |conv| conv.forward(&z)))
    }

    /// Old spellings of the attention's parameters (diffusers before 0.13, which SD 1.5's files still have).
    pub fn canonical_name(name: &str) -> Option<String> {
        Some(first_stage::diffusers_name(name))
    }
}
