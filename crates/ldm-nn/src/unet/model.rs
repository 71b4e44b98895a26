//! diffusers' `UNet2DModel` configuration: the denoisers without a context.

use std::path::Path;

use serde::Deserialize;

use super::architecture::{Architecture, Attention, DIFFUSERS, Labels, Level, QkvOrder, Resample};
use super::condition::{heads_of_width, scale_shift, way};
use crate::config::{ConfigError, read_json, refuse_unlike};

/// `unet/config.json` of an unconditional model, with the defaults of diffusers' class.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct UNet2DModelConfig {
    /// Height and width of the latents that it was trained on.
    pub sample_size: Option<i64>,
    /// Channels of the input.
    pub in_channels: i64,
    /// Channels of the output.
    pub out_channels: i64,
    /// Channels of each level, highest resolution first.
    pub block_out_channels: Vec<i64>,
    /// Residual blocks of each level on the way down; one more on the way up.
    pub layers_per_block: i64,
    /// `DownBlock2D`, `AttnDownBlock2D` or `ResnetDownsampleBlock2D` for each level.
    pub down_block_types: Vec<String>,
    /// `UpBlock2D`, `AttnUpBlock2D` or `ResnetUpsampleBlock2D` for each level, lowest resolution first.
    pub up_block_types: Vec<String>,
    /// `UNetMidBlock2D`.
    pub mid_block_type: Option<String>,
    /// Whether the middle has attention.
    pub add_attention: bool,
    /// The width of a head, here indeed; null for one head.
    pub attention_head_dim: Option<i64>,
    /// Groups of every normalisation.
    pub norm_num_groups: i64,
    /// Groups of the middle attention's; it has none when this is null and `resnet_time_scale_shift` is `scale_shift`.
    pub attn_norm_num_groups: Option<i64>,
    /// ε of every normalisation.
    pub norm_eps: f64,
    /// `silu`.
    pub act_fn: String,
    /// Whether the sinusoids of the timestep are cosines first.
    pub flip_sin_to_cos: bool,
    /// Shift in the frequencies' denominator.
    pub freq_shift: f64,
    /// Padding of the downsampling convolution.
    pub downsample_padding: i64,
    /// `conv` or `resnet`: how `AttnDownBlock2D` ends. `DownBlock2D` ends in a convolution all the same.
    pub downsample_type: String,
    /// `conv` or `resnet`: how `AttnUpBlock2D` ends.
    pub upsample_type: String,
    /// Divisor of the middle block's residual.
    pub mid_block_scale_factor: f64,
    /// Not supported: see `check`.
    pub center_input_sample: bool,
    /// `timestep` or `identity`.
    pub class_embed_type: Option<String>,
    /// Classes of the table, when there is no `class_embed_type`.
    pub num_class_embeds: Option<i64>,
    /// `default` or `scale_shift`.
    pub resnet_time_scale_shift: String,
}

/// Settings that only networks with other parts have, with the values that mean "without".
const WITHOUT: [(&str, &[&str]); 3] =
    [("time_embedding_dim", &["null"]), ("time_embedding_type", &["positional"]), ("_class_name", &["UNet2DModel"])];

impl Default for UNet2DModelConfig {
    fn default() -> Self {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let (down, up) = ("AttnDownBlock2D", "AttnUpBlock2D");
        Self {
            sample_size: None,
            in_channels: 3,
            out_channels: 3,
            block_out_channels: vec![224, 448, 672, 896],
            layers_per_block: 2,
            down_block_types: names(&["DownBlock2D", down, down, down]),
            up_block_types: names(&[up, up, up, "UpBlock2D"]),
            mid_block_type: Some("UNetMidBlock2D".into()),
            add_attention: true,
            attention_head_dim: Some(8),
            norm_num_groups: 32,
            attn_norm_num_groups: None,
            norm_eps: 1e-5,
            act_fn: "silu".into(),
            flip_sin_to_cos: true,
            freq_shift: 0.,
            downsample_padding: 1,
            downsample_type: "conv".into(),
            upsample_type: "conv".into(),
            mid_block_scale_factor: 1.,
            center_input_sample: false,
            class_embed_type: None,
            num_class_embeds: None,
            resnet_time_scale_shift: "default".into(),
        }
    }
}

impl UNet2DModelConfig {
    /// Reads and checks a `config.json`.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let config: Self = read_json(path)?;
        config.check()?;
        refuse_unlike(&read_json(path)?, &WITHOUT)?;
        Ok(config)
    }

    /// Refuses what this network does not have, rather than ignoring it.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.architecture().map(drop)
    }

    /// What it describes; an error names the setting that is not supported.
    pub fn architecture(&self) -> Result<Architecture, ConfigError> {
        let fail = |key, value: &dyn std::fmt::Debug, why| Err(ConfigError::unsupported(key, value, why));
        let levels = self.block_out_channels.len();
        if levels == 0 || self.down_block_types.len() != levels || self.up_block_types.len() != levels {
            return fail("down_block_types", &self.down_block_types, "one type per entry of block_out_channels, down and up");
        }
        if self.mid_block_type.as_deref() != Some("UNetMidBlock2D") {
            return fail("mid_block_type", &self.mid_block_type, "UNetMidBlock2D");
        }
        if self.act_fn != "silu" && self.act_fn != "swish" {
            return fail("act_fn", &self.act_fn, "silu");
        }
        if self.center_input_sample {
            return fail("center_input_sample", &true, "false");
        }
        if self.mid_block_scale_factor != 1. {
            return fail("mid_block_scale_factor", &self.mid_block_scale_factor, "1");
        }
        if self.downsample_padding != 1 {
            return fail("downsample_padding", &self.downsample_padding, "1");
        }
        let labels = match (self.class_embed_type.as_deref(), self.num_class_embeds) {
            (None, count) => count.map_or(Labels::None, Labels::Table),
            (Some("timestep"), _) => Labels::Sinusoids,
            (Some("identity"), _) => Labels::Identity,
            (Some(other), _) => return fail("class_embed_type", &other, "null, timestep or identity"),
        };
        let scale_shift = scale_shift(&self.resnet_time_scale_shift)?;
        let ends = [resample("downsample_type", &self.downsample_type)?, resample("upsample_type", &self.upsample_type)?];
        let middle = if self.add_attention {
            let groups = self.attn_norm_num_groups.or((!scale_shift).then_some(self.norm_num_groups));
            Attention::Block { heads: self.heads(*self.block_out_channels.last().expect("not empty")), groups }
        } else {
            Attention::None
        };
        let levels = self.block_out_channels.iter().enumerate();
        let levels: Result<Vec<Level>, ConfigError> = levels.map(|(i, &channels)| self.level(i, channels, ends)).collect();
        Architecture {
            sample_size: self.sample_size,
            in_channels: self.in_channels,
            out_channels: self.out_channels,
            cross_attention_dim: 0,
            flip_sin_to_cos: self.flip_sin_to_cos,
            freq_shift: self.freq_shift,
            guidance: None,
            labels,
            added: None,
            groups: self.norm_num_groups,
            eps: self.norm_eps,
            scale_shift,
            linear_projection: false,
            qkv: QkvOrder::Heads,
            levels: levels?,
            middle,
        }
        .checked(&DIFFUSERS)
    }

    fn heads(&self, channels: i64) -> i64 {
        heads_of_width(channels, self.attention_head_dim.unwrap_or(channels))
    }

    fn block(&self, channels: i64) -> Attention {
        Attention::Block { heads: self.heads(channels), groups: Some(self.norm_num_groups) }
    }

    fn level(&self, i: usize, channels: i64, [halve, double]: [Resample; 2]) -> Result<Level, ConfigError> {
        let last = self.block_out_channels.len() - 1;
        let (down, up) = (&self.down_block_types[i], &self.up_block_types[last - i]);
        let down = match down.as_str() {
            "DownBlock2D" => (Attention::None, Resample::Conv),
            "AttnDownBlock2D" => (self.block(channels), halve),
            "ResnetDownsampleBlock2D" => (Attention::None, Resample::Resnet),
            _ => {
                let why = "DownBlock2D, AttnDownBlock2D or ResnetDownsampleBlock2D";
                return Err(ConfigError::unsupported("down_block_types", down, why));
            }
        };
        let up = match up.as_str() {
            "UpBlock2D" => (Attention::None, Resample::Conv),
            "AttnUpBlock2D" => (self.block(channels), double),
            "ResnetUpsampleBlock2D" => (Attention::None, Resample::Resnet),
            _ => {
                let why = "UpBlock2D, AttnUpBlock2D or ResnetUpsampleBlock2D";
                return Err(ConfigError::unsupported("up_block_types", up, why));
            }
        };
        Ok(Level {
            channels,
            resnets: self.layers_per_block,
            down: way(down, self.layers_per_block, i == last),
            up: way(up, self.layers_per_block.saturating_add(1), i == 0),
        })
    }
}

fn resample(key: &'static str, setting: &str) -> Result<Resample, ConfigError> {
    match setting {
        "conv" => Ok(Resample::Conv),
        "resnet" => Ok(Resample::Resnet),
        other => Err(ConfigError::unsupported(key, other, "conv or resnet")),
    }
}
