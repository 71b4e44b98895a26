//! The parameters of original files: `unet_config.params` or `network_config.params` of a yaml file, as `UNetModel` of
//! latent-diffusion, stablediffusion and generative-models takes them (openaimodel.py).

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::architecture::{Architecture, Attention, Labels, Level, Names, QkvOrder, Resample, Way};
use super::{PerLevel, PerLevelFlag};
use crate::config::ConfigError;

/// What all classes of original files have.
const GROUPS: i64 = 32;
const EPS: f64 = 1e-5;

const NAMES: Names = Names {
    levels: "channel_mult",
    channels: "model_channels",
    resnets: "num_res_blocks",
    depth: "transformer_depth",
    context: "context_dim",
    classes: "num_classes",
    vector: "adm_in_channels",
};

/// Parameters of `UNetModel`, with the defaults of its constructors.
#[derive(Clone, Debug)]
pub struct OpenAiConfig {
    /// Height and width of the latents that it was trained on; generative-models has no such parameter.
    pub image_size: Option<i64>,
    /// Channels of the input.
    pub in_channels: i64,
    /// Channels of the output.
    pub out_channels: i64,
    /// Channels of the first level.
    pub model_channels: i64,
    /// Downsampling factors (1, 2, 4 …) of the levels that have attention; others than the network's are without effect.
    pub attention_resolutions: Vec<i64>,
    /// Residual blocks of each level on the way down; one more on the way up.
    pub num_res_blocks: PerLevel,
    /// Channels of each level in multiples of the first's.
    pub channel_mult: Vec<i64>,
    /// Convolutions where the resolution changes.
    pub conv_resample: bool,
    /// 2.
    pub dims: i64,
    /// A number of classes, `sequential`, `continuous` or `timestep`.
    pub num_classes: Value,
    /// Heads of every attention, or −1.
    pub num_heads: i64,
    /// Width of a head, or −1; it goes before `num_heads`.
    pub num_head_channels: i64,
    /// Heads of attention blocks on the way up, or −1 for the same.
    pub num_heads_upsample: i64,
    /// Whether the timestep scales and shifts.
    pub use_scale_shift_norm: bool,
    /// Residual blocks where the resolution changes.
    pub resblock_updown: bool,
    /// Queries, keys and values of attention blocks one after another, rather than head by head.
    pub use_new_attention_order: bool,
    /// Spatial transformers rather than attention blocks; generative-models has no such parameter and no other attention.
    pub use_spatial_transformer: Option<bool>,
    /// Blocks of each spatial transformer.
    pub transformer_depth: PerLevel,
    /// Blocks of the middle's, if not the last level's.
    pub transformer_depth_middle: Option<i64>,
    /// Width of the context tokens; a list says it for each block of a transformer and must repeat one number.
    pub context_dim: Option<PerLevel>,
    /// How the width of heads is found; matters for `num_heads_upsample` alone where widths come out even.
    pub legacy: bool,
    /// Levels whose self-attention is to the context instead.
    pub disable_self_attentions: Option<PerLevelFlag>,
    /// After how many residual blocks of each level there is attention.
    pub num_attention_blocks: Option<Vec<i64>>,
    /// Whether the middle's self-attention is to the context instead.
    pub disable_middle_self_attn: bool,
    /// Whether the middle has no attention.
    pub disable_middle_transformer: bool,
    /// Linear layers instead of 1×1 convolutions around the transformers.
    pub use_linear_in_transformer: bool,
    /// `softmax` or `softmax-xformers`, which compute the same.
    pub spatial_transformer_attn_type: String,
    /// Width of the vector of `sequential`.
    pub adm_in_channels: Option<i64>,
}

/// Settings that are read one by one, so that an error names its key.
struct Settings(Map<String, Value>);

impl Settings {
    fn optional<T: DeserializeOwned>(&mut self, key: &'static str) -> Result<Option<T>, ConfigError> {
        let value = self.0.remove(key).unwrap_or(Value::Null);
        serde_json::from_value(value).map_err(|source| ConfigError::Type { key, source })
    }

    fn required<T: DeserializeOwned>(&mut self, key: &'static str) -> Result<T, ConfigError> {
        self.optional(key)?.ok_or(ConfigError::Missing { key })
    }

    fn or<T: DeserializeOwned>(&mut self, key: &'static str, default: T) -> Result<T, ConfigError> {
        Ok(self.optional(key)?.unwrap_or(default))
    }

    /// Takes settings that mean nothing to inference.
    fn ignore(&mut self, keys: &[&str]) {
        for &key in keys {
            self.0.remove(key);
        }
    }

    fn finish(self) -> Result<(), ConfigError> {
        self.0.into_iter().next().map_or(Ok(()), |(key, _)| Err(ConfigError::Unknown { key }))
    }
}

impl OpenAiConfig {
    /// Reads and checks the `params` of a yaml file's `unet_config` or `network_config`; an error names the key.
    pub fn from_params(params: &Value) -> Result<Self, ConfigError> {
        let Value::Object(params) = params else {
            return Err(ConfigError::unsupported("params", params, "a mapping"));
        };
        let mut s = Settings(params.clone());
        s.ignore(&["dropout", "use_checkpoint", "use_fp16", "use_bf16"]);
        let predicted: Option<i64> = s.optional("n_embed")?;
        if predicted.is_some() {
            return Err(ConfigError::unsupported("n_embed", predicted, "null"));
        }
        let config = Self {
            image_size: s.optional("image_size")?,
            in_channels: s.required("in_channels")?,
            out_channels: s.required("out_channels")?,
            model_channels: s.required("model_channels")?,
            attention_resolutions: s.required("attention_resolutions")?,
            num_res_blocks: s.required("num_res_blocks")?,
            channel_mult: s.or("channel_mult", vec![1, 2, 4, 8])?,
            conv_resample: s.or("conv_resample", true)?,
            dims: s.or("dims", 2)?,
            num_classes: s.or("num_classes", Value::Null)?,
            num_heads: s.or("num_heads", -1)?,
            num_head_channels: s.or("num_head_channels", -1)?,
            num_heads_upsample: s.or("num_heads_upsample", -1)?,
            use_scale_shift_norm: s.or("use_scale_shift_norm", false)?,
            resblock_updown: s.or("resblock_updown", false)?,
            use_new_attention_order: s.or("use_new_attention_order", false)?,
            use_spatial_transformer: s.optional("use_spatial_transformer")?,
            transformer_depth: s.or("transformer_depth", PerLevel::Same(1))?,
            transformer_depth_middle: s.optional("transformer_depth_middle")?,
            context_dim: s.optional("context_dim")?,
            legacy: s.or("legacy", true)?,
            disable_self_attentions: s.optional("disable_self_attentions")?,
            num_attention_blocks: s.optional("num_attention_blocks")?,
            disable_middle_self_attn: s.or("disable_middle_self_attn", false)?,
            disable_middle_transformer: s.or("disable_middle_transformer", false)?,
            use_linear_in_transformer: s.or("use_linear_in_transformer", false)?,
            spatial_transformer_attn_type: s.or("spatial_transformer_attn_type", "softmax".to_owned())?,
            adm_in_channels: s.optional("adm_in_channels")?,
        };
        s.finish()?;
        config.architecture()?;
        Ok(config)
    }

    /// What it describes; an error names the parameter that is not supported.
    pub fn architecture(&self) -> Result<Architecture, ConfigError> {
        let fail = |key, value: &dyn std::fmt::Debug, why| Err(ConfigError::unsupported(key, value, why));
        let levels = self.channel_mult.len();
        // The last convolution has `model_channels` whatever the first level has.
        if self.channel_mult.first() != Some(&1) {
            return fail("channel_mult", &self.channel_mult, "a list that starts with 1");
        }
        if levels > 12 {
            return fail("channel_mult", &levels, "from 1 to 12 levels");
        }
        if self.dims != 2 {
            return fail("dims", &self.dims, "2");
        }
        if self.num_heads <= 0 && self.num_head_channels <= 0 {
            return fail("num_heads", &self.num_heads, "a number of heads, or num_head_channels");
        }
        if !matches!(self.spatial_transformer_attn_type.as_str(), "softmax" | "softmax-xformers") {
            return fail("spatial_transformer_attn_type", &self.spatial_transformer_attn_type, "softmax or softmax-xformers");
        }
        for (key, list) in [("num_res_blocks", &self.num_res_blocks), ("transformer_depth", &self.transformer_depth)] {
            if !list.fits(levels) {
                return fail(key, list, "one number, or one per entry of channel_mult");
            }
        }
        match &self.disable_self_attentions {
            Some(PerLevelFlag::Each(flags)) if flags.len() == levels => {}
            None => {}
            flags => return fail("disable_self_attentions", flags, "null, or yes or no per entry of channel_mult"),
        }
        if let Some(counts) = &self.num_attention_blocks
            && (counts.len() != levels || counts.iter().enumerate().any(|(i, n)| !(0..=self.num_res_blocks.at(i)).contains(n)))
        {
            return fail("num_attention_blocks", counts, "null, or at most num_res_blocks per entry of channel_mult");
        }
        let context = self.context()?;
        let levels: Result<Vec<Level>, ConfigError> = (0..levels).map(|level| self.level(level, context.is_some())).collect();
        let levels = levels?;
        let last = levels.len() - 1;
        let middle = if self.disable_middle_transformer {
            Attention::None
        } else {
            let depth = self.transformer_depth_middle.unwrap_or(self.transformer_depth.at(last));
            self.attention(levels[last].channels, context.is_some(), depth, !self.disable_middle_self_attn, self.num_heads)
        };
        Architecture {
            sample_size: self.image_size,
            in_channels: self.in_channels,
            out_channels: self.out_channels,
            cross_attention_dim: context.unwrap_or(0),
            flip_sin_to_cos: true,
            freq_shift: 0.,
            guidance: None,
            labels: self.labels()?,
            added: None,
            groups: GROUPS,
            eps: EPS,
            scale_shift: self.use_scale_shift_norm,
            linear_projection: context.is_some() && self.use_linear_in_transformer,
            qkv: if self.use_new_attention_order { QkvOrder::Thirds } else { QkvOrder::Heads },
            levels,
            middle,
        }
        .checked(&NAMES)
    }

    /// The width of context tokens where there are spatial transformers.
    fn context(&self) -> Result<Option<i64>, ConfigError> {
        let fail = |key, value: &dyn std::fmt::Debug, why| Err(ConfigError::unsupported(key, value, why));
        match (&self.context_dim, self.use_spatial_transformer) {
            (None, Some(true)) => fail("context_dim", &self.context_dim, "a number with use_spatial_transformer"),
            (Some(_), Some(false)) => fail("use_spatial_transformer", &false, "true with context_dim"),
            // latent-diffusion's class, which knows `image_size`, wants both; generative-models' knows neither.
            (Some(_), None) if self.image_size.is_some() => {
                fail("use_spatial_transformer", &self.use_spatial_transformer, "true with context_dim")
            }
            (None, None) if self.image_size.is_none() => fail("context_dim", &self.context_dim, "a number without image_size"),
            (None, _) => Ok(None),
            (Some(PerLevel::Same(width)), _) => Ok(Some(*width)),
            (Some(PerLevel::Each(widths)), _) => match widths.as_slice() {
                [first, rest @ ..] if rest.iter().all(|width| width == first) => Ok(Some(*first)),
                _ => fail("context_dim", widths, "one number, or the same for every block"),
            },
        }
    }

    fn labels(&self) -> Result<Labels, ConfigError> {
        let fail = |key, value: &dyn std::fmt::Debug, why| Err(ConfigError::unsupported(key, value, why));
        match (&self.num_classes, self.adm_in_channels) {
            (Value::Null, _) => Ok(Labels::None),
            (Value::Number(count), _) if count.is_i64() => Ok(Labels::Table(count.as_i64().unwrap_or(0))),
            (Value::String(kind), Some(width)) if kind == "sequential" => Ok(Labels::Vector(width)),
            (Value::String(kind), None) if kind == "sequential" => Err(ConfigError::Missing { key: "adm_in_channels" }),
            (Value::String(kind), _) if kind == "continuous" => Ok(Labels::Linear(1)),
            (Value::String(kind), _) if kind == "timestep" => Ok(Labels::Sinusoids),
            (other, _) => fail("num_classes", other, "null, a number, sequential, continuous or timestep"),
        }
    }

    fn attention(&self, channels: i64, cross: bool, depth: i64, self_attention: bool, heads: i64) -> Attention {
        let heads = match self.num_head_channels {
            width if width > 0 && channels % width == 0 => channels / width,
            width if width > 0 => 0,
            _ => heads,
        };
        if cross {
            Attention::Transformer { heads, depth, self_attention }
        } else {
            Attention::Block { heads, groups: Some(GROUPS) }
        }
    }

    fn level(&self, i: usize, cross: bool) -> Result<Level, ConfigError> {
        let (last, resnets) = (self.channel_mult.len() - 1, self.num_res_blocks.at(i));
        let overflow = || ConfigError::unsupported("model_channels", self.model_channels, "65536 at most, times channel_mult");
        let channels = self.model_channels.checked_mul(self.channel_mult[i]).ok_or_else(overflow)?;
        let resample = match (self.resblock_updown, self.conv_resample) {
            (true, _) => Resample::Resnet,
            (false, true) => Resample::Conv,
            (false, false) => Resample::Plain,
        };
        let attends = self.attention_resolutions.contains(&(1 << i));
        let most = self.num_attention_blocks.as_ref().map_or(i64::MAX, |counts| counts[i]);
        let way = |heads, resnets: i64, last: bool| {
            let attentions = if attends { resnets.min(most) } else { 0 };
            let self_attention = !self.disable_self_attentions.as_ref().is_some_and(|flags| flags.at(i));
            let attention = match attentions {
                0 => Attention::None,
                _ => self.attention(channels, cross, self.transformer_depth.at(i), self_attention, heads),
            };
            Way { attention, attentions, resample: (!last).then_some(resample) }
        };
        // Only attention blocks of the way up ask for other heads, and those that are not legacy forget it.
        let up_heads =
            if cross || !self.legacy || self.num_heads_upsample == -1 { self.num_heads } else { self.num_heads_upsample };
        Ok(Level {
            channels,
            resnets,
            down: way(self.num_heads, resnets, i == last),
            up: way(up_heads, resnets.saturating_add(1), i == 0),
        })
    }
}
