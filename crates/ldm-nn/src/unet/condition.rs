//! diffusers' `UNet2DConditionModel` configuration: the denoisers that attend to a context.

use std::path::Path;

use serde::Deserialize;

use super::architecture::{Added, Architecture, Attention, DIFFUSERS, Labels, Level, QkvOrder, Resample, Way};
use crate::config::{ConfigError, read_json, refuse_unlike};

/// One number for all levels, or one for each.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
pub enum PerLevel {
    /// The same at every level.
    Same(i64),
    /// One for each level, highest resolution first.
    Each(Vec<i64>),
}

impl PerLevel {
    pub(super) fn at(&self, level: usize) -> i64 {
        match self {
            Self::Same(value) => *value,
            Self::Each(values) => values[level],
        }
    }

    /// Whether there is a number for each of so many levels.
    pub(super) fn fits(&self, levels: usize) -> bool {
        matches!(self, Self::Same(_)) || matches!(self, Self::Each(values) if values.len() == levels)
    }
}

/// Yes or no for all levels, or for each.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
pub enum PerLevelFlag {
    /// The same at every level.
    Same(bool),
    /// One for each level, highest resolution first.
    Each(Vec<bool>),
}

impl PerLevelFlag {
    pub(super) fn at(&self, level: usize) -> bool {
        match self {
            Self::Same(value) => *value,
            Self::Each(values) => values[level],
        }
    }
}

/// `unet/config.json`, with the defaults of diffusers' class.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct UNet2DConditionConfig {
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
    /// `DownBlock2D`, `CrossAttnDownBlock2D`, `AttnDownBlock2D` or `ResnetDownsampleBlock2D` for each level.
    pub down_block_types: Vec<String>,
    /// `UpBlock2D`, `CrossAttnUpBlock2D`, `AttnUpBlock2D` or `ResnetUpsampleBlock2D` for each level, lowest resolution first.
    pub up_block_types: Vec<String>,
    /// `UNetMidBlock2DCrossAttn`.
    pub mid_block_type: Option<String>,
    /// Width of the context tokens.
    pub cross_attention_dim: i64,
    /// The number of heads of spatial transformers, despite its name; the width of a head of `AttnDownBlock2D`.
    pub attention_head_dim: PerLevel,
    /// The number of heads, in newer files.
    pub num_attention_heads: Option<PerLevel>,
    /// Blocks of each spatial transformer; the last number is the middle's too.
    pub transformer_layers_per_block: PerLevel,
    /// Groups of every normalisation.
    pub norm_num_groups: i64,
    /// ε of the normalisations outside the transformers.
    pub norm_eps: f64,
    /// `silu`.
    pub act_fn: String,
    /// Whether the sinusoids of the timestep are cosines first.
    pub flip_sin_to_cos: bool,
    /// Shift in the frequencies' denominator.
    pub freq_shift: f64,
    /// Padding of the downsampling convolution.
    pub downsample_padding: i64,
    /// Divisor of the middle block's residual.
    pub mid_block_scale_factor: f64,
    /// Linear layers instead of 1×1 convolutions around the transformers.
    pub use_linear_projection: bool,
    /// Not supported: see `check`.
    pub center_input_sample: bool,
    /// Not supported: see `check`.
    pub dual_cross_attention: bool,
    /// Levels whose self-attention is to the context instead; never the middle's.
    pub only_cross_attention: PerLevelFlag,
    /// `timestep`, `identity`, `projection` or `simple_projection`.
    pub class_embed_type: Option<String>,
    /// Classes of the table, when there is no `class_embed_type`.
    pub num_class_embeds: Option<i64>,
    /// `text_time`.
    pub addition_embed_type: Option<String>,
    /// Width of the sinusoids of each number of `text_time`.
    pub addition_time_embed_dim: Option<i64>,
    /// Width of the vector of `projection`, `simple_projection` or `text_time`.
    pub projection_class_embeddings_input_dim: Option<i64>,
    /// Not supported: see `check`.
    pub encoder_hid_dim: Option<i64>,
    /// Width of the guidance scale's embedding.
    pub time_cond_proj_dim: Option<i64>,
    /// `default` or `scale_shift`.
    pub resnet_time_scale_shift: String,
    /// Not supported: see `check`.
    pub conv_in_kernel: i64,
    /// Not supported: see `check`.
    pub conv_out_kernel: i64,
}

/// Settings of diffusers' class that only networks with other parts have, with the values that mean "without".
const WITHOUT: [(&str, &[&str]); 13] = [
    ("attention_type", &["default"]),
    ("class_embeddings_concat", &["false"]),
    ("cross_attention_norm", &["null"]),
    ("encoder_hid_dim_type", &["null"]),
    // diffusers' UNetMidBlock2DCrossAttn has self-attention whatever `only_cross_attention` says.
    ("mid_block_only_cross_attention", &["null", "false"]),
    ("resnet_out_scale_factor", &["1", "1.0"]),
    ("resnet_skip_time_act", &["false"]),
    ("reverse_transformer_layers_per_block", &["null"]),
    ("time_embedding_act_fn", &["null"]),
    ("time_embedding_dim", &["null"]),
    ("time_embedding_type", &["positional"]),
    ("timestep_post_act", &["null"]),
    ("_class_name", &["UNet2DConditionModel"]),
];

impl Default for UNet2DConditionConfig {
    fn default() -> Self {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let (down, up) = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D");
        Self {
            sample_size: None,
            in_channels: 4,
            out_channels: 4,
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: 2,
            down_block_types: names(&[down, down, down, "DownBlock2D"]),
            up_block_types: names(&["UpBlock2D", up, up, up]),
            mid_block_type: Some("UNetMidBlock2DCrossAttn".into()),
            cross_attention_dim: 1280,
            attention_head_dim: PerLevel::Same(8),
            num_attention_heads: None,
            transformer_layers_per_block: PerLevel::Same(1),
            norm_num_groups: 32,
            norm_eps: 1e-5,
            act_fn: "silu".into(),
            flip_sin_to_cos: true,
            freq_shift: 0.,
            downsample_padding: 1,
            mid_block_scale_factor: 1.,
            use_linear_projection: false,
            center_input_sample: false,
            dual_cross_attention: false,
            only_cross_attention: PerLevelFlag::Same(false),
            class_embed_type: None,
            num_class_embeds: None,
            addition_embed_type: None,
            addition_time_embed_dim: None,
            projection_class_embeddings_input_dim: None,
            encoder_hid_dim: None,
            time_cond_proj_dim: None,
            resnet_time_scale_shift: "default".into(),
            conv_in_kernel: 3,
            conv_out_kernel: 3,
        }
    }
}

impl UNet2DConditionConfig {
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
        for (key, per_level) in [
            ("attention_head_dim", Some(&self.attention_head_dim)),
            ("num_attention_heads", self.num_attention_heads.as_ref()),
            ("transformer_layers_per_block", Some(&self.transformer_layers_per_block)),
        ] {
            if let Some(values) = per_level.filter(|values| !values.fits(levels)) {
                return fail(key, values, "one number, or one per entry of block_out_channels");
            }
        }
        if let PerLevelFlag::Each(flags) = &self.only_cross_attention
            && flags.len() != levels
        {
            return fail("only_cross_attention", flags, "yes or no, or one per entry of block_out_channels");
        }
        if self.mid_block_type.as_deref() != Some("UNetMidBlock2DCrossAttn") {
            return fail("mid_block_type", &self.mid_block_type, "UNetMidBlock2DCrossAttn");
        }
        if self.act_fn != "silu" && self.act_fn != "swish" {
            return fail("act_fn", &self.act_fn, "silu");
        }
        for (key, set) in [("center_input_sample", self.center_input_sample), ("dual_cross_attention", self.dual_cross_attention)]
        {
            if set {
                return fail(key, &set, "false");
            }
        }
        if self.encoder_hid_dim.is_some() {
            return fail("encoder_hid_dim", &self.encoder_hid_dim, "null");
        }
        if self.mid_block_scale_factor != 1. {
            return fail("mid_block_scale_factor", &self.mid_block_scale_factor, "1");
        }
        if self.downsample_padding != 1 {
            return fail("downsample_padding", &self.downsample_padding, "1");
        }
        for (key, size) in [("conv_in_kernel", self.conv_in_kernel), ("conv_out_kernel", self.conv_out_kernel)] {
            if size != 3 {
                return fail(key, &size, "3");
            }
        }
        let last = levels - 1;
        let levels = self.block_out_channels.iter().enumerate();
        let levels: Result<Vec<Level>, ConfigError> = levels.map(|(i, &channels)| self.level(i, channels)).collect();
        let labels = self.labels()?;
        Architecture {
            sample_size: self.sample_size,
            in_channels: self.in_channels,
            out_channels: self.out_channels,
            cross_attention_dim: self.cross_attention_dim,
            flip_sin_to_cos: self.flip_sin_to_cos,
            freq_shift: self.freq_shift,
            guidance: self.time_cond_proj_dim,
            labels,
            added: self.added(labels)?,
            groups: self.norm_num_groups,
            eps: self.norm_eps,
            scale_shift: scale_shift(&self.resnet_time_scale_shift)?,
            linear_projection: self.use_linear_projection,
            qkv: QkvOrder::Heads,
            levels: levels?,
            middle: self.transformer(last, true),
        }
        .checked(&DIFFUSERS)
    }

    fn transformer(&self, level: usize, self_attention: bool) -> Attention {
        let heads = self.num_attention_heads.as_ref().unwrap_or(&self.attention_head_dim).at(level);
        Attention::Transformer { heads, depth: self.transformer_layers_per_block.at(level), self_attention }
    }

    fn level(&self, i: usize, channels: i64) -> Result<Level, ConfigError> {
        let last = self.block_out_channels.len() - 1;
        let (down, up) = (&self.down_block_types[i], &self.up_block_types[last - i]);
        let cross = self.transformer(i, !self.only_cross_attention.at(i));
        // The reference does not turn the list around for the way up, unlike every other list.
        let block = |at| {
            let heads = heads_of_width(channels, self.attention_head_dim.at(at));
            Attention::Block { heads, groups: Some(self.norm_num_groups) }
        };
        let down = match down.as_str() {
            "DownBlock2D" => (Attention::None, Resample::Conv),
            "CrossAttnDownBlock2D" => (cross, Resample::Conv),
            "AttnDownBlock2D" => (block(i), Resample::Conv),
            "ResnetDownsampleBlock2D" => (Attention::None, Resample::Resnet),
            _ => {
                let why = "DownBlock2D, CrossAttnDownBlock2D, AttnDownBlock2D or ResnetDownsampleBlock2D";
                return Err(ConfigError::unsupported("down_block_types", down, why));
            }
        };
        let up = match up.as_str() {
            "UpBlock2D" => (Attention::None, Resample::Conv),
            "CrossAttnUpBlock2D" => (cross, Resample::Conv),
            "AttnUpBlock2D" => (block(last - i), Resample::Conv),
            "ResnetUpsampleBlock2D" => (Attention::None, Resample::Resnet),
            _ => {
                let why = "UpBlock2D, CrossAttnUpBlock2D, AttnUpBlock2D or ResnetUpsampleBlock2D";
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

    fn labels(&self) -> Result<Labels, ConfigError> {
        let vector = || {
            let width = self.projection_class_embeddings_input_dim;
            width.ok_or_else(|| ConfigError::unsupported("projection_class_embeddings_input_dim", width, "the vector's width"))
        };
        Ok(match self.class_embed_type.as_deref() {
            None => self.num_class_embeds.map_or(Labels::None, Labels::Table),
            Some("timestep") => Labels::Sinusoids,
            Some("identity") => Labels::Identity,
            Some("projection") => Labels::Vector(vector()?),
            Some("simple_projection") => Labels::Linear(vector()?),
            Some(other) => {
                let why = "null, timestep, identity, projection or simple_projection";
                return Err(ConfigError::unsupported("class_embed_type", other, why));
            }
        })
    }

    fn added(&self, labels: Labels) -> Result<Option<Added>, ConfigError> {
        let fail = |key, value: &dyn std::fmt::Debug, why| Err(ConfigError::unsupported(key, value, why));
        match self.addition_embed_type.as_deref() {
            None => Ok(None),
            Some("text_time") if matches!(labels, Labels::Vector(_) | Labels::Linear(_) | Labels::Identity) => {
                fail("addition_embed_type", &"text_time", "null beside a class_embed_type that takes a vector")
            }
            Some("text_time") => match (self.projection_class_embeddings_input_dim, self.addition_time_embed_dim) {
                (Some(width), Some(sinusoids)) => Ok(Some(Added { width, sinusoids })),
                widths => fail(
                    "addition_embed_type",
                    &widths,
                    "text_time with projection_class_embeddings_input_dim and addition_time_embed_dim",
                ),
            },
            Some(other) => fail("addition_embed_type", &other, "null or text_time"),
        }
    }
}

/// The number of heads of this width, 0 when they do not fill the channels.
pub(super) fn heads_of_width(channels: i64, width: i64) -> i64 {
    if width > 0 && channels % width == 0 { channels / width } else { 0 }
}

/// One way through a level, whose attentions are as many as its residual blocks.
pub(super) fn way((attention, resample): (Attention, Resample), resnets: i64, last: bool) -> Way {
    let attentions = if attention == Attention::None { 0 } else { resnets };
    Way { attention, attentions, resample: (!last).then_some(resample) }
}

/// Whether `resnet_time_scale_shift` says so.
pub(super) fn scale_shift(setting: &str) -> Result<bool, ConfigError> {
    match setting {
        "default" => Ok(false),
        "scale_shift" => Ok(true),
        other => Err(ConfigError::unsupported("resnet_time_scale_shift", other, "default or scale_shift")),
    }
}
