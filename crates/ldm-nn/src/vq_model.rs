//! The autoencoder with vector quantisation (autoencoder.py `VQModelInterface`, taming's `VectorQuantizer2`).

use std::path::Path;

use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use crate::blocks::{CoderConfig, Conv2d, Decoder, Encoder, in_layout};
use crate::config::{ConfigError, read_json};
use crate::formats::first_stage;
use crate::weights::{Init, Layout, Weights};

/// Distances that are held at once: 32 MiB of float32.
const DISTANCES: i64 = 1 << 23;

/// The largest codebook that is taken.
const MOST_CODES: i64 = 1 << 20;

/// `vqvae/config.json`, with the defaults of diffusers' class but for `scaling_factor`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default)]
pub struct VqModelConfig {
    /// Channels of pictures.
    pub in_channels: i64,
    /// Channels of decoded pictures.
    pub out_channels: i64,
    /// Channels of each level, highest resolution first; each level but the last halves the size.
    pub block_out_channels: Vec<i64>,
    /// Residual blocks of each level of the encoder; the decoder has one more.
    pub layers_per_block: i64,
    /// Channels between the encoder and the quantiser, and between the quantiser and the decoder.
    pub latent_channels: i64,
    /// Vectors of the codebook.
    pub num_vq_embeddings: i64,
    /// Their width, which is the number of channels of latents; `latent_channels` unless given.
    pub vq_embed_dim: Option<i64>,
    /// Groups of every normalisation.
    pub norm_num_groups: i64,
    /// What latents are multiplied by for the denoiser. 1 unless given, as in every model of the paper: the default of diffusers'
    /// class is that of Stable Diffusion, with which `LDMPipeline` decodes these models wrongly (diffusers issue 6725).
    pub scaling_factor: f64,
    /// Width of the pictures that it was trained on.
    pub sample_size: i64,
    /// `silu`.
    pub act_fn: String,
    /// `group`.
    pub norm_type: String,
    /// Whether the middle block has attention.
    pub mid_block_add_attention: bool,
    /// Whether latents are indices of the codebook; not supported.
    pub lookup_from_codebook: bool,
    /// Whether it must run in float32.
    pub force_upcast: bool,
    /// `DownEncoderBlock2D`, or `AttnDownEncoderBlock2D` with attention, at each level; none is the first everywhere.
    pub down_block_types: Vec<String>,
    /// `UpDecoderBlock2D`, or `AttnUpDecoderBlock2D` with attention, at each level, lowest resolution first.
    pub up_block_types: Vec<String>,
}

impl Default for VqModelConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            block_out_channels: vec![64],
            layers_per_block: 1,
            latent_channels: 3,
            num_vq_embeddings: 256,
            vq_embed_dim: None,
            norm_num_groups: 32,
            scaling_factor: 1.,
            sample_size: 32,
            act_fn: "silu".into(),
            norm_type: "group".into(),
            mid_block_add_attention: true,
            lookup_from_codebook: false,
            force_upcast: false,
            down_block_types: vec![],
            up_block_types: vec![],
        }
    }
}

impl VqModelConfig {
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
        if !(1..=MOST_CODES).contains(&self.num_vq_embeddings) {
            return fail("num_vq_embeddings", &self.num_vq_embeddings, "1 to 1048576");
        }
        if !(1..=16_384).contains(&self.embed_dim()) {
            return fail("vq_embed_dim", &self.vq_embed_dim, "1 to 16384");
        }
        if !matches!(self.act_fn.as_str(), "silu" | "swish") {
            return fail("act_fn", &self.act_fn, "silu");
        }
        if self.norm_type != "group" {
            return fail("norm_type", &self.norm_type, "group");
        }
        if self.lookup_from_codebook {
            return fail("lookup_from_codebook", &self.lookup_from_codebook, "false");
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
            encoded_channels: self.latent_channels,
            latent_channels: self.latent_channels,
            channels: self.block_out_channels.clone(),
            layers: self.layers_per_block,
            groups: self.norm_num_groups,
            mid_attention: self.mid_block_add_attention,
            ..CoderConfig::default()
        };
        config.with_levels(&self.down_block_types, &self.up_block_types)
    }

    /// Width of the codebook's vectors, and channels of latents.
    pub fn embed_dim(&self) -> i64 {
        self.vq_embed_dim.unwrap_or(self.latent_channels)
    }

    /// Pixels of a picture per pixel of a latent, along one side.
    pub fn factor(&self) -> i64 {
        1 << (self.block_out_channels.len() - 1)
    }
}

/// Pictures in [−1, 1] to latents and back. Latents are those before quantisation, which belongs to decoding.
#[derive(Debug)]
pub struct VqModel {
    encoder: Encoder,
    quant_conv: Conv2d,
    /// `[n, e]`
    codebook: Tensor,
    post_quant_conv: Conv2d,
    decoder: Decoder,
    config: VqModelConfig,
    layout: Layout,
    kind: Kind,
    device: Device,
}

impl VqModel {
    /// Builds what `config` describes.
    ///
    /// # Panics
    /// When `config` would not pass [`VqModelConfig::check`].
    pub fn new(w: &Weights, config: &VqModelConfig) -> Self {
        let (z, e, n) = (config.latent_channels, config.embed_dim(), config.num_vq_embeddings);
        let coder = config.coder().expect("a checked configuration");
        let embedding = w.sub("quantize").sub("embedding");
        Self {
            encoder: Encoder::new(&w.sub("encoder"), &coder),
            quant_conv: Conv2d::new(&w.sub("quant_conv"), z, e, 1),
            // Uniform in ±1/n, as taming starts it.
            codebook: embedding.tensor("weight", &[n, e], Init::FanIn(n * n)),
            post_quant_conv: Conv2d::new(&w.sub("post_quant_conv"), e, z, 1),
            decoder: Decoder::new(&w.sub("decoder"), &coder),
            config: config.clone(),
            layout: w.layout(),
            kind: w.kind(),
            device: w.device(),
        }
    }

    /// What it was built from.
    pub fn config(&self) -> &VqModelConfig {
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

    /// Pictures `[B, 3, H, W]` in [−1, 1] → *unscaled* latents `[B, E, H/f, W/f]` before quantisation.
    pub fn encode(&self, x: &Tensor) -> Tensor {
        self.quant_conv.forward(&self.encoder.forward(&in_layout(x, self.layout)))
    }

    /// *Unscaled* latents `[B, E, H, W]` → int64 `[B, H, W]`: for each the nearest vector of the codebook, the first of equals.
    pub fn indices(&self, z: &Tensor) -> Tensor {
        let (b, e, height, width) = z.size4().expect("a latent has four dimensions");
        let rows = z.permute([0, 2, 3, 1]).reshape([-1, e]).to_kind(Kind::Float); // [BHW, E]
        let codebook = self.codebook.to_kind(Kind::Float);
        let lengths = codebook.square().sum_dim_intlist(1, false, Kind::Float); // [n]
        let turned = codebook.tr();
        let nearest = |rows: &Tensor| {
            let own = rows.square().sum_dim_intlist(1, true, Kind::Float); // [rows, 1]
            (own + &lengths - rows.matmul(&turned) * 2.).argmin(1, false)
        };
        // Some rows at a time: a picture of 1024 pixels and 16384 vectors would take 4 GiB.
        let some = (DISTANCES / self.config.num_vq_embeddings).max(1);
        let parts: Vec<Tensor> = rows.split(some, 0).iter().map(nearest).collect();
        Tensor::cat(&parts, 0).view([b, height, width])
    }

    /// Vectors of the codebook for int64 indices `[B, H, W]` → `[B, E, H, W]`.
    pub fn vectors(&self, indices: &Tensor) -> Tensor {
        Tensor::embedding(&self.codebook, indices, -1, false, false).permute([0, 3, 1, 2])
    }

    /// *Unscaled* latents `[B, E, H, W]` → pictures `[B, 3, f·H, f·W]`, about [−1, 1]; quantises on the way, where gradients end.
    pub fn decode(&self, z: &Tensor) -> Tensor {
        self.decode_unquantised(&self.vectors(&self.indices(z)).to_kind(z.kind()))
    }

    /// The same from vectors that are quantised already, or shall not be (`force_not_quantize`).
    pub fn decode_unquantised(&self, z: &Tensor) -> Tensor {
        self.decoder.forward(&self.post_quant_conv.forward(&in_layout(z, self.layout)))
    }

    /// Old spellings of the attention's parameters (diffusers before 0.13).
    pub fn canonical_name(name: &str) -> Option<String> {
        Some(first_stage::diffusers_name(name))
    }
}
