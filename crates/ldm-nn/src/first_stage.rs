//! Any of the first stages, as pipelines hold them: pictures in [−1, 1] to latents at the denoiser's scale, and back.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tch::{Device, Kind, Tensor};

use crate::autoencoder_kl::{AutoencoderKl, AutoencoderKlConfig, Posterior};
use crate::autoencoder_tiny::{AutoencoderTiny, AutoencoderTinyConfig};
use crate::config::{ConfigError, read_json};
use crate::formats::first_stage::{canonical, canonical_tiny};
use crate::tiling::Tiling;
use crate::vq_model::{VqModel, VqModelConfig};
use crate::weights::{Checkpoint, Weights};

/// What a [`FirstStage`] is built from.
#[derive(Clone, Debug, PartialEq)]
pub enum FirstStageConfig {
    /// With KL regularisation.
    Kl(AutoencoderKlConfig),
    /// With vector quantisation.
    Vq(VqModelConfig),
    /// TAESD.
    Tiny(AutoencoderTinyConfig),
}

impl FirstStageConfig {
    /// Reads and checks diffusers' `config.json`, whose `_class_name` says which it is: `AutoencoderKL` unless given.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        fn of<T: DeserializeOwned>(path: &Path, value: Value) -> Result<T, ConfigError> {
            serde_json::from_value(value).map_err(|source| ConfigError::Parse { path: path.to_owned(), source })
        }
        let value: Value = read_json(path)?;
        let config = match value.get("_class_name").and_then(Value::as_str) {
            None | Some("AutoencoderKL") => Self::Kl(of(path, value)?),
            Some("VQModel") => Self::Vq(of(path, value)?),
            Some("AutoencoderTiny") => Self::Tiny(of(path, value)?),
            Some(other) => {
                return Err(ConfigError::unsupported("_class_name", other, "AutoencoderKL, VQModel or AutoencoderTiny"));
            }
        };
        config.check()?;
        Ok(config)
    }

    /// Refuses what these networks do not have, rather than ignoring it.
    pub fn check(&self) -> Result<(), ConfigError> {
        match self {
            Self::Kl(config) => config.check(),
            Self::Vq(config) => config.check(),
            Self::Tiny(config) => config.check(),
        }
    }

    /// Pixels of a picture per pixel of a latent, along one side.
    pub fn factor(&self) -> i64 {
        match self {
            Self::Kl(config) => config.factor(),
            Self::Vq(config) => config.factor(),
            Self::Tiny(config) => config.factor(),
        }
    }

    /// Channels of the level at the picture's own size.
    pub fn last_channels(&self) -> i64 {
        let first = |channels: &[i64]| channels.first().copied().unwrap_or_default();
        match self {
            Self::Kl(config) => first(&config.block_out_channels),
            Self::Vq(config) => first(&config.block_out_channels),
            Self::Tiny(config) => first(&config.decoder_block_out_channels),
        }
    }

    /// Channels of latents.
    pub fn latent_channels(&self) -> i64 {
        match self {
            Self::Kl(config) => config.latent_channels,
            Self::Vq(config) => config.embed_dim(),
            Self::Tiny(config) => config.latent_channels,
        }
    }

    /// What the network's latents are multiplied by for the denoiser.
    pub fn scaling_factor(&self) -> f64 {
        match self {
            Self::Kl(config) => config.scaling_factor,
            Self::Vq(config) => config.scaling_factor,
            Self::Tiny(config) => config.scaling_factor,
        }
    }

    /// Sets that.
    pub fn set_scaling_factor(&mut self, scaling_factor: f64) {
        match self {
            Self::Kl(config) => config.scaling_factor = scaling_factor,
            Self::Vq(config) => config.scaling_factor = scaling_factor,
            Self::Tiny(config) => config.scaling_factor = scaling_factor,
        }
    }

    /// Whether it must run in float32.
    pub fn force_upcast(&self) -> bool {
        match self {
            Self::Kl(config) => config.force_upcast,
            Self::Vq(config) => config.force_upcast,
            Self::Tiny(config) => config.force_upcast,
        }
    }

    /// The tensors of a checkpoint under the names that [`FirstStage::new`] asks for, whoever wrote it: see
    /// [`canonical`] and [`canonical_tiny`].
    pub fn canonical(&self, checkpoint: Checkpoint) -> Checkpoint {
        match self {
            Self::Kl(config) => canonical(checkpoint, config.block_out_channels.len()),
            Self::Vq(config) => canonical(checkpoint, config.block_out_channels.len()),
            Self::Tiny(_) => canonical_tiny(checkpoint, None),
        }
    }
}

/// Pictures in [−1, 1] to latents at the denoiser's scale, and back.
#[derive(Debug)]
pub enum FirstStage {
    /// With KL regularisation.
    Kl(AutoencoderKl),
    /// With vector quantisation.
    Vq(VqModel),
    /// TAESD.
    Tiny(AutoencoderTiny),
}

impl FirstStage {
    /// Builds what `config` describes.
    ///
    /// # Panics
    /// When `config` would not pass [`FirstStageConfig::check`].
    pub fn new(w: &Weights, config: &FirstStageConfig) -> Self {
        match config {
            FirstStageConfig::Kl(config) => Self::Kl(AutoencoderKl::new(w, config)),
            FirstStageConfig::Vq(config) => Self::Vq(VqModel::new(w, config)),
            FirstStageConfig::Tiny(config) => Self::Tiny(AutoencoderTiny::new(w, config)),
        }
    }

    /// Pictures `[B, 3, H, W]` in [−1, 1] → latents `[B, C, H/f, W/f]`.
    pub fn encode(&self, x: &Tensor) -> Encoded {
        self.encoded(self.encode_plain(x))
    }

    /// Latents `[B, C, H, W]` → pictures `[B, 3, f·H, f·W]`, about [−1, 1].
    pub fn decode(&self, z: &Tensor) -> Tensor {
        self.decode_plain(&(z / self.scaling_factor()))
    }

    /// [`encode`](Self::encode) tile by tile: memory is bounded by the tile. The same when one tile covers the picture.
    ///
    /// # Panics
    /// When height or width is no multiple of the factor.
    pub fn encode_tiled(&self, x: &Tensor, tiling: Tiling) -> Encoded {
        let (_, _, height, width) = x.size4().expect("a picture has four dimensions");
        let factor = self.factor();
        if tiling.covers(height / factor, width / factor) {
            return self.encode(x);
        }
        self.encoded(tiling.apply(x, factor, 1, |tile| self.encode_plain(tile)))
    }

    /// [`decode`](Self::decode) tile by tile: memory is bounded by the tile and the picture. The same when one tile covers the
    /// latent.
    pub fn decode_tiled(&self, z: &Tensor, tiling: Tiling) -> Tensor {
        let (_, _, height, width) = z.size4().expect("a latent has four dimensions");
        if tiling.covers(height, width) {
            return self.decode(z);
        }
        tiling.apply(&(z / self.scaling_factor()), 1, self.factor(), |tile| self.decode_plain(tile))
    }

    /// What the network gives, which tiles are blended of: moments where it gives a distribution.
    fn encode_plain(&self, x: &Tensor) -> Tensor {
        match self {
            Self::Kl(stage) => stage.moments(x),
            Self::Vq(stage) => stage.encode(x),
            Self::Tiny(stage) => stage.encode(x),
        }
    }

    fn encoded(&self, plain: Tensor) -> Encoded {
        let latent = match self {
            Self::Kl(_) => Latent::Gaussian(Posterior::new(&plain)),
            Self::Vq(_) | Self::Tiny(_) => Latent::Point(plain),
        };
        Encoded { latent, scale: self.scaling_factor() }
    }

    fn decode_plain(&self, z: &Tensor) -> Tensor {
        match self {
            Self::Kl(stage) => stage.decode(z),
            Self::Vq(stage) => stage.decode(z),
            Self::Tiny(stage) => stage.decode(z),
        }
    }

    /// Pixels of a picture per pixel of a latent, along one side.
    pub fn factor(&self) -> i64 {
        match self {
            Self::Kl(stage) => stage.config().factor(),
            Self::Vq(stage) => stage.config().factor(),
            Self::Tiny(stage) => stage.config().factor(),
        }
    }

    /// Channels of latents.
    pub fn latent_channels(&self) -> i64 {
        match self {
            Self::Kl(stage) => stage.config().latent_channels,
            Self::Vq(stage) => stage.config().embed_dim(),
            Self::Tiny(stage) => stage.config().latent_channels,
        }
    }

    /// What the network's latents are multiplied by.
    pub fn scaling_factor(&self) -> f64 {
        match self {
            Self::Kl(stage) => stage.config().scaling_factor,
            Self::Vq(stage) => stage.config().scaling_factor,
            Self::Tiny(stage) => stage.config().scaling_factor,
        }
    }

    /// Its dtype.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Kl(stage) => stage.kind(),
            Self::Vq(stage) => stage.kind(),
            Self::Tiny(stage) => stage.kind(),
        }
    }

    /// Where it lives.
    pub fn device(&self) -> Device {
        match self {
            Self::Kl(stage) => stage.device(),
            Self::Vq(stage) => stage.device(),
            Self::Tiny(stage) => stage.device(),
        }
    }
}

impl From<AutoencoderKl> for FirstStage {
    fn from(stage: AutoencoderKl) -> Self {
        Self::Kl(stage)
    }
}

/// A picture's latent, or a distribution of latents, at the denoiser's scale.
#[derive(Debug)]
pub struct Encoded {
    latent: Latent,
    scale: f64,
}

#[derive(Debug)]
enum Latent {
    Gaussian(Posterior),
    Point(Tensor),
}

impl Encoded {
    /// The most likely latent `[B, C, H, W]`.
    pub fn mode(&self) -> Tensor {
        let plain = match &self.latent {
            Latent::Gaussian(posterior) => posterior.mode(),
            Latent::Point(latent) => latent.shallow_clone(),
        };
        plain * self.scale
    }

    /// A latent `[B, C, H, W]`. `draw` gives standard normal noise of the shape that it is told, and is asked only where there is
    /// something to draw.
    pub fn sample(&self, draw: impl FnOnce(&[i64]) -> Tensor) -> Tensor {
        match &self.latent {
            Latent::Gaussian(posterior) => posterior.sample(&draw(&posterior.mode().size())) * self.scale,
            Latent::Point(_) => self.mode(),
        }
    }

    /// The same in another dtype.
    pub fn to_kind(&self, kind: Kind) -> Self {
        let latent = match &self.latent {
            Latent::Gaussian(posterior) => Latent::Gaussian(posterior.to_kind(kind)),
            Latent::Point(latent) => Latent::Point(latent.to_kind(kind)),
        };
        Self { latent, scale: self.scale }
    }
}
