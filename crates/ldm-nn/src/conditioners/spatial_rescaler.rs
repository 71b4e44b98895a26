//! A map of classes shrunk to the latent's size (latent-diffusion, encoders/modules.py `SpatialRescaler`).

use serde::Deserialize;
use tch::{Kind, Tensor};

use crate::config::ConfigError;
use crate::weights::{Init, Weights};

/// `cond_stage_config.params` of an original configuration, with the class's defaults.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default)]
pub struct SpatialRescalerConfig {
    /// How often the map is shrunk.
    pub n_stages: i64,
    /// `bilinear`.
    pub method: String,
    /// By how much each time.
    pub multiplier: f64,
    /// Classes.
    pub in_channels: i64,
    /// Channels of the condition; without them the classes stay as they are.
    pub out_channels: Option<i64>,
    /// Whether the change of channels has a bias.
    pub bias: bool,
}

impl Default for SpatialRescalerConfig {
    fn default() -> Self {
        Self { n_stages: 1, method: "bilinear".into(), multiplier: 0.5, in_channels: 3, out_channels: None, bias: false }
    }
}

impl SpatialRescalerConfig {
    /// Refuses what this network does not have, rather than ignoring it.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.method != "bilinear" {
            return Err(ConfigError::unsupported("method", &self.method, "bilinear"));
        }
        if !(0..=8).contains(&self.n_stages) {
            return Err(ConfigError::unsupported("n_stages", self.n_stages, "from 0 to 8"));
        }
        if !(self.multiplier > 0. && self.multiplier <= 1.) {
            return Err(ConfigError::unsupported("multiplier", self.multiplier, "more than 0, at most 1"));
        }
        if self.in_channels < 1 || self.out_channels.is_some_and(|channels| channels < 1) {
            let channels = (self.in_channels, self.out_channels);
            return Err(ConfigError::unsupported("in_channels, out_channels", channels, "at least 1"));
        }
        Ok(())
    }
}

#[derive(Debug)]
struct ChannelMapper {
    weight: Tensor,
    bias: Option<Tensor>,
}

/// Shrinks, then changes the number of channels.
#[derive(Debug)]
pub struct SpatialRescaler {
    channel_mapper: Option<ChannelMapper>,
    config: SpatialRescalerConfig,
}

impl SpatialRescaler {
    /// Builds what `config` describes (it must have passed [`SpatialRescalerConfig::check`]).
    pub fn new(w: &Weights, config: &SpatialRescalerConfig) -> Self {
        let channel_mapper = config.out_channels.map(|output| {
            let (w, start) = (w.sub("channel_mapper"), Init::FanIn(config.in_channels));
            ChannelMapper {
                weight: w.tensor("weight", &[output, config.in_channels, 1, 1], start),
                bias: config.bias.then(|| w.tensor("bias", &[output], start)),
            }
        });
        Self { channel_mapper, config: config.clone() }
    }

    /// What it was built from.
    pub fn config(&self) -> &SpatialRescalerConfig {
        &self.config
    }

    /// `[B, C, H, W]` → `[B, C', H', W']`, H' and W' shrunk `n_stages` times, each time rounded down; they
    /// must come out as 1 at least.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let scale = self.config.multiplier;
        let shrink = |x: Tensor| {
            let size = |dim: usize| (x.size()[dim] as f64 * scale) as i64;
            x.upsample_bilinear2d([size(2), size(3)], false, scale, scale)
        };
        let x = (0..self.config.n_stages).fold(x.shallow_clone(), |x, _| shrink(x));
        match &self.channel_mapper {
            None => x,
            Some(ChannelMapper { weight, bias }) => x.conv2d(weight, bias.as_ref(), [1, 1], [0, 0], [1, 1], 1),
        }
    }
}

/// Class labels as planes: int64 `[B, H, W]` → `[B, classes, H, W]` of zeros and ones in `kind`; all zeros where
/// there is no such class.
pub fn one_hot(labels: &Tensor, classes: i64, kind: Kind) -> Tensor {
    let planes = Tensor::arange(classes, (Kind::Int64, labels.device())).view([1, classes, 1, 1]);
    labels.unsqueeze(1).eq_tensor(&planes).to_kind(kind)
}
