//! TAESD, the tiny autoencoder for previews and for fast first stages (taesd.py `TAESD`; diffusers' `AutoencoderTiny`).

use std::path::Path;

use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use crate::blocks::{Conv2d, in_layout};
use crate::config::{ConfigError, read_json};
use crate::weights::{Layout, Weights};

/// The largest settings that are taken; published models stay far below.
const MOST_STAGES: usize = 10;
const MOST_BLOCKS: i64 = 64;
const MOST_CHANNELS: i64 = 16_384;

/// Latents are kept within ± this by a soft clamp before they are decoded.
const CLAMP: f64 = 3.;

/// `config.json` of diffusers' `AutoencoderTiny`, with the defaults of its class: those of TAESD.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default)]
pub struct AutoencoderTinyConfig {
    /// Channels of pictures.
    pub in_channels: i64,
    /// Channels of decoded pictures.
    pub out_channels: i64,
    /// Channels of each stage of the encoder: one number for all, repeated.
    pub encoder_block_out_channels: Vec<i64>,
    /// Channels of each stage of the decoder: one number for all, repeated.
    pub decoder_block_out_channels: Vec<i64>,
    /// Blocks of each stage of the encoder; each stage but the first halves the size before them.
    pub num_encoder_blocks: Vec<i64>,
    /// Blocks of each stage of the decoder; each stage but the last doubles the size after them.
    pub num_decoder_blocks: Vec<i64>,
    /// Channels of latents.
    pub latent_channels: i64,
    /// 2.
    pub upsampling_scaling_factor: i64,
    /// `relu`.
    pub act_fn: String,
    /// `nearest`.
    pub upsample_fn: String,
    /// What latents are multiplied by for the denoiser: 1, because it was trained on the scaled latents of the first stage that
    /// it stands in for.
    pub scaling_factor: f64,
    /// What is subtracted before that; not supported unless null or 0.
    pub shift_factor: Option<f64>,
    /// Whether it must run in float32.
    pub force_upcast: bool,
}

impl Default for AutoencoderTinyConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            encoder_block_out_channels: vec![64; 4],
            decoder_block_out_channels: vec![64; 4],
            num_encoder_blocks: vec![1, 3, 3, 3],
            num_decoder_blocks: vec![3, 3, 3, 1],
            latent_channels: 4,
            upsampling_scaling_factor: 2,
            act_fn: "relu".into(),
            upsample_fn: "nearest".into(),
            scaling_factor: 1.,
            shift_factor: None,
            force_upcast: false,
        }
    }
}

impl AutoencoderTinyConfig {
    /// Reads and checks a `config.json`.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let config: Self = read_json(path)?;
        config.check()?;
        Ok(config)
    }

    /// Refuses what this network does not have, rather than ignoring it.
    pub fn check(&self) -> Result<(), ConfigError> {
        let fail = |key, value: &dyn std::fmt::Debug, why| Err(ConfigError::unsupported(key, value, why));
        let stages = self.num_encoder_blocks.len();
        let sides = [
            ("num_encoder_blocks", &self.num_encoder_blocks, "encoder_block_out_channels", &self.encoder_block_out_channels),
            ("num_decoder_blocks", &self.num_decoder_blocks, "decoder_block_out_channels", &self.decoder_block_out_channels),
        ];
        for (blocks_key, blocks, channels_key, channels) in sides {
            let few = |count: &i64| (0..=MOST_BLOCKS).contains(count);
            if blocks.is_empty() || blocks.len() > MOST_STAGES || blocks.len() != stages || !blocks.iter().all(few) {
                return fail(blocks_key, blocks, "as many stages on both sides, 1 to 10, each of 0 to 64 blocks");
            }
            let one_width = channels.iter().all(|count| *count == channels[0] && (1..=MOST_CHANNELS).contains(count));
            if channels.len() != stages || !one_width {
                return fail(channels_key, channels, "one width for each stage, the same for all, 1 to 16384");
            }
        }
        let counts =
            [("in_channels", self.in_channels), ("out_channels", self.out_channels), ("latent_channels", self.latent_channels)];
        if let Some((key, count)) = counts.into_iter().find(|(_, count)| !(1..=MOST_CHANNELS).contains(count)) {
            return fail(key, &count, "1 to 16384");
        }
        if self.upsampling_scaling_factor != 2 {
            return fail("upsampling_scaling_factor", &self.upsampling_scaling_factor, "2");
        }
        if self.act_fn != "relu" {
            return fail("act_fn", &self.act_fn, "relu");
        }
        if self.upsample_fn != "nearest" {
            return fail("upsample_fn", &self.upsample_fn, "nearest");
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
        1 << (self.num_encoder_blocks.len() - 1)
    }
}

/// Three convolutions and the skip (taesd.py `Block`).
#[derive(Debug)]
struct Block {
    conv: [Conv2d; 3],
}

impl Block {
    fn new(w: &Weights, channels: i64) -> Self {
        let w = w.sub("conv");
        Self { conv: [0, 2, 4].map(|i| Conv2d::new(&w.sub(i), channels, channels, 3)) }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let [first, second, third] = &self.conv;
        let h = third.forward(&second.forward(&first.forward(x).relu()).relu());
        (x + h).relu()
    }
}

/// One place of the flat lists that both halves are.
#[derive(Debug)]
enum Layer {
    Conv(Conv2d),
    Block(Block),
    Relu,
    Double,
}

impl Layer {
    fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            Self::Conv(conv) => conv.forward(x),
            Self::Block(block) => block.forward(x),
            Self::Relu => x.relu(),
            Self::Double => {
                let (_, _, height, width) = x.size4().expect("a feature map has four dimensions");
                x.upsample_nearest2d([height * 2, width * 2], None, None)
            }
        }
    }
}

/// Layers in order; each is named by its place.
struct Sequence {
    w: Weights,
    layers: Vec<Layer>,
}

impl Sequence {
    fn push(&mut self, layer: impl FnOnce(&Weights) -> Layer) {
        let layer = layer(&self.w.sub(self.layers.len()));
        self.layers.push(layer);
    }

    fn blocks(&mut self, count: i64, channels: i64) {
        for _ in 0..count {
            self.push(|w| Layer::Block(Block::new(w, channels)));
        }
    }
}

fn encoder(w: &Weights, config: &AutoencoderTinyConfig) -> Vec<Layer> {
    let mut sequence = Sequence { w: w.sub("encoder").sub("layers"), layers: Vec::new() };
    let channels = config.encoder_block_out_channels[0];
    for (stage, &blocks) in config.num_encoder_blocks.iter().enumerate() {
        sequence.push(|w| {
            Layer::Conv(if stage == 0 {
                Conv2d::new(w, config.in_channels, channels, 3)
            } else {
                Conv2d::without_bias(w, channels, channels, 2)
            })
        });
        sequence.blocks(blocks, channels);
    }
    sequence.push(|w| Layer::Conv(Conv2d::new(w, channels, config.latent_channels, 3)));
    sequence.layers
}

/// The decoder alone, which is all that previews need.
#[derive(Debug)]
pub struct TinyDecoder {
    layers: Vec<Layer>,
    layout: Layout,
    kind: Kind,
    device: Device,
}

impl TinyDecoder {
    /// Builds what `config` describes (it must have passed [`AutoencoderTinyConfig::check`]).
    pub fn new(w: &Weights, config: &AutoencoderTinyConfig) -> Self {
        let mut sequence = Sequence { w: w.sub("decoder").sub("layers"), layers: Vec::new() };
        let channels = config.decoder_block_out_channels[0];
        sequence.push(|w| Layer::Conv(Conv2d::new(w, config.latent_channels, channels, 3)));
        sequence.push(|_| Layer::Relu);
        for (stage, &blocks) in config.num_decoder_blocks.iter().enumerate() {
            sequence.blocks(blocks, channels);
            if stage + 1 < config.num_decoder_blocks.len() {
                sequence.push(|_| Layer::Double);
                sequence.push(|w| Layer::Conv(Conv2d::without_bias(w, channels, channels, 1)));
            }
        }
        sequence.push(|w| Layer::Conv(Conv2d::new(w, channels, config.out_channels, 3)));
        Self { layers: sequence.layers, layout: w.layout(), kind: w.kind(), device: w.device() }
    }

    /// *Scaled* latents `[B, C, H, W]` → pictures `[B, 3, f·H, f·W]`, about [−1, 1].
    pub fn decode(&self, z: &Tensor) -> Tensor {
        let z = (in_layout(z, self.layout) / CLAMP).tanh() * CLAMP;
        forward(&self.layers, z) * 2. - 1.
    }

    /// Its dtype.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where it lives.
    pub fn device(&self) -> Device {
        self.device
    }
}

fn forward(layers: &[Layer], x: Tensor) -> Tensor {
    layers.iter().fold(x, |h, layer| layer.forward(&h))
}

/// Pictures in [−1, 1] to latents and back; inside, pictures are in [0, 1].
#[derive(Debug)]
pub struct AutoencoderTiny {
    encoder: Vec<Layer>,
    decoder: TinyDecoder,
    config: AutoencoderTinyConfig,
}

impl AutoencoderTiny {
    /// Builds what `config` describes (it must have passed [`AutoencoderTinyConfig::check`]).
    pub fn new(w: &Weights, config: &AutoencoderTinyConfig) -> Self {
        Self { encoder: encoder(w, config), decoder: TinyDecoder::new(w, config), config: config.clone() }
    }

    /// What it was built from.
    pub fn config(&self) -> &AutoencoderTinyConfig {
        &self.config
    }

    /// Its dtype.
    pub fn kind(&self) -> Kind {
        self.decoder.kind
    }

    /// Where it lives.
    pub fn device(&self) -> Device {
        self.decoder.device
    }

    /// Pictures `[B, 3, H, W]` in [−1, 1] → *scaled* latents `[B, C, H/f, W/f]`.
    pub fn encode(&self, x: &Tensor) -> Tensor {
        forward(&self.encoder, (in_layout(x, self.decoder.layout) + 1.) / 2.)
    }

    /// *Scaled* latents `[B, C, H, W]` → pictures `[B, 3, f·H, f·W]`, about [−1, 1].
    pub fn decode(&self, z: &Tensor) -> Tensor {
        self.decoder.decode(z)
    }
}
