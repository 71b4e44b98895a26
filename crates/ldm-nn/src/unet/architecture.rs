//! What a UNet is made of, whichever file said so.

use std::path::Path;

use super::{UNet2DConditionConfig, UNet2DModelConfig};
use crate::config::{ConfigError, read_json};

/// The most levels, residual blocks per level and transformer blocks per attention; and the most channels of anything. A file that
/// asks for more is wrong, and must not cost more than saying so.
const LEVELS: usize = 12;
const BLOCKS: i64 = 64;
const CHANNELS: i64 = 1 << 16;

/// A UNet's parts, independent of how a file names them.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// Height and width of the latents that it was trained on.
    pub sample_size: Option<i64>,
    /// Channels of the input: the latent's and those of what is concatenated to it.
    pub in_channels: i64,
    /// Channels of the output.
    pub out_channels: i64,
    /// Width of the context tokens; 0 without cross-attention.
    pub cross_attention_dim: i64,
    /// Whether the sinusoids of the timestep are cosines first.
    pub flip_sin_to_cos: bool,
    /// Shift in the frequencies' denominator.
    pub freq_shift: f64,
    /// Width of the sinusoids of the guidance scale that a distilled network takes (Meng et al. 2023; LCM).
    pub guidance: Option<i64>,
    /// What is embedded beside the timestep.
    pub labels: Labels,
    /// SDXL's vector as diffusers names it.
    pub added: Option<Added>,
    /// Groups of every normalisation.
    pub groups: i64,
    /// ε of the normalisations outside the spatial transformers.
    pub eps: f64,
    /// Whether the timestep scales and shifts, rather than being added.
    pub scale_shift: bool,
    /// Linear layers instead of 1×1 convolutions around the spatial transformers.
    pub linear_projection: bool,
    /// The order of rows in the `qkv` of original files' attention blocks.
    pub qkv: QkvOrder,
    /// Highest resolution first.
    pub levels: Vec<Level>,
    /// Attention between the two residual blocks of the middle.
    pub middle: Attention,
}

/// One resolution.
#[derive(Clone, Debug, PartialEq)]
pub struct Level {
    /// Its channels.
    pub channels: i64,
    /// Residual blocks on the way down; one more on the way up.
    pub resnets: i64,
    /// The way down, which ends in a change of resolution except at the last level.
    pub down: Way,
    /// The way up, which ends in a change of resolution except at the first level.
    pub up: Way,
}

/// What goes with the residual blocks of a level.
#[derive(Clone, Debug, PartialEq)]
pub struct Way {
    /// Attention after a residual block.
    pub attention: Attention,
    /// After how many of the residual blocks, the first ones.
    pub attentions: i64,
    /// How the resolution changes at the end.
    pub resample: Option<Resample>,
}

/// Attention over the pixels of a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attention {
    /// None.
    None,
    /// Self-attention alone (openaimodel.py `AttentionBlock`).
    Block {
        /// Heads.
        heads: i64,
        /// Groups of the normalisation of its input, if there is one.
        groups: Option<i64>,
    },
    /// A spatial transformer that also attends to the context.
    Transformer {
        /// Heads.
        heads: i64,
        /// Transformer blocks.
        depth: i64,
        /// Whether the first attention of each block is to the pixels; else it is to the context too.
        self_attention: bool,
    },
}

/// How the resolution changes between levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resample {
    /// A convolution of stride 2; repeated pixels and a convolution.
    Conv,
    /// Means of 2×2; repeated pixels.
    Plain,
    /// A residual block with means of 2×2, or repeated pixels, inside.
    Resnet,
}

/// What is embedded and added to the timestep's embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Labels {
    /// Nothing.
    None,
    /// One of so many classes, from a table.
    Table(i64),
    /// A number, as the timestep is: sinusoids and two layers.
    Sinusoids,
    /// A vector of this width, by two layers.
    Vector(i64),
    /// A vector of this width, by one layer.
    Linear(i64),
    /// A vector that is added as it is.
    Identity,
}

/// A vector of pooled text and sinusoids of numbers, by two layers (diffusers' `text_time`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Added {
    /// Width of the vector.
    pub width: i64,
    /// Width of the sinusoids of each number.
    pub sinusoids: i64,
}

/// The order of rows in a joint projection to queries, keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkvOrder {
    /// Head by head, each with its query, key and value (`QKVAttentionLegacy`), as in every published network.
    Heads,
    /// All queries, all keys, all values (`QKVAttention`).
    Thirds,
}

impl Architecture {
    /// Reads a diffusers `unet/config.json` of either class.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let value: serde_json::Value = read_json(path)?;
        match value.get("_class_name").and_then(serde_json::Value::as_str) {
            Some("UNet2DModel") => UNet2DModelConfig::read(path)?.architecture(),
            None | Some("UNet2DConditionModel") => UNet2DConditionConfig::read(path)?.architecture(),
            Some(class) => Err(ConfigError::unsupported("_class_name", class, "UNet2DModel or UNet2DConditionModel")),
        }
    }

    /// Width of the timestep's sinusoids.
    pub fn sinusoids(&self) -> i64 {
        self.levels[0].channels
    }

    /// Width of the timestep's embedding.
    pub fn time(&self) -> i64 {
        self.sinusoids() * 4
    }

    /// Width of the vector that it takes beside the timestep, if it takes one.
    pub fn vector(&self) -> Option<i64> {
        match (self.added, self.labels) {
            (Some(added), _) => Some(added.width),
            (None, Labels::Vector(width) | Labels::Linear(width)) => Some(width),
            (None, Labels::Identity) => Some(self.time()),
            (None, Labels::None | Labels::Table(_) | Labels::Sinusoids) => None,
        }
    }

    /// Whether it takes a class or number beside the timestep.
    pub fn takes_labels(&self) -> bool {
        matches!(self.labels, Labels::Table(_) | Labels::Sinusoids)
    }

    /// What every kind of configuration must keep to; `Err` names the setting as `names` has it.
    pub(super) fn checked(self, names: &Names) -> Result<Self, ConfigError> {
        let fail = |key, value: &dyn std::fmt::Debug, why| Err(ConfigError::unsupported(key, value, why));
        if self.levels.is_empty() || self.levels.len() > LEVELS {
            return fail(names.levels, &self.levels.len(), "from 1 to 12 levels");
        }
        for (key, channels) in [("in_channels", self.in_channels), ("out_channels", self.out_channels)] {
            if !(1..=CHANNELS).contains(&channels) {
                return fail(key, &channels, "from 1 to 65536");
            }
        }
        if self.groups <= 0 {
            return fail("norm_num_groups", &self.groups, "a positive number");
        }
        if !(self.eps.is_finite() && self.eps >= 0.) {
            return fail("norm_eps", &self.eps, "a number that is not negative");
        }
        for level in &self.levels {
            if !(1..=CHANNELS).contains(&level.channels) || level.channels % self.groups != 0 {
                return fail(
                    names.channels,
                    &level.channels,
                    "multiples of norm_num_groups (32 in original files), at most 65536",
                );
            }
            if !(1..=BLOCKS).contains(&level.resnets) {
                return fail(names.resnets, &level.resnets, "from 1 to 64");
            }
        }
        if self.sinusoids() % 2 != 0 {
            return fail(names.channels, &self.sinusoids(), "an even number at the first level");
        }
        let middle = (self.levels.last().expect("not empty").channels, self.middle);
        let levels =
            self.levels.iter().flat_map(|level| [(level.channels, level.down.attention), (level.channels, level.up.attention)]);
        for (channels, attention) in levels.chain([middle]) {
            let (Attention::Block { heads, .. } | Attention::Transformer { heads, .. }) = attention else { continue };
            if heads <= 0 || channels % heads != 0 {
                return fail(names.channels, &channels, "a multiple of the number of heads");
            }
            if let Attention::Block { groups: Some(groups), .. } = attention
                && (groups <= 0 || channels % groups != 0)
            {
                return fail("attn_norm_num_groups", &groups, "a divisor of the channels");
            }
            if let Attention::Transformer { depth, .. } = attention {
                if !(1..=BLOCKS).contains(&depth) {
                    return fail(names.depth, &depth, "from 1 to 64");
                }
                if !(1..=CHANNELS).contains(&self.cross_attention_dim) {
                    return fail(names.context, &self.cross_attention_dim, "from 1 to 65536");
                }
            }
        }
        let width = |width: i64| (1..=CHANNELS).contains(&width);
        match self.labels {
            Labels::Table(count) if !(1..=1 << 20).contains(&count) => return fail(names.classes, &count, "from 1 to 1048576"),
            Labels::Vector(vector) | Labels::Linear(vector) if !width(vector) => {
                return fail(names.vector, &vector, "from 1 to 65536");
            }
            _ => {}
        }
        if let Some(added) = self.added
            && (!width(added.width) || !width(added.sinusoids) || added.sinusoids % 2 != 0)
        {
            return fail(
                "addition_time_embed_dim",
                &added,
                "an even number, with projection_class_embeddings_input_dim up to 65536",
            );
        }
        if let Some(guidance) = self.guidance
            && (!width(guidance) || guidance < 4)
        {
            return fail("time_cond_proj_dim", &guidance, "from 4 to 65536");
        }
        Ok(self)
    }
}

/// What a kind of configuration calls its settings.
pub(super) struct Names {
    pub(super) levels: &'static str,
    pub(super) channels: &'static str,
    pub(super) resnets: &'static str,
    pub(super) depth: &'static str,
    pub(super) context: &'static str,
    pub(super) classes: &'static str,
    pub(super) vector: &'static str,
}

/// diffusers' names, of both classes.
pub(super) const DIFFUSERS: Names = Names {
    levels: "block_out_channels",
    channels: "block_out_channels",
    resnets: "layers_per_block",
    depth: "transformer_layers_per_block",
    context: "cross_attention_dim",
    classes: "num_class_embeds",
    vector: "projection_class_embeddings_input_dim",
};
